"""When a run is long enough."""

from __future__ import annotations

import pytest

from degstalk_ns.metrics.lips_and_eyes import LipMovement
from degstalk_ns.training.convergence import LengthConfig, longer, longest, why_longer

ASKED = 7_000
CONFIG = LengthConfig(most=2.0, factor=1.5, slope=0.9, shut=0.75)  # not the defaults


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
    ],
)
def test_a_run_is_extended_while_its_lips_lag_behind(steps: int, lips: LipMovement, expected: int | None) -> None:
    assert longer(steps, ASKED, lips, CONFIG) == expected


@pytest.mark.parametrize("most", [0.5, 1.0])
def test_a_run_is_never_shorter_than_asked_for_and_by_default_no_longer(most: float) -> None:
    assert longest(ASKED, LengthConfig(most=most)) == ASKED == longest(ASKED, LengthConfig())
    assert longer(ASKED, ASKED, moved(0.0), LengthConfig(most=most)) is None


def test_a_short_trial_stays_short() -> None:
    assert longer(300, 300, moved(0.0), CONFIG) == 450 and longest(300, CONFIG) == 600


def test_the_reason_is_said_in_one_line() -> None:
    assert why_longer(10_500, moved(0.62, 3, 18)) == (
        "in training frames the lips open 0.62 times as far as the recorded ones, and stay closed in 3 of 18 frames "
        "with closed lips: the run is extended to 10,500 steps"
    )
    assert "closed" not in why_longer(10_500, moved(0.62))
