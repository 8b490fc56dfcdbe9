"""Times of the benchmarks: their spread, and that functions are called in turn."""

from __future__ import annotations

from time import sleep

import pytest

from degstalk_ns.bench.timing import MILLISECONDS, Spread, check_repeats, measure, measure_together, timed
from degstalk_ns.errors import UserError


def test_spread_is_that_of_the_runs() -> None:
    spread = Spread.of([3.0, 1.0, 2.0, 5.0, 4.0])
    assert spread.median == 3 and spread.shortest == 1 and spread.repeats == 5
    assert spread.low == pytest.approx(1.4) and spread.high == pytest.approx(4.6)
    assert spread.to_json() == {"median": 3, "low": spread.low, "high": spread.high, "shortest": 1, "repeats": 5}


def test_cells_are_milliseconds_with_as_many_digits_as_mean_something() -> None:
    assert Spread(0.0123456, 0.01, 0.02, 0.01, 9).milliseconds() == ("12.35", "10.00 .. 20.00")
    assert Spread(0.1234567, 0.09, 0.2, 0.01, 9).milliseconds() == ("123.5", "90.0 .. 200.0")
    assert len(MILLISECONDS) == 2


def test_functions_are_called_in_turn_and_warmed_up() -> None:
    calls: list[str] = []
    times = measure_together({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert all(spread.repeats == 3 and 0 < spread.shortest <= spread.median for spread in times.values())


def test_a_call_takes_at_least_its_time() -> None:
    assert timed(lambda: sleep(0.01)) >= 0.01
    assert measure(lambda: sleep(0.01), repeats=2, warmup=0).shortest >= 0.01


def test_nothing_can_be_said_of_no_runs() -> None:
    check_repeats(1)
    with pytest.raises(UserError, match="--repeats must be at least 1, not 0"):
        measure(lambda: None, repeats=0)
