"""The benchmarks on tiny subjects: what they report is there and adds up; nothing here judges a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_avatar import _avatar, _conditions, _view

from degstalk_ns.avatar.renderer import FrameRenderer
from degstalk_ns.bench import raster, train
from degstalk_ns.bench.machine import Machine, choose_device, measure_machine, use_threads
from degstalk_ns.bench.render import Played, Shot, bench_render
from degstalk_ns.bench.timing import Spread, measure, measure_together
from degstalk_ns.bench.work import Work
from degstalk_ns.console.report import Report, Table, check_writable, plot
from degstalk_ns.errors import UserError
from degstalk_ns.scripts import cli

MACHINE = Machine("test", 2, 2, operations=1e11, bytes=1e10)


def _quiet(_: str) -> None:
    return None


def test_spread_is_that_of_the_runs() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 5.0, 4.0])
    assert spread.median == 3 and spread.shortest == 1 and spread.repeats == 5
    assert spread.low == pytest.approx(1.4) and spread.high == pytest.approx(4.6)


def test_functions_are_called_in_turn_and_warmed_up() -> None:
    calls: list[str] = []
    times = measure_together({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert all(spread.repeats == 3 and 0 < spread.shortest <= spread.median for spread in times.values())
    with pytest.raises(UserError, match="repeats"):
        measure(lambda: None, repeats=0)


def test_the_machine_has_rates_and_says_who_it_is() -> None:
    machine = measure_machine(repeats=2)
    assert machine.operations > 1e8 and machine.bytes > 1e7 and machine.cores >= 1
    assert machine.threads == torch.get_num_threads() and "GFLOP/s" in machine.describe()


def test_raster_reports_times_work_and_ratio() -> None:
    report = raster.bench_raster({"cpu": MACHINE}, 200, 64, 0, 2, _quiet)
    cpu = report.data["cpu"]
    for phase in ("forward", "forward+backward"):
        assert cpu[phase]["times_floor"] == pytest.approx(cpu[phase]["median"] * 1e3 / cpu[phase]["floor_ms"])
    assert cpu["forward+backward"]["gflop"] > cpu["forward"]["gflop"] > 0
    assert {"projection", "binning+blending"} <= set(cpu)


def test_a_sweep_has_a_curve_for_each_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(raster, "SWEPT_COUNTS", (50, 100))
    monkeypatch.setattr(raster, "SWEPT_SIZES", (32, 64))
    table, panels, entries = raster.sweep_raster(["cpu"], 0, 2, _quiet)
    assert len(table.rows) == len(entries) == 4 and len(panels) == 2
    plot(tmp_path / "p.png", "title", panels)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_render_times_every_phase_of_the_real_frames() -> None:
    avatar = _avatar()
    shots = [Shot(_view(), _conditions(seed)) for seed in (0, 1)]
    plates = torch.rand(2, 48, 48, 3)
    played = Played("head", FrameRenderer(avatar), 1, True, shots, lambda place: plates[place])
    report = bench_render(played, MACHINE, 3, _quiet)
    seconds = report.data["seconds"]
    assert set(seconds) >= {"fields", "rasterization of both regions", "composition", "whole frame"}
    assert report.data["frames_per_second"] == pytest.approx(1 / seconds["whole frame"]["median"])
    assert report.data["gflop"] > 0 and report.data["gaussians"] == {"face": 300, "mouth": 200}


class _FakeRun:
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.size: tuple[int | None, int | None] = (None, None)
        self.entered: list[str] = []

    def enter(self, stage: str) -> None:
        self.entered.append(stage)

    def step(self) -> None:
        torch.ones(8, 8) @ torch.ones(8, 8)

    def resize(self, gaussians: int | None, side: int | None) -> None:
        self.size = (gaussians, side)

    def describe(self) -> dict[str, Any]:
        side = self.size[1] or 64
        return {"face": (self.size[0] or 100) - 10, "mouth": 10, "width": side, "height": side}

    def raster_work(self) -> list[Work]:
        return [Work(10, 2, 1000, 2000, 100, 200)]


def test_train_reports_each_stage_and_its_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _FakeRun()
    report = train.bench_train(run, MACHINE, ("static", "fuse"), 4, _quiet)
    assert run.entered == ["static", "fuse"]
    static = report.data["stages"]["static"]
    assert static["gflop"] == pytest.approx((2 * 8**3 + 3000) / 1e9)
    assert static["steps_per_second"] == pytest.approx(1 / static["median"]) and len(static["resident_mib"]) == 4
    monkeypatch.setattr(train, "TRAINED_COUNTS", (20, 40))
    monkeypatch.setattr(train, "TRAINED_SIZES", (32, 64, 128))
    _, panels, entries = train.sweep_train(run, "motion", 2, _quiet)
    assert [entry["width"] for entry in entries] == [64, 64, 32, 64, 128] and len(panels) == 2
    assert run.size == (None, None)
    with pytest.raises(UserError, match="--stages"):
        train.check_stages(("static", "nap"))


def test_reports_are_shown_and_saved_whole(tmp_path: Path) -> None:
    table = Table("title", ("", "ms"))
    table.add("row", "1.0")
    report = Report("raster", [table], ["a note"], {"count": 3})
    console = Console(record=True, width=60, file=open(tmp_path / "shown", "w"))
    report.show(console)
    text = console.export_text()
    assert all(word in text for word in ("title", "row", "1.0", "a note"))
    report.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == {"benchmark": "raster", "count": 3}
    with pytest.raises(ValueError):
        table.add("too", "many", "cells")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raster", "--count", "0"], "at least one Gaussian"),
        (["raster", "--size", "-4"], "at least one Gaussian and one pixel"),
        (["raster", "--count", "9000000000"], "GiB are free"),
        (["raster", "--threads", "0"], "--threads must be at least 1"),
        (["raster", "--repeats", "0"], "--repeats must be at least 1"),
        (["raster", "--plot", "p.png"], "--sweep"),
        (["raster", "--output", "nowhere/r.json"], "there is no folder"),
        (["render", "--load-config", "nowhere.yml"], "no such file"),
        (["train"], "--data"),
        (["train", "--data", "nowhere"], "no such dataset folder"),
        (["train", "--data", "nowhere", "--stages", "nap"], "--stages"),
        (["process", "nowhere.mp4"], "no such file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", *arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 1 and message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "input_"), [("render", "--load-config"), ("process", "VIDEO")])
def test_what_is_needed_is_required(name: str, input_: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", name])
    assert exit_.value.code == cli.MISUSED and input_ in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("threads", [1, 64])
def test_any_number_of_threads_draws_the_same(threads: int) -> None:
    before = torch.get_num_threads()
    arguments = raster.make_scene(300, 64, 0).arguments()
    try:
        use_threads(threads)
        assert torch.get_num_threads() == threads
        image = raster.rasterize(**arguments)[0]
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(image.numpy(), raster.rasterize(**arguments)[0].numpy())


def test_an_output_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    check_writable(tmp_path / "r.json")
    check_writable(None)
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)
    assert math.isfinite(MACHINE.operations)
