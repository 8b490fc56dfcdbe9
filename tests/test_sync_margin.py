from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from degstalk_ns.metrics.speech.sync_margin import LipsWithSound, own_margin


def _talk(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose colour and level follow two lip movements at random, and these [T, 2]."""
    rng = np.random.default_rng(seed)
    lips = gaussian_filter1d(rng.normal(size=(count, 2)), 2, axis=0)
    lips /= lips.std(0)
    at = np.arange(count * 640) / 640
    level, colour = (np.interp(at, np.arange(count), column) for column in lips.T)
    low = gaussian_filter1d(rng.normal(size=len(at)), 6)
    high = rng.normal(size=len(at)) - gaussian_filter1d(rng.normal(size=len(at)), 3)
    share = 1 / (1 + np.exp(-1.5 * colour))
    sound = 0.02 * np.exp(0.6 * level) * (share * low / low.std() + (1 - share) * high / high.std())
    return sound.astype(np.float32), lips


def test_lips_that_follow_have_a_margin_and_others_have_none() -> None:
    learned = LipsWithSound.fit(*_talk(500, 0))
    assert learned is not None and learned.strengths[0] > 0.5
    sound, lips = _talk(300, 1)
    own = learned.margin(sound, lips)
    assert own is not None and own > 0.4
    for other in (np.roll(lips, 80, axis=0), _talk(300, 2)[1]):  # lips of another moment; lips that flap
        blind = learned.margin(sound, other)
        assert blind is not None and abs(blind) < 0.15
    late = learned.likeness(np.roll(sound, 640 * 3), lips, 3)
    assert late == pytest.approx(learned.likeness(sound, lips), abs=0.1)


def test_moments_without_a_face_are_filled_in_and_short_recordings_teach_nothing() -> None:
    sound, lips = _talk(500, 0)
    gaps = lips.copy()
    gaps[100:110] = np.nan
    learned = LipsWithSound.fit(sound, gaps)
    assert learned is not None and np.isfinite(learned.strengths).all()
    assert LipsWithSound.fit(sound[: 640 * 100], lips[:100]) is None
    assert LipsWithSound.fit(sound, np.zeros((500, 2))) is None
    assert learned.margin(sound[: 640 * 20], lips[:20]) is None


def test_a_recording_by_itself() -> None:
    sound, lips = _talk(600, 0)
    own = own_margin(sound, lips)
    assert own is not None and own > 0.3
    assert own_margin(sound[: 640 * 200], lips[:200]) is None
