from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from degstalk_ns.speech.lip_sync import LipSyncConfig, lip_sync, recorded_lip_sync
from degstalk_ns.speech.phonemes import LIP_TARGETS

LEAD = LipSyncConfig().lead_seconds


def _series(count: int, seed: int, late: float, rate: float, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What is seen, and the same with noise as the sound tells it, ``late`` seconds later."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter1d(rng.normal(size=10 * count + 400), 25)
    fine /= fine.std()
    at = 200 + 10 * np.arange(count)
    told = np.interp(at - 10 * late * rate, np.arange(len(fine)), fine)
    return fine[at], told + noise * gaussian_filter1d(rng.normal(size=count), 2) / 0.37


@pytest.mark.parametrize("late", [-0.2, -0.03, 0.0, 0.11, 0.3])
def test_the_offset_is_found_to_a_few_milliseconds(late: float) -> None:
    pairs = [_series(2000, seed, late, 50) for seed in range(2)]
    found = lip_sync(pairs, 50)
    assert found is not None and found.seconds == pytest.approx(late - LEAD, abs=0.012)
    assert found.noticeable == (abs(found.seconds) > 0.045)
    assert ("late" if found.seconds > 0 else "early") in str(found)


def test_a_recording_that_does_not_tell_is_left_alone() -> None:
    seen, _ = _series(2000, 0, 0.1, 50)
    _, other = _series(2000, 1, 0.1, 50)
    assert lip_sync([(seen, other)], 50) is None  # another sound
    assert lip_sync([(np.zeros(2000), other)], 50) is None  # lips that never move
    assert lip_sync([_series(100, 0, 0.1, 50)], 50) is None  # too short
    assert lip_sync([_series(2000, 0, 0.9, 50)], 50) is None  # further than any video is


def test_a_slow_mood_is_no_speech() -> None:
    mood = 20 * np.sin(np.arange(2000) / 300)
    pairs = [(seen + mood, told + np.roll(mood, 8)) for seen, told in [_series(2000, 0, 0.1, 50, noise=0.5)]]
    found = lip_sync(pairs, 50)
    assert found is not None and found.seconds == pytest.approx(0.1 - LEAD, abs=0.02)


def test_of_a_recording() -> None:
    opening, told = _series(1000, 0, 0.12, 25, noise=0.3)
    fine = np.interp(np.arange(2000) / 2, np.arange(1000), told)
    lips = np.zeros((2000, len(LIP_TARGETS)))
    lips[:, 0], lips[:, 1] = fine, -fine
    lips[:, 2] = np.random.default_rng(0).normal(size=2000)
    found = recorded_lip_sync(opening, np.random.default_rng(1).normal(size=1000), lips, 25)
    assert found is not None and found.seconds == pytest.approx(0.12 - LEAD, abs=0.015)
