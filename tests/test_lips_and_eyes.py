from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_faces import mesh_face, relative_gap

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.ibug68 import eye_opening, lip_gap
from degstalk_ns.landmarks.mesh478 import to_68
from degstalk_ns.metrics.lips_and_eyes import (
    CLOSED_LIPS,
    FaceLandmarks,
    eye_closing,
    lip_landmark_distance,
    lip_movement,
    lmd_availability,
    wide_opening,
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


def test_lips_that_move_half_as_far_have_half_the_slope() -> None:
    true = [0.0, 0.02, 0.1, 0.2, 0.3, 0.01]
    half = [value / 2 + 0.01 for value in true]
    for rendered, share, shut in ((true, 1.0, 3), (half, 0.5, 3), ([0.1] * 6, 0.0, 0)):
        found = lip_movement(rendered, true, 0.3)
        assert found is not None and (found.shut, found.closed) == (shut, 3)
        assert (found.slope, found.spread) == (pytest.approx(share), pytest.approx(share))


def test_lips_that_shake_have_more_spread_but_no_more_slope() -> None:
    found = lip_movement([0.1, -0.1, 1.1, 0.9], [0.0, 0.0, 1.0, 1.0], 1.0)
    assert found is not None and found.slope == pytest.approx(1.0)
    assert found.spread == pytest.approx(np.sqrt(0.25 + 0.01) / 0.5)


def test_lips_are_shut_where_they_are_less_open_than_a_share_of_wide() -> None:
    just = CLOSED_LIPS * 0.4
    true = [0.0, 0.0, 0.0, just - 1e-6, just + 1e-6, 0.4]
    rendered = [just - 1e-6, just + 1e-6, 0.2, 0.0, 0.0, 0.0]
    found = lip_movement(rendered, true, 0.4)
    assert found is not None and (found.shut, found.closed) == (2, 4)


def test_lips_that_cannot_be_compared() -> None:
    assert lip_movement([0.1, 0.2], [0.1, 0.2], 0.3) is None
    assert lip_movement([0.1, 0.2, 0.3], [0.2, 0.2, 0.2], 0.3) is None
    assert lip_movement([], [], 0.3) is None
    with pytest.raises(ValueError, match="equally long"):
        lip_movement([0.1], [0.1, 0.2, 0.3], 0.3)


def test_wide_open_is_what_one_frame_in_twenty_exceeds() -> None:
    assert wide_opening([float(value) for value in range(101)]) == pytest.approx(95.0)
    assert wide_opening([]) is None


def test_a_face_is_compared_by_its_lips_and_eyes() -> None:
    meshes = {255: mesh_face(lips=6.0, eyes=5.0), 0: mesh_face(lips=8.0, eyes=2.0)[:, :2]}
    with FaceLandmarks(lambda image: meshes[int(image[0, 0, 0])]) as compare:
        found = compare(torch.ones(8, 8, 3), torch.zeros(8, 8, 3))
    assert found is not None
    rendered, true = (to_68(meshes[level]) for level in (255, 0))
    assert found.distance == pytest.approx(lip_landmark_distance(rendered, true)) and found.distance > 0
    assert (found.opening, found.true_opening) == (lip_gap(rendered), lip_gap(true))
    assert found.relative == pytest.approx(relative_gap(6.0)) and found.true_relative == pytest.approx(
        relative_gap(8.0)
    )
    assert found.eyes / found.true_eyes == pytest.approx(5.0 / 2.0, rel=1e-5)
    assert found.eyes == eye_opening(rendered)


def test_without_a_face_nothing_is_compared() -> None:
    seen: list[np.ndarray] = []

    def detector(image: np.ndarray) -> np.ndarray | None:
        seen.append(image)
        return mesh_face() if image.any() else None

    with FaceLandmarks(detector) as lmd:
        same = lmd(torch.ones(8, 8, 3), np.full((8, 8, 3), 255, np.uint8))
        assert same is not None and same.distance == 0 and same.relative == same.true_relative
        assert lmd(torch.ones(8, 8, 3), torch.zeros(8, 8, 3)) is None
        assert lmd(torch.zeros(8, 8, 3), torch.ones(8, 8, 3)) is None
    assert all(image.dtype == np.uint8 and image.shape == (8, 8, 3) for image in seen)
    assert (seen[0] == 255).all()


def test_a_true_frame_that_is_compared_again_is_searched_once() -> None:
    seen: list[int] = []

    def detector(image: np.ndarray) -> np.ndarray:
        seen.append(int(image[0, 0, 0]))
        return mesh_face(lips=float(image[0, 0, 0]))

    true, other = (np.full((8, 8, 3), level, np.uint8) for level in (8, 4))
    with FaceLandmarks(detector) as lmd:
        found = [lmd(np.full((8, 8, 3), level, np.uint8), true) for level in (6, 7)]
        again = lmd(np.full((8, 8, 3), 6, np.uint8), other)
    assert seen == [8, 6, 7, 4, 6]
    assert [one.true_relative == relative_gap(8.0) for one in found if one is not None] == [True, True]
    assert again is not None and again.true_relative == pytest.approx(relative_gap(4.0))


def test_lmd_without_model_file_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from degstalk_ns import model_files

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
        assert 0.1 < different.eyes < 0.6 and 0 <= different.relative < 0.5
        assert same.relative == pytest.approx(same.true_relative, abs=1e-6)
        assert lmd(frames[0], np.zeros_like(frames[0])) is None
        lmd.close()
        assert lmd(frames[1], frames[1]) is not None
