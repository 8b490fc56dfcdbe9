"""Sound as a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from degstalk_ns.viewer.waveform import envelope, png, waveform_picture


def test_envelope_follows_the_loudness() -> None:
    sound = np.concatenate([np.zeros(1000), 0.5 * np.ones(1000), -np.ones(1000)]).astype(np.float32)
    levels = envelope(sound, 3)
    assert np.allclose(levels, [[0, 0], [0.5, 0.5], [1, 1]])


def test_every_length_gives_every_column() -> None:
    for samples in (1, 5, 640, 1001):
        assert envelope(np.full(samples, 0.25, np.float32), 100).shape == (100, 2)
    with pytest.raises(ValueError):
        envelope(np.zeros(0, np.float32), 10)
    with pytest.raises(ValueError):
        envelope(np.zeros((4, 2), np.float32), 10)


def test_loud_columns_are_high_and_silence_is_a_line() -> None:
    sound = np.concatenate([np.zeros(500), 0.8 * np.ones(500)]).astype(np.float32)
    high = (waveform_picture(sound, 100, 40)[..., 3] > 0).sum(0)
    assert high[:50].max() <= 2 and high[50:].min() >= 39
    noise = 1e-3 * np.ones(1000, np.float32)
    assert (waveform_picture(noise, 100, 40)[..., 3] > 0).sum(0).max() <= 2, "near silence is not blown up"


def test_png_keeps_the_picture() -> None:
    picture = waveform_picture(np.sin(np.arange(999, dtype=np.float32)), 64, 32)
    read = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(cv2.cvtColor(read, cv2.COLOR_BGRA2RGBA), picture)
