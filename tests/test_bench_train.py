"""`bench train` on steps of known work: what it reports is there and adds up; nothing here judges a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from degstalk_ns.bench import train
from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.work import Work
from degstalk_ns.errors import UserError

MACHINE = Machine("test", 2, 2, operations=1e11, bytes=1e10)


class _KnownRun:
    """Steps of one product of 8 x 8 matrices, and a rasterizer's work of 1000 + 2000 operations."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.size: tuple[int | None, int | None] = (None, None)
        self.entered: list[str] = []
        self.steps = 0

    def enter(self, stage: str) -> None:
        self.entered.append(stage)

    def step(self) -> None:
        self.steps += 1
        torch.ones(8, 8) @ torch.ones(8, 8)

    def resize(self, gaussians: int | None, side: int | None) -> None:
        self.size = (gaussians, side)

    def describe(self) -> dict[str, Any]:
        side = self.size[1] or 64
        return {"face": (self.size[0] or 100) - 10, "mouth": 10, "width": side, "height": side}

    def raster_work(self) -> list[Work]:
        return [Work(10, 2, 1000, 2000, 100, 200)]


def _quiet(_: str) -> None:
    return None


def test_train_reports_each_stage() -> None:
    run = _KnownRun()
    report = train.bench_train(run, MACHINE, ("static", "fuse"), 4, _quiet)
    assert run.entered == ["static", "fuse"]
    assert run.steps == 2 * (train.WARMUP_STEPS + 4 + 1)  # the last one is counted, not timed
    static, fuse = (report.data["stages"][stage] for stage in ("static", "fuse"))
    assert static["gflop"] == pytest.approx((2 * 8**3 + 3000) / 1e9)
    assert fuse["gflop"] == pytest.approx((2 * 8**3 + 1000) / 1e9)
    assert static["floor_ms"] == pytest.approx((2 * 8**3 + 3000) / 1e11 * 1e3)
    assert static["steps_per_second"] == pytest.approx(1 / static["median"]) and len(static["resident_mib"]) == 4
    assert report.data["face"] == 90 and report.data["peak_resident_mib"] >= max(static["resident_mib"]) - 20


def test_memory_is_noted_a_few_times_along_many_steps() -> None:
    spread, memory = train.time_stage(_KnownRun(), "static", 120)
    assert spread.repeats == 120 and len(memory) == train.MEMORY_SAMPLES


def test_a_sweep_grows_one_thing_at_a_time_and_sets_the_run_back(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _KnownRun()
    monkeypatch.setattr(train, "TRAINED_COUNTS", (20, 40))
    monkeypatch.setattr(train, "TRAINED_SIZES", (32, 64, 128))
    table, panels, entries = train.sweep_train(run, "motion", 2, _quiet)
    assert [entry["width"] for entry in entries] == [64, 64, 32, 64, 128]
    assert [entry["face"] + entry["mouth"] for entry in entries] == [20, 40, 100, 100, 100]
    assert [list(curve.x) for (curve,) in panels.values()] == [[20, 40], [32, 64, 128]]
    assert len(table.rows) == 5 and set(run.entered) == {"motion"} and run.size == (None, None)


@pytest.mark.parametrize(("stages", "said"), [(("static", "nap"), "got nap"), ((), "got none")])
def test_stages_that_there_are_not_are_refused(stages: tuple[str, ...], said: str) -> None:
    train.check_stages(train.STAGES)
    with pytest.raises(UserError, match=f"--stages: expected some of static .*{said}"):
        train.check_stages(stages)
