"""What a recording does not show is said, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from degstalk_ns.training.coverage import what_is_missing

FRAMES = 25 * 60
"""One minute."""
OPENING: NDArray[np.float64] = np.linspace(0, 1, FRAMES)
BLINK = np.where(np.arange(FRAMES) % 100 < 5, 1.0, 0.0)


def test_of_a_minute_of_speech_with_blinks_nothing_is_missing() -> None:
    assert what_is_missing(OPENING, BLINK) == []


@pytest.mark.parametrize(("seconds", "said"), [(19, True), (20, False)])
def test_a_short_recording_is_said(seconds: int, said: bool) -> None:
    count = 25 * seconds
    lines = what_is_missing(np.linspace(0, 1, count), BLINK[:count])
    assert [f"has seen {seconds} s of video" in line for line in lines] == [True] * said


@pytest.mark.parametrize(("least", "said"), [(0.13, False), (0.16, True)])
def test_lips_that_never_close_are_said(least: float, said: bool) -> None:
    opening = np.maximum(OPENING / 0.95, least)  # a wide mouth is open by 1
    assert ["never closed" in line for line in what_is_missing(opening, BLINK)] == [True] * said
    # The same in other units.
    assert what_is_missing(300.0 * opening, BLINK) == what_is_missing(opening, BLINK)


def test_a_mouth_that_never_opens_is_said() -> None:
    (line,) = what_is_missing(np.zeros(FRAMES), BLINK)
    assert "never opens" in line


@pytest.mark.parametrize(("strength", "said"), [(0.49, True), (0.5, False)])
def test_eyes_that_never_close_are_said(strength: float, said: bool) -> None:
    assert ["no blink" in line for line in what_is_missing(OPENING, strength * BLINK)] == [True] * said


def test_each_line_is_one_line_and_all_may_be_missing() -> None:
    lines = what_is_missing(np.zeros(10), np.zeros(10))
    assert len(lines) == 3 and not any("\n" in line for line in lines)
