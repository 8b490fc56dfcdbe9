"""How long many clips take: against sums that can be done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.forecast import Cluster, StepCost, forecast, forecast_table, plot_forecast

COSTS = [StepCost("process", 1, 100.0, 2, 1e9), StepCost("train", 2, 400.0, 2, 5e8)]
"""A clip takes 900 s on 2 threads, and leaves 2 GB."""


@pytest.mark.parametrize(
    ("clips", "machines", "hours", "why"),
    [
        (1, 10, 900 / 3600, "one clip's steps follow one another"),
        (8, 1, 2 * 900 / 3600, "machines"),  # four slots
        (9, 1, 3 * 900 / 3600, "machines"),
        (100_000, 100, 250 * 900 / 3600, "machines"),  # 400 slots
        (100_000, 1_000, 100_000 * 4e9 / 4e9 / 3600, "storage"),
    ],
)
def test_hours_are_those_of_a_sum_by_hand(clips: int, machines: int, hours: float, why: str) -> None:
    found = forecast(COSTS, clips, Cluster(machines, 8, 4_000))
    assert found.hours == pytest.approx(hours, rel=1e-6) and found.bottleneck == why
    assert found.terabytes == pytest.approx(clips * 2e9 / 1e12) and 0 < found.busy <= 1


def test_a_machine_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="--cpus 1: a process step takes 2"):
        forecast(COSTS, 1, Cluster(1, 1, 1_000))


def test_table_and_plot(tmp_path: Path) -> None:
    rows = [[forecast(COSTS, clips, Cluster(m, 8, 1_000)) for m in (1, 10)] for clips in (10, 1_000)]
    assert len([line for line in forecast_table(COSTS, rows) if line.startswith("| 1")]) == 4
    plot_forecast(rows, tmp_path / "hours.png")
    assert (tmp_path / "hours.png").stat().st_size > 5_000
