"""`bench raster` on tiny scenes: what it reports is there and adds up; nothing here judges a time."""

from __future__ import annotations

import psutil
import pytest
import torch

from degstalk_ns.bench import raster
from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.timing import Spread
from degstalk_ns.errors import UserError

MACHINE = Machine("test", 2, 2, operations=1e11, bytes=1e10)


def _quiet(_: str) -> None:
    return None


def test_raster_reports_times_work_and_ratio() -> None:
    report = raster.bench_raster({"cpu": MACHINE}, 200, 64, 0, 2, _quiet)
    cpu, work = report.data["cpu"], report.data["work"]
    for phase in ("forward", "forward+backward"):
        assert cpu[phase]["times_floor"] == pytest.approx(cpu[phase]["median"] * 1e3 / cpu[phase]["floor_ms"])
        floor = max(cpu[phase]["gflop"] * 1e9 / 1e11, cpu[phase]["megabytes"] * 1e6 / 1e10)
        assert cpu[phase]["floor_ms"] == pytest.approx(floor * 1e3)
    assert cpu["forward+backward"]["gflop"] > cpu["forward"]["gflop"] > 0
    assert cpu["forward"]["gflop"] == pytest.approx(work["forward_operations"] / 1e9)
    assert {"projection", "binning+blending"} <= set(cpu)
    assert [row[0] for row in report.tables[0].rows] == [f"cpu {phase}" for phase in list(cpu) if phase != "machine"]


def test_a_sweep_has_a_curve_for_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "SWEPT_COUNTS", (50, 100))
    monkeypatch.setattr(raster, "SWEPT_SIZES", (32, 64))
    table, panels, entries = raster.sweep_raster(["cpu"], 0, 2, _quiet)
    assert len(table.rows) == len(entries) == 4 and len(panels) == 2
    assert [list(curve.x) for curves in panels.values() for curve in curves] == [[50, 100]] * 2 + [[32, 64]] * 2
    assert [(entry["count"], entry["size"]) for entry in entries] == [(50, 512), (100, 512), (30_000, 32), (30_000, 64)]


def test_a_curve_is_in_milliseconds() -> None:
    curve = raster.curve_of("cpu", [1, 2], [Spread(0.002, 0.001, 0.003, 0.001, 5), Spread(0.02, 0.01, 0.03, 0.01, 5)])
    assert (curve.median, curve.low, curve.high) == ([2, 20], [1, 10], [3, 30])


@pytest.mark.parametrize(("count", "size"), [(0, 64), (10, 0), (-1, -1)])
def test_a_scene_of_nothing_is_refused(count: int, size: int) -> None:
    with pytest.raises(UserError, match="at least one Gaussian and one pixel"):
        raster.make_scene(count, size, 0)


def test_a_scene_that_memory_does_not_hold_is_refused_before_it_is_made() -> None:
    count = psutil.virtual_memory().total // raster.BYTES_A_GAUSSIAN + 1
    with pytest.raises(UserError, match=r"needs about .* GiB are free"):
        raster.make_scene(count, 64, 0)


def test_a_scene_is_moved_whole() -> None:
    scene = raster.make_scene(20, 32, 0)
    moved = raster.on_device(scene, torch.device("meta"))
    assert {value.device.type for value in vars(moved).values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert (moved.width, moved.height) == (32, 32) and scene.means.device.type == "cpu"
