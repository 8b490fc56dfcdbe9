"""The sound of a dataset: features, offset, `--only audio`, with the stand-ins of `test_process.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_process import CONFIG, FRAMES, changed, copy, made, stand_ins, times_of, video

from degstalk_ns.audio.features import FEATURES
from degstalk_ns.audio.sound import shifted
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess import pipeline, products, record, video_products
from degstalk_ns.preprocess.pipeline import process

__all__ = ["copy", "made", "stand_ins", "video"]  # fixtures


def test_without_a_whisper_model_one_line_says_what_is_lost(
    copy: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "whisper_availability", lambda: "no model here")
    summary = process(video, copy, replace(CONFIG, audio="auto"))
    assert sum("without a Whisper model" in line and "no model here" in line for line in summary.warnings) == 1
    assert not summary.stages and not Layout(copy).audio_features("whisper-base").exists()
    with pytest.raises(UserError, match="no model here"):
        process(video, copy, replace(CONFIG, audio="whisper"))


def test_sound_alone_is_added_to_a_dataset(
    copy: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = replace(CONFIG, only="audio", audio="whisper")
    with pytest.raises(UserError, match="--only audio adds to a whole dataset"):
        process(video, tmp_path / "none", only)
    assert not (tmp_path / "none").exists()

    def in_step(samples: np.ndarray, opening: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, str]:
        assert len(opening) == len(width) == FRAMES and (width > 0).all()
        return shifted(samples, -0.1), "100 ms late against the lips"

    def vectors(samples: np.ndarray) -> np.ndarray:
        return np.full((2 * FRAMES, 512), samples[0], np.float32)

    monkeypatch.setattr(pipeline, "whisper_availability", lambda: None)
    monkeypatch.setattr(video_products, "in_step", in_step)
    monkeypatch.setitem(products.FEATURES, "whisper-base", replace(FEATURES["whisper-base"], compute=vectors))
    before, whole = times_of(copy), soundfile.read(Layout(copy).audio)[0]
    summary = process(video, copy, only)
    assert set(summary.stages) == {"audio", "audio features", "transforms"}
    assert changed(copy, before) == {
        "aud.wav", "aud_mel.npy", "aud_whisper-base.npy", "transforms_train.json", "transforms_val.json",
        record.RECORD_NAME,
    }  # fmt: skip
    moved = soundfile.read(Layout(copy).audio)[0]
    assert np.array_equal(moved[:-1600], whole[1600:]) and not moved[-1600:].any()
    assert any("was 100 ms late against the lips and was moved" in line for line in summary.warnings)
    assert np.load(Layout(copy).audio_features("whisper-base")).dtype == np.float16
    # As it is with --sync off, and again nothing to do afterwards.
    process(video, copy, replace(only, sync="off"))
    assert np.array_equal(soundfile.read(Layout(copy).audio)[0], whole)
    assert not process(video, copy, replace(CONFIG, sync="off", audio="whisper")).stages
    # Without its model nothing that was made with it is lost.
    process(video, copy, replace(CONFIG, audio="auto"))
    monkeypatch.setattr(pipeline, "whisper_availability", lambda: "no model here")
    assert not process(video, copy, replace(CONFIG, audio="auto")).stages
    # And no sound is put beside pictures that are not whole.
    state = record.Record.load(copy)
    assert state is not None
    state.stages["plates"]["complete"] = False
    state.save()
    with pytest.raises(UserError, match="adds to a whole dataset"):
        process(video, copy, only)


def test_features_that_cannot_be_had_are_refused_before_anything_is_done(copy: Path, video: Path) -> None:
    before = times_of(copy)
    for name in ("whisper-tiny", "nonsense"):
        with pytest.raises(UserError, match=f"--features {name}"):
            process(video, copy, replace(CONFIG, features=(name,)))
    assert not changed(copy, before)
