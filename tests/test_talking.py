from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.landmarks.blendshapes import BLENDSHAPES, EYELID_NAMES
from degstalk_ns.landmarks.ibug68 import JAW_LINE
from degstalk_ns.landmarks.mesh478 import CHIN, FOREHEAD_TOP, LEFT_EYE_CORNERS, NUM_POINTS, RIGHT_EYE_CORNERS, TO_68
from degstalk_ns.metrics import talking
from degstalk_ns.metrics.talking import (
    SETTLING_FRAMES,
    TalkingReport,
    blinks,
    frame_loudness,
    jaw_band,
    measure_frames,
    measure_talking,
    opening_in_silence,
    silent_frames,
    talking_source,
)

FRAMES, SIDE, EYES = 100, 64, 20.0
PER_FRAME = SAMPLE_RATE // 25


@dataclass(frozen=True)
class _Face:
    points: np.ndarray
    blendshapes: np.ndarray


def _face(gap: float, closure: float) -> _Face:
    """Eyes 20 pixels apart, lips ``gap`` pixels apart, jaw a half circle around the middle of the picture."""
    points = np.zeros((NUM_POINTS, 3))
    marks = np.array(TO_68)
    angles = np.linspace(np.pi, 0, 17)
    points[marks[:17], 0] = SIDE / 2 + 20 * np.cos(angles)
    points[marks[:17], 1] = SIDE / 2 + 20 * np.sin(angles)
    points[marks[65:68], 1] = gap
    points[list(LEFT_EYE_CORNERS), 0] = EYES
    points[list(RIGHT_EYE_CORNERS), 0] = 0.0
    points[FOREHEAD_TOP, :2], points[CHIN, :2] = (SIDE / 2, 2), (SIDE / 2, 52)
    shapes = np.zeros(len(BLENDSHAPES))
    shapes[[BLENDSHAPES.index(name) for name in EYELID_NAMES]] = closure
    return _Face(points, shapes)


def _sound() -> np.ndarray:
    """Loud in frames 20 to 59, louder and softer in turns of five frames; else silence."""
    levels = np.zeros(FRAMES)
    levels[20:60] = np.where(np.arange(40) // 5 % 2, 0.4, 0.8)
    tone = np.sin(2 * np.pi * 400 / SAMPLE_RATE * np.arange(FRAMES * PER_FRAME))
    return (tone * levels.repeat(PER_FRAME)).astype(np.float32)


def _measured(gaps: np.ndarray, closure: np.ndarray | None = None, shake: int = 0, missing: int = 0) -> TalkingReport:
    """``shake``: grey levels by which the neck changes from frame to frame. ``missing``: frames without a face."""
    closure = np.zeros(FRAMES) if closure is None else closure
    images = [np.full((SIDE, SIDE, 3), 100 + shake * (number % 2), np.uint8) for number in range(FRAMES)]
    faces = iter([None] * missing + [_face(g, c) for g, c in zip(gaps, closure, strict=True)][missing:])
    return measure_frames(lambda: iter(images), _sound(), lambda image: next(faces), "a.mp4")


def test_lips_that_follow_and_rest() -> None:
    loudness = frame_loudness(_sound(), FRAMES)
    found = _measured(2 + 10 * loudness)
    assert found.lips_follow_sound == pytest.approx(1.0)
    assert found.opening_in_silence == pytest.approx(0.0, abs=1e-6)
    assert found.silent_frames == 60 - 2 * SETTLING_FRAMES
    assert found.jaw_jitter == 0 and found.blinks_per_minute == 0
    assert (found.frames, found.found) == (FRAMES, FRAMES)


def test_lips_that_do_the_contrary() -> None:
    loudness = frame_loudness(_sound(), FRAMES)
    found = _measured(12 - 10 * loudness)
    assert found.lips_follow_sound == pytest.approx(-1.0)
    assert found.opening_in_silence == pytest.approx(1.0, abs=1e-6)


def test_lips_that_never_move_cannot_be_told() -> None:
    found = _measured(np.full(FRAMES, 3.0))
    assert found.lips_follow_sound is None and found.opening_in_silence is None


def test_jitter_is_in_grey_levels() -> None:
    # From frame to frame by 3 up and down: second differences of 6.
    assert _measured(np.ones(FRAMES), shake=3).jaw_jitter == pytest.approx(6.0)


def test_long_videos_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degstalk_ns.metrics.talking._CHUNK", 7)
    assert _measured(np.ones(FRAMES), shake=3).jaw_jitter == pytest.approx(6.0)


def test_blinks_are_counted_once_each() -> None:
    closure = np.zeros(FRAMES)
    closure[[10, 11, 12, 50, 52]] = 0.7
    closure[51] = 0.4  # flutters, but does not open in between
    closure[80] = 0.4  # never shuts
    closure[90] = np.nan
    assert blinks(closure) == 2
    assert _measured(np.ones(FRAMES), np.nan_to_num(closure)).blinks_per_minute == pytest.approx(2 * 60 / 4)


def test_some_frames_may_lack_a_face_but_not_most() -> None:
    assert _measured(np.ones(FRAMES), missing=40).found == 60
    with pytest.raises(UserError, match=r"a\.mp4: a face was found in 40 of 100 frames"):
        _measured(np.ones(FRAMES), missing=60)


def test_a_sound_that_ends_early_is_followed_by_silence() -> None:
    loudness = frame_loudness(np.ones(3 * PER_FRAME, np.float32), 5)
    assert loudness.tolist() == [1, 1, 1, 0, 0]
    assert silent_frames(np.zeros(10)).all()
    assert opening_in_silence(np.arange(10.0), np.zeros(10, bool)) is None


def test_the_band_lies_along_the_jaw() -> None:
    jaw = _face(1.0, 0.0).points[np.array(TO_68)][JAW_LINE, :2]
    band = jaw_band(jaw, 50.0, (SIDE, SIDE))
    assert band[53, 32] and band[58, 32] and not band[45, 32] and not band[10].any()
    assert 100 < band.sum() < 1000


def test_a_recording_is_looked_at_up_to_its_first_gap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "aud.wav").touch()
    rows = np.array([2, 3, 4, 8, 9])
    recording = SimpleNamespace(
        layout=SimpleNamespace(audio=tmp_path / "aud.wav"), train=SimpleNamespace(aud_ids=rows, img_ids=rows + 100)
    )
    monkeypatch.setattr(talking, "read_recording", lambda folder: recording)
    sound = SimpleNamespace(samples=np.arange(16000, dtype=np.float32))
    monkeypatch.setattr(talking, "load_sound", lambda path, limits: sound)
    monkeypatch.setattr(
        talking, "read_frame", lambda recording, image, what: SimpleNamespace(image=np.full((1, 1, 3), image))
    )
    source = talking_source(tmp_path)
    assert source.count == 3 and source.sound[0] == 2 * 640
    assert [int(frame[0, 0, 0]) for frame in source.frames()] == [102, 103, 104]
    assert talking_source(tmp_path, 2).count == 2


def test_a_real_head_is_measured(shared: Path) -> None:
    clip = shared / "data" / "clip_b.mp4"
    if not clip.is_file():
        pytest.skip(f"no {clip}")
    report = measure_talking(clip, frames=30)
    assert report.frames == report.found == 30
    assert report.lips_follow_sound is not None and report.jaw_jitter is not None and 0 < report.jaw_jitter < 60
