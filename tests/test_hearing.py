"""What a mouth hears: with a look-ahead, later sound changes nothing before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from degstalk_ns.animation import hearing
from degstalk_ns.animation.hearing import frames_heard
from degstalk_ns.animation.mouth_model import MouthModel
from degstalk_ns.audio.whisper import WhisperConfig, whisper_availability

Vectors = Callable[..., np.ndarray]
RATE = 16_000
SECONDS = 3.0
AHEADS = (0.04, 0.06, 0.08, 0.12, 0.16, 0.2, 0.24, 0.4, 0.6)


def _sound(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=round(SECONDS * RATE)).astype(np.float32) * 0.1


def _recalling(samples: np.ndarray, config: WhisperConfig | None = None) -> np.ndarray:
    """Vectors that hear everything up to their limit: the mean of all samples until then."""
    limit = (config or WhisperConfig()).look_ahead_seconds
    ends = np.arange(-(-len(samples) // 320)) * 320 + (len(samples) if limit is None else round(limit * RATE))
    total = np.cumsum(samples)
    return np.repeat(total[np.clip(ends, 1, len(samples)) - 1][:, None], 512, 1).astype(np.float32)


def _first_change(ears: str, ahead: float | None) -> float:
    """Seconds before a change of the sound at which what the mouth does begins to change."""
    at = 1.6125  # between two frames, and between two vectors
    one = _sound()
    other = one.copy()
    other[round(at * RATE) :] += _sound(1)[round(at * RATE) :]
    windows = np.zeros((round(SECONDS * 25), 8, 32), np.float32)
    fitted = frames_heard(one, windows, ears, ahead)  # type: ignore[arg-type]
    random = np.random.default_rng(3)
    model = MouthModel.fit(fitted, random.random(len(fitted)), random.random((len(fitted), 4)))
    model.weights[:] = random.normal(size=model.weights.shape) * 1e-3
    done = [
        model.values(frames_heard(sound, windows, ears, ahead), np.zeros(len(fitted)))[0]  # type: ignore[arg-type]
        for sound in (one, other)
    ]
    changed = np.flatnonzero(np.abs(done[0] - done[1]).max(1) > 1e-9)
    assert len(changed)
    return at - changed[0] / 25


@pytest.mark.parametrize("ahead", AHEADS)
def test_later_sound_than_the_look_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr(hearing, "whisper_vectors", _recalling)
    for ears in ("whisper", "mel"):
        found = _first_change(ears, ahead)
        assert found <= ahead + 1e-6
        # and little of it is given away: a frame, and half a window of the log-mel bands
        assert found >= min(ahead, 0.24) - 0.1
    assert _first_change("whisper", None) > 1.0


@pytest.mark.skipif(whisper_availability() is not None, reason="needs Whisper's base model")
@pytest.mark.parametrize("ahead", [0.24])
def test_later_sound_than_the_look_ahead_changes_nothing_that_whisper_hears(ahead: float) -> None:
    assert _first_change("whisper", ahead) <= ahead + 1e-6
    assert _first_change("whisper", None) > ahead
