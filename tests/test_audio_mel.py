from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from degstalk_ns.audio.features import read_waveform, read_windows
from degstalk_ns.audio.mel import MelConfig, frame_count, log_mel, mel_windows
from degstalk_ns.errors import UserError

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


def test_sound_file_of_another_rate_and_stereo(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    time = np.arange(44_100 * 2) / 44_100
    left = 0.4 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(path, np.stack([left, left], 1), 44_100)
    windows = mel_windows(read_waveform(path))
    assert windows.shape == (50, 16, CONFIG.channels)
    reference = mel_windows((0.4 * np.sin(2 * np.pi * 500 * np.arange(RATE * 2) / RATE)).astype(np.float32))
    strong = reference[10:40] > 0
    np.testing.assert_allclose(windows[10:40][strong], reference[10:40][strong], atol=0.05)


def test_sound_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("no sound")
    with pytest.raises(UserError, match=r"a\.wav: not a sound file"):
        read_waveform(path)
    with pytest.raises(UserError, match="no such file"):
        read_waveform(tmp_path / "b.wav")
    soundfile.write(path, np.zeros(0), RATE)
    with pytest.raises(UserError, match="no samples"):
        read_waveform(path)


@pytest.mark.parametrize(("name", "shape"), [("mel", (30, 16, 64)), ("ds", (30, 16, 29)), ("hu", (30, 2, 1024))])
def test_window_files_are_read(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / f"aud_{name}.npy"
    values = np.random.default_rng(0).standard_normal(shape)
    np.save(path, values)
    found = read_windows(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("ds", (30, 16, 44), "16 x 44, expected 16 x 29"),
        ("mel", (30, 8, 64), "8 x 64, expected 16 x C"),
        ("mel", (30, 64), "expected numbers"),
    ],
)
def test_window_files_of_the_wrong_shape(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    path = tmp_path / f"aud_{name}.npy"
    np.save(path, np.zeros(shape, np.float32))
    with pytest.raises(UserError, match=message):
        read_windows(path)


def test_window_files_with_nan_or_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "aud_mel.npy"
    with pytest.raises(UserError, match="missing"):
        read_windows(path)
    values = np.zeros((30, 16, 64), np.float32)
    values[12, 3, 4] = np.nan
    np.save(path, values)
    with pytest.raises(UserError, match=r"NaN or infinity.*frame 12"):
        read_windows(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="not a numpy array file"):
        read_windows(path)
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="not a numpy array file"):
        read_windows(path)
