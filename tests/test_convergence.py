"""When a run is long enough."""

from __future__ import annotations

import pytest

from degstalk_ns.metrics.lips_and_eyes import LipMovement
from degstalk_ns.training.convergence import LengthConfig, longer, why_longer

CONFIG = LengthConfig(longest=14_000, factor=1.5, slope=0.9, shut=0.75)  # not the defaults


def moved(slope: float, shut: int = 0, closed: int = 0) -> LipMovement:
    return LipMovement(slope=slope, spread=1.0, shut=shut, closed=closed)


@pytest.mark.parametrize(
    ("steps", "lips", "expected"),
    [
        (7_000, moved(0.89), 10_500),
        (10_500, moved(0.89), 14_000),  # no more than the longest
        (14_000, moved(0.1), None),
        (20_000, moved(0.1), None),
        (7_000, moved(0.9), None),
        (7_000, moved(1.3, 3, 4), None),
        (7_000, moved(1.0, 2, 4), 10_500),
        (7_000, None, None),  # what cannot be measured is no reason to go on
    ],
)
def test_a_run_is_extended_while_its_lips_lag_behind(
    steps: int, lips: LipMovement | None, expected: int | None
) -> None:
    assert longer(steps, lips, CONFIG) == expected


def test_without_a_longest_a_run_is_as_long_as_it_was_asked_to_be() -> None:
    assert longer(7_000, moved(0.0), LengthConfig()) is None


def test_the_reason_is_said_in_one_line() -> None:
    assert why_longer(10_500, moved(0.62, 3, 18)) == (
        "in training frames the lips open 0.62 times as far as the recorded ones, and stay closed in 3 of 18 frames "
        "with closed lips: the run is extended to 10,500 steps"
    )
    assert "closed" not in why_longer(10_500, moved(0.62))
