"""Masks, expressions and sound of another video are refused or pointed out."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from dataset_edits import refuses
from synthetic import make_dataset

from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.plausibility import LEAST_FRAMES_HEARD, doubts, foretold
from degstalk_ns.dataparsers.recording import read_recording

RNG = np.random.default_rng(0)


def _smooth(frames: int, columns: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(frames + 8, columns))
    return np.stack([np.convolve(column, np.ones(9) / 3, "valid") for column in noise.T], 1).astype(np.float32)


def test_what_belongs_together_is_told_from_what_does_not() -> None:
    frames = LEAST_FRAMES_HEARD
    opening = _smooth(frames, 1, 1)[:, 0]
    own = np.concatenate([_smooth(frames, 20, 2), opening[:, None] + 0.5 * _smooth(frames, 1, 3)], 1)
    other = _smooth(frames, 21, 4)
    assert foretold(opening, own) > 0.7 > 0.35 > foretold(opening, other)
    windows = np.repeat(own[:, None], 16, 1)
    assert doubts(opening, own, windows) == []
    (line,) = doubts(opening, other, windows)
    assert "the expression tells little of the lips" in line
    (line,) = doubts(opening, own, np.repeat(other[:, None], 16, 1))
    assert "the sound tells little of the lips" in line
    assert doubts(opening[:100], other[:100], windows[:100]) == []  # too short to tell
    assert doubts(np.zeros(frames, np.float32), other, windows) == []  # lips that never move


def test_expressions_of_another_video_are_pointed_out(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "a", frames=240)
    assert not any("of this video" in note for note in read_recording(root).notes)
    other = make_dataset(tmp_path / "b", frames=240, seed=9)
    shutil.copy(Layout(other).face_model_npz, Layout(root).face_model_npz)
    assert any("the expression tells little" in note for note in read_recording(root).notes)


def test_masks_of_another_video_are_refused(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    for path in layout.parsing(0).parent.iterdir():
        picture = cv2.imread(str(path))
        cv2.imwrite(str(path), np.roll(picture, 28, 1))  # the head is elsewhere
    refuses(dataset_copy, "parsing", "are they of another video?")


def test_frames_in_both_splits_or_twice_in_one_are_refused(dataset_copy: Path) -> None:
    layout = Layout(dataset_copy)
    train, val = (json.loads(layout.transforms(split).read_text()) for split in ("train", "val"))
    layout.transforms("val").write_text(json.dumps(val | {"frames": [*val["frames"], train["frames"][3]]}))
    refuses(dataset_copy, "transforms_val.json: frame 3 is a training frame too")
    layout.transforms("val").write_text(json.dumps(val))
    layout.transforms("train").write_text(json.dumps(train | {"frames": [*train["frames"], *train["frames"][5:7]]}))
    refuses(dataset_copy, "transforms_train.json: frame 5 (and 1 more) is listed twice")


@pytest.mark.parametrize("side", [60_000, 65_535])
def test_pictures_that_promise_too_many_pixels_are_refused_before_they_are_decoded(
    dataset_copy: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(dataset_copy)
    png, jpeg = bytearray(layout.parsing(0).read_bytes()), bytearray(layout.frame(0).read_bytes())
    png[16:24] = struct.pack(">II", side, side)
    layout.parsing(0).write_bytes(bytes(png))
    refuses(dataset_copy, f"0.png: is {side} x {side} pixels, expected 64 x 64")
    place = next(i for i in range(2, len(jpeg)) if jpeg[i] == 0xFF and jpeg[i + 1] in (0xC0, 0xC2))
    jpeg[place + 5 : place + 9] = struct.pack(">HH", side, side)
    layout.frame(0).write_bytes(bytes(jpeg))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    refuses(dataset_copy, f"0.jpg: {side} x {side} pixels are too many")


@pytest.mark.parametrize(("seconds", "said"), [(0.0, False), (0.9, False), (1.2, True), (-0.4, False), (30.0, True)])
def test_a_sound_that_is_longer_or_shorter_than_the_frames_is_pointed_out(
    tmp_path: Path, seconds: float, said: bool
) -> None:
    root = make_dataset(tmp_path / "me", frames=12)
    samples = round((12 / 25 + seconds) * 16_000)
    soundfile.write(root / "aud.wav", np.full(samples, 0.1), 16_000)
    found = [note for note in read_recording(root).notes if note.startswith("aud.wav lasts")]
    assert len(found) == said
    (root / "aud.wav").write_bytes(b"no sound")
    assert not [note for note in read_recording(root).notes if "aud.wav" in note]
