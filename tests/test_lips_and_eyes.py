from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.ibug68 import eye_opening, lip_gap
from degstalk_ns.metrics.lips_and_eyes import (
    FaceLandmarks,
    eye_closing,
    lip_landmark_distance,
    lmd_availability,
)


def test_lmd_ignores_where_the_mouth_is() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 512, (68, 2))
    assert lip_landmark_distance(points, points + np.array([30, -12])) == pytest.approx(0, abs=1e-9)
    moved = points.copy()
    moved[:48] += 50
    assert lip_landmark_distance(moved, points) == 0
    # Ten lip points 2 px up, ten 2 px down: the mean stays, every point is 2 px off.
    moved[48:58, 1] -= 2
    moved[58:68, 1] += 2
    assert lip_landmark_distance(moved, points) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="68"):
        lip_landmark_distance(points[48:], points[48:])


def test_eye_closing_is_the_share_of_the_recorded_drop() -> None:
    true = [0.3, 0.3, 0.05, 0.3, 0.1, 0.3]
    assert eye_closing(true, true) == (pytest.approx(1.0), 2)
    assert eye_closing([0.3] * 6, true) == (pytest.approx(0.0), 2)
    half = [value / 2 + 0.2 for value in true]
    assert eye_closing(half, true) == (pytest.approx(0.5), 2)
    # looking down is no blink
    assert eye_closing(true, [0.3, 0.3, 0.2, 0.3, 0.2, 0.3]) is None
    assert eye_closing([], []) is None
    with pytest.raises(ValueError, match="equally long"):
        eye_closing([0.3], true)


def test_lmd_without_a_face_is_none() -> None:
    points = np.random.default_rng(0).uniform(0, 64, (68, 2))
    seen: list[np.ndarray] = []

    def detector(image: np.ndarray) -> np.ndarray | None:
        seen.append(image)
        return points if image.any() else None

    with FaceLandmarks(detector) as lmd:
        same = lmd(torch.ones(8, 8, 3), np.full((8, 8, 3), 255, np.uint8))
        assert same is not None and same.distance == 0 and same.opening == same.true_opening == lip_gap(points)
        assert same.eyes == same.true_eyes == eye_opening(points)
        assert lmd(torch.ones(8, 8, 3), torch.zeros(8, 8, 3)) is None
    assert all(image.dtype == np.uint8 and image.shape == (8, 8, 3) for image in seen)
    assert (seen[0] == 255).all()


def test_lmd_without_model_file_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from degstalk_ns.landmarks import model_files

    def absent() -> Path:
        raise UserError("face_landmarker.task: not found,\nput it somewhere")

    monkeypatch.setattr(model_files, "face_landmarker", absent)
    reason = lmd_availability()
    assert reason is not None and "face_landmarker.task" in reason and "\n" not in reason


def test_lmd_on_a_real_face(shared: Path) -> None:
    import av

    clip = shared / "data" / "clip_a.mp4"
    if not clip.exists() or lmd_availability() is not None:
        pytest.skip("needs shared/data/clip_a.mp4 and the face landmarker")
    with av.open(str(clip)) as container:
        frames = [
            frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(6), strict=False)
        ]
    with FaceLandmarks() as lmd:
        same, different = lmd(frames[0], frames[0]), lmd(frames[0], frames[5])
        assert same is not None and same.distance == pytest.approx(0, abs=1e-6)
        assert different is not None and 0 < different.distance < 30 and 0 <= different.opening < 60
        assert 0.1 < different.eyes < 0.6
        assert lmd(frames[0], np.zeros_like(frames[0])) is None
        lmd.close()
        assert lmd(frames[1], frames[1]) is not None
