"""Levels are decibels, speech is as loud as its loud frames, and silence is what silence gives."""

from __future__ import annotations

import numpy as np

from degstalk_ns.audio.features import silent_windows
from degstalk_ns.audio.loudness import frame_levels, speech_level
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.frame_rate import SAMPLE_RATE


def test_levels_are_decibels_and_speech_is_its_loud_frames() -> None:
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    tone[16_000:] = 0
    loud, soft = (frame_levels(mel_windows(gain * tone)) for gain in (1.0, 0.1))
    assert np.allclose((loud - soft)[3:20], 20, atol=0.1)
    assert loud[40] < loud[10] - 50
    assert abs(speech_level(loud) - loud[10]) < 1


def test_silent_windows_are_those_of_a_sound_without_any() -> None:
    windows = mel_windows(np.zeros(SAMPLE_RATE, np.float32))
    silent = silent_windows("mel", windows.shape)
    assert silent is not None
    np.testing.assert_array_equal(silent, windows)
    assert silent_windows("hu", (25, 2, 1024)) is None
