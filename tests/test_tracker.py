"""The largest face of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks import tracker
from degstalk_ns.landmarks.tracker import FaceTracker, _choose


def test_of_two_similar_faces_the_one_followed_before_is_kept() -> None:
    grid = np.random.default_rng(0).uniform(0, 1, (lm.NUM_POINTS, 3))
    left, right = grid * 100, grid * 110 + [300, 0, 0]
    assert _choose([left, right], None) == (1, [0])
    assert _choose([left, right], np.array([50.0, 50.0])) == (0, [1])
    assert _choose([left, left + 5.0], None)[1] == [], "one face found twice is one face"
    small = grid * 20
    assert _choose([right, small], np.array([10.0, 10.0]))[0] == 0, "a small face is never the one to follow"


def test_observing_needs_the_with_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker.model_files, "face_landmarker", lambda: Path("none"))
    with pytest.raises(RuntimeError):
        FaceTracker().observe(np.zeros((8, 8, 3), np.uint8))


def test_a_real_face_is_seen_where_it_is_and_an_empty_frame_has_none(shared: Path) -> None:
    from degstalk_ns.preprocess.steps import decode

    clip = shared / "data" / "clip_a.mp4"
    if not clip.is_file():
        pytest.skip(f"no {clip}")
    _, frame = next(decode.frames(decode.probe(clip)))
    height, width = frame.shape[:2]
    with FaceTracker() as found:
        seen = found.observe(frame)
        assert found.observe(np.zeros_like(frame)) is None
    assert seen is not None and seen.points.shape == (lm.NUM_POINTS, 3) and seen.blendshapes.shape == (52,)
    assert (seen.points[:, :2].min(0) > 0).all() and (seen.points[:, :2].max(0) < (width, height)).all()
    assert 0 <= seen.blendshapes.min() and seen.blendshapes.max() <= 1 and seen.second_face_size_ratio == 0
