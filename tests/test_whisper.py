from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns import model_files
from degstalk_ns.audio import whisper
from degstalk_ns.audio.features import FEATURES, read_windows
from degstalk_ns.audio.whisper import WhisperConfig, log_mel_bands, whisper_availability, whisper_vectors
from degstalk_ns.audio.windows import windows_of
from degstalk_ns.errors import UserError
from degstalk_ns.speech.lip_motion import lip_motion


@pytest.fixture(scope="module")
def model(shared: Path) -> Path:
    folder = shared / "models" / "whisper-base"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def _sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.1 * rng.normal(size=round(seconds * 16_000))).astype(np.float32)


def test_bands_are_those_of_whisper() -> None:
    bands = log_mel_bands(np.sin(np.arange(16_000) / 16_000 * 2 * np.pi * 440).astype(np.float32))
    assert bands.shape == (80, 100) and bands.max() - bands.min() <= 2.0 + 1e-6  # 80 dB are two units
    assert bands[:, 50].argmax() == pytest.approx(11, abs=1)  # 440 Hz
    assert np.allclose(log_mel_bands(np.zeros(1600, np.float32)), -1.5)


@pytest.mark.parametrize("samples", [1, 200, 640, 16_001])
def test_any_length_has_its_vectors(model: Path, samples: int) -> None:
    vectors = whisper_vectors(_sound(2.0)[:samples])
    assert vectors.shape == (-(-samples // 320), 512) and np.isfinite(vectors).all()
    assert lip_motion(vectors).shape == (len(vectors), 5)


def test_parts_join_without_a_seam(model: Path) -> None:
    sound = _sound(4.0)
    whole = whisper_vectors(sound)
    parts = whisper_vectors(sound, WhisperConfig(step_seconds=1.0, context_seconds=1.5))
    assert parts.shape == whole.shape
    likeness = [np.corrcoef(a, b)[0, 1] for a, b in zip(whole, parts, strict=True)]
    assert np.mean(likeness) > 0.85
    with pytest.raises(ValueError, match="takes 30 s"):
        whisper_vectors(sound, WhisperConfig(step_seconds=25.0))


def test_a_limited_look_ahead_hears_nothing_beyond_it(model: Path) -> None:
    config = WhisperConfig(look_ahead_seconds=0.2)
    sound = _sound(2.0)
    changed = sound.copy()
    changed[round(1.2 * 16_000) + 400 :] = 0.0  # beyond 1 s + 0.2 s, and the reach of one transform
    one, other = whisper_vectors(sound, config), whisper_vectors(changed, config)
    assert np.allclose(one[:50], other[:50], atol=1e-3) and not np.allclose(one[70:], other[70:], atol=0.1)
    assert not np.allclose(whisper_vectors(sound)[:50], whisper_vectors(changed)[:50], atol=1e-3)


def test_a_damaged_folder_is_one_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "whisper-base"
    folder.mkdir()
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match=r"has no model.bin and no config.json"):
        whisper_vectors(_sound(0.1))
    for file in model.iterdir():
        if file.name != "model.bin":
            shutil.copy(file, folder)
    (folder / "model.bin").write_bytes((model / "model.bin").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"whisper-base: cannot be read as a Whisper model"):
        whisper_vectors(_sound(0.1))
    assert "cannot be read" in str(whisper_availability())


def test_no_model_and_no_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(model_files.MODELS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(model_files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(model_files, "_HUB", "http://127.0.0.1:9/{size}/{revision}/{file}")
    assert "HF_HUB_OFFLINE is set" in str(whisper_availability())
    monkeypatch.setenv(model_files.OFFLINE_VARIABLE, "0")
    whisper._availability.cache_clear()
    assert "downloading it failed" in str(whisper_availability())
    with pytest.raises(UserError, match="no model 'huge'"):
        model_files.whisper_model("huge")


def test_vectors_are_stored_once_and_seen_as_windows(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 512)).astype(np.float16)
    np.save(tmp_path / "aud_whisper-base.npy", vectors)
    windows = read_windows(tmp_path / "aud_whisper-base.npy")
    assert windows.shape == (50, 16, 512) and windows.dtype == np.float32
    assert (windows[10] == vectors[13:29]).all() and (windows[0, :7] == vectors[0]).all()
    assert windows.base is not None and not windows.flags.owndata
    silent = windows_of(vectors, 60, silence=-1.0)
    assert (silent[0, :7] == -1).all() and (silent[55] == -1).all()
    assert FEATURES["mel"].silence is not None and FEATURES["whisper-base"].channels == 512


def test_threads_follow_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert whisper._threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert whisper._threads() >= 1
