from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.audio.mel import MelConfig, frame_count, log_mel, mel_windows

RATE = 16_000
CONFIG = MelConfig()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * RATE))).clip(-1, 1).astype(np.float32)


def test_silence_is_one_constant_whatever_its_length() -> None:
    for length in (0, 1, 640, 16_000):
        np.testing.assert_array_equal(log_mel(np.zeros(length, np.float32)), np.float32(CONFIG.silence))
    windows = mel_windows(np.zeros(16_000, np.float32))
    assert windows.shape == (25, 16, CONFIG.channels)
    np.testing.assert_array_equal(windows, np.float32(CONFIG.silence))


def test_fifty_vectors_a_second() -> None:
    assert log_mel(noise(2)).shape == (101, CONFIG.channels)
    assert log_mel(noise(2), MelConfig(channels=29)).shape == (101, 29)


def test_a_tone_lights_its_band() -> None:
    def loudest(hertz: float) -> int:
        wave = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
        return int(log_mel(wave)[20:30].mean(0).argmax())

    bands = [loudest(hertz) for hertz in (150, 400, 1000, 2500, 6000)]
    assert bands == sorted(bands) and len(set(bands)) == 5


def test_twenty_decibels_are_a_fixed_step() -> None:
    wave = noise(1)
    step = (log_mel(wave) - log_mel(wave * 0.1))[5:-5]
    np.testing.assert_allclose(step, 20 / CONFIG.scale_db, atol=0.02)


def test_windows_are_centred_on_their_frame() -> None:
    # One click at the time of frame 20.
    wave = np.zeros(2 * RATE, np.float32)
    wave[20 * 640] = 1.0
    windows = mel_windows(wave)
    energy = (windows - CONFIG.silence).sum(-1)
    centre = (energy[20] * np.arange(16)).sum() / energy[20].sum()
    assert centre == pytest.approx(7.5, abs=0.6)
    # It comes 2 vectors earlier in the window of the next frame, and is gone 5 frames away.
    np.testing.assert_array_equal(windows[21, :-2], windows[20, 2:])
    assert not energy[26:].any() and not energy[:14].any()


def test_video_longer_or_shorter_than_the_sound() -> None:
    wave = noise(1)
    assert frame_count(len(wave)) == 25
    longer = mel_windows(wave, 40)
    assert longer.shape[0] == 40
    np.testing.assert_array_equal(longer[35:], np.float32(CONFIG.silence))
    np.testing.assert_array_equal(mel_windows(wave, 10), mel_windows(wave)[:10])
    # Before the start there is silence.
    np.testing.assert_array_equal(longer[0, :6], np.float32(CONFIG.silence))


def test_stereo_is_refused() -> None:
    with pytest.raises(ValueError, match="mono"):
        log_mel(np.zeros((100, 2), np.float32))
