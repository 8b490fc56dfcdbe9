"""Sounds of every kind are decoded alike; what is no sound is refused in one line."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, SoundLimits, load_sound
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE


def _tone(seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


def _m4a(path: Path, samples: np.ndarray, rate: int) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "rate", "channels", "options"),
    [
        ("8bit.wav", 8_000, 1, {"subtype": "PCM_U8"}),
        ("16bit.wav", 22_050, 2, {"subtype": "PCM_16"}),
        ("24bit.wav", 48_000, 1, {"subtype": "PCM_24"}),
        ("float.wav", 44_100, 1, {"subtype": "FLOAT"}),
        ("96kHz.wav", 96_000, 1, {"subtype": "PCM_16"}),
        ("six.wav", 48_000, 6, {"subtype": "PCM_16"}),
        ("a.flac", 44_100, 2, {}),
        ("a.ogg", 44_100, 1, {}),
        ("a.mp3", 44_100, 1, {}),
        ("a.m4a", 44_100, 1, {}),
    ],
)
def test_every_kind_of_sound_becomes_the_same_samples(
    tmp_path: Path, name: str, rate: int, channels: int, options: dict[str, str]
) -> None:
    path = tmp_path / name
    samples = _tone(0.5, rate)
    if name.endswith(".m4a"):
        _m4a(path, samples, rate)
    else:
        soundfile.write(path, np.tile(samples[:, None], (1, channels)), rate, **options)
    for source in (path, path.read_bytes()):
        sound = load_sound(source)
        assert sound.samples.dtype == np.float32 and sound.samples.ndim == 1
        assert abs(sound.seconds - 0.5) < 0.08
        spectrum = np.abs(np.fft.rfft(sound.samples))
        assert abs(np.argmax(spectrum) * 16_000 / len(sound.samples) - 440) < 5
        middle = sound.samples[3000:5000]
        assert 0.4 < np.abs(middle).max() < 0.6
        assert not sound.notes


def _refused(source: Path | bytes, limits: SoundLimits | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_sound(source, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "nowhere.wav")
    empty, text = tmp_path / "empty.wav", tmp_path / "text.wav"
    empty.write_bytes(b"")
    text.write_text("this is not a sound\n" * 100)
    assert str(empty) in _refused(empty) and "is empty" in _refused(empty)
    assert str(text) in _refused(text) and "has no readable audio" in _refused(text)
    assert "has no readable audio" in _refused(text.read_bytes())
    (tmp_path / "list.wav").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'a.wav'}\n")
    soundfile.write(tmp_path / "a.wav", _tone(), 16_000)
    assert "has no readable audio" in _refused(tmp_path / "list.wav")  # a playlist must not open other files


def test_a_picture_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "silent_film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert "holds no audio" in _refused(path)


def test_short_long_and_silent_sounds(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    assert "no samples" in _refused(path)
    soundfile.write(path, np.array([0.5]), 16_000)
    assert "expected at least one frame" in _refused(path)
    soundfile.write(path, np.zeros(16_000), 16_000)
    assert "is silent" in load_sound(path).notes[0]
    soundfile.write(path, np.zeros(3600 * 8_000, np.int16), 8_000)
    assert "longer than 30 minutes" in _refused(path) and "--sound.longest-minutes" in _refused(path)
    assert abs(load_sound(path, SoundLimits(longest_minutes=61)).seconds - 3600) < 0.1
    assert "at most 0.01 MB" in _refused(path, SoundLimits(largest_megabytes=0.01))


def test_sound_file_of_another_rate_and_stereo(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    time = np.arange(44_100 * 2) / 44_100
    left = 0.4 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(path, np.stack([left, left], 1), 44_100)
    windows = mel_windows(load_sound(path).samples)
    assert windows.shape == (50, 16, 64)
    reference = mel_windows(
        (0.4 * np.sin(2 * np.pi * 500 * np.arange(SAMPLE_RATE * 2) / SAMPLE_RATE)).astype(np.float32)
    )
    strong = reference[10:40] > 0
    np.testing.assert_allclose(windows[10:40][strong], reference[10:40][strong], atol=0.05)


def test_the_sound_of_a_dataset_is_read_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "aud.wav"
    written = np.random.default_rng(0).integers(-32768, 32768, 16_000, dtype=np.int16)
    soundfile.write(path, written, SAMPLE_RATE, subtype="PCM_16")
    np.testing.assert_array_equal(load_sound(path, UNLIMITED).samples, written / np.float32(32768))
