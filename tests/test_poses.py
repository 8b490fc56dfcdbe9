from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.preprocess.steps.poses import PoseConfig, project_points, solve_head_poses

FLIP = np.diag([1.0, -1.0, -1.0])


def make_face(seed: int = 0) -> np.ndarray:
    """[478, 3] metres: points on the front of an ellipsoid, the named ones where a face has them."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-1, 1, (lm.NUM_POINTS, 2)) * (0.068, 0.075)
    for ring, side in ((lm.RIGHT_EYE, -1), (lm.LEFT_EYE, 1)):
        angle = 2 * np.pi * np.arange(len(ring)) / len(ring)
        xy[list(ring)] = np.column_stack([side * 0.0315 + 0.015 * np.cos(angle), 0.03 + 0.005 * np.sin(angle)])
    named = {
        lm.RIGHT_EYE_CORNERS[0]: (-0.0465, 0.03),
        lm.RIGHT_EYE_CORNERS[1]: (-0.0165, 0.03),
        lm.LEFT_EYE_CORNERS[0]: (0.0465, 0.03),
        lm.LEFT_EYE_CORNERS[1]: (0.0165, 0.03),
        lm.FOREHEAD_TOP: (0.0, 0.08),
        lm.CHIN: (0.0, -0.08),
        lm.BELOW_NOSE: (0.0, -0.015),
    }
    for i, at in named.items():
        xy[i] = at
    xy[list(lm.RIGID_RIGHT), 0] = -np.abs(xy[list(lm.RIGID_RIGHT), 0])
    xy[list(lm.RIGID_LEFT)] = xy[list(lm.RIGID_RIGHT)] * (-1, 1)
    z = 0.1 * np.sqrt(np.maximum(1 - (xy[:, 0] / 0.08) ** 2 - (xy[:, 1] / 0.1) ** 2, 0.0)) - 0.05
    return np.column_stack([xy, z])


@dataclass
class Scene:
    points: np.ndarray  # [T, 478, 3]
    rotation: np.ndarray  # [T, 3, 3] head to OpenCV camera
    face: np.ndarray
    focal: float
    at: np.ndarray  # [T, 3] head origin in camera axes


def make_scene(T: int = 100, noise: float = 0.5, amplitude: float = 1.0, focal: float = 1200.0, seed: int = 0) -> Scene:
    """A talking head 0.8 m away at 512 x 512: turns by some 15 degrees, nods and shifts."""
    rng = np.random.default_rng(seed)
    face = make_face()
    t = np.arange(T) / 25.0
    angles = amplitude * np.column_stack(
        [8 * np.sin(2.1 * t) + 2 * np.sin(9 * t), 14 * np.sin(1.3 * t + 1), 4 * np.sin(0.9 * t)]
    )
    rotation = FLIP @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    at = np.column_stack([0.02 * np.sin(1.1 * t), 0.01 * np.cos(1.7 * t), 0.8 + 0.03 * np.sin(0.7 * t)])
    local = np.einsum("tij,nj->tni", rotation, face) + at[:, None]
    uv = 256.0 + focal * local[..., :2] / local[..., 2:]
    depth = (local[..., 2:] - at[:, None, 2:]) * focal / at[:, None, 2:]
    points = np.concatenate([uv, depth], axis=-1)
    points[..., :2] += rng.normal(0, noise, points[..., :2].shape)
    points[..., 2] += rng.normal(0, 3.0, points.shape[:2])  # a tracker's depth is rough
    return Scene(points, rotation, face, focal, at)


def turned_by(c2w: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """[T] degrees between recovered and true turns, after removing the one turn of the head's own axes."""
    found = FLIP @ np.transpose(c2w[:, :3, :3], (0, 2, 1))
    offset = Rotation.from_matrix(np.transpose(found, (0, 2, 1)) @ rotation).mean().as_matrix()
    return np.degrees(Rotation.from_matrix(np.transpose(found @ offset, (0, 2, 1)) @ rotation).magnitude())


def every(scene: Scene) -> np.ndarray:
    return np.ones(len(scene.points), dtype=bool)


def test_poses_focal_and_shape_are_recovered() -> None:
    scene = make_scene()
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    error = turned_by(poses.c2w, scene.rotation)
    assert np.sqrt((error**2).mean()) < 0.3 and error.max() < 0.8
    assert np.median(poses.residual) < 0.8
    assert 0.7 < poses.focal / scene.focal < 1.4
    rigid = list(lm.RIGID)
    np.testing.assert_allclose(
        poses.shape - poses.shape.mean(0), scene.face[rigid] - scene.face[rigid].mean(0), atol=0.004
    )
    assert np.abs(poses.face).max() < 0.1
    assert poses.c2w.shape == (100, 4, 4) and (poses.cx, poses.cy) == (256.0, 256.0)


def test_the_reported_residual_is_that_of_project() -> None:
    scene = make_scene(T=40)
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    uv = project_points(poses.shape, poses.c2w, poses.focal, poses.cx, poses.cy)
    error = np.linalg.norm(uv - scene.points[:, list(lm.RIGID), :2], axis=-1)
    np.testing.assert_allclose(np.median(error, axis=1), poses.residual, rtol=1e-6)
    face = project_points(poses.face, poses.c2w, poses.focal, poses.cx, poses.cy)
    assert np.median(np.linalg.norm(face - scene.points[..., :2], axis=-1)) < 0.8


def test_axes_are_those_of_the_layout() -> None:
    scene = make_scene(T=30, amplitude=0.0)
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    rotation = poses.c2w[:, :3, :3]
    np.testing.assert_allclose(rotation @ np.transpose(rotation, (0, 2, 1)), np.tile(np.eye(3), (30, 1, 1)), atol=1e-9)
    assert (np.linalg.det(rotation) > 0).all()
    # A face that looks into the camera: the camera is in front of it, upright, looking back.
    assert (poses.c2w[:, 2, 3] > 0.2).all()
    np.testing.assert_allclose(rotation, np.tile(np.eye(3), (30, 1, 1)), atol=0.06)
    axes = project_points(np.array([[0.0, 0, 0], [0.05, 0, 0], [0, 0.05, 0]]), poses.c2w[0], poses.focal, 256.0, 256.0)
    assert axes[1, 0] > axes[0, 0] + 10 and axes[2, 1] < axes[0, 1] - 10
    eyes = poses.face[[*lm.LEFT_EYE_CORNERS]].mean(0) - poses.face[[*lm.RIGHT_EYE_CORNERS]].mean(0)
    assert np.linalg.norm(eyes) == pytest.approx(0.063)
    assert eyes[0] > 0.062


@pytest.mark.parametrize("focal, amplitude", [(1200.0, 0.0), (300.0, 0.05), (60000.0, 1.0)])
def test_a_focal_length_that_cannot_be_seen_stays_believable(focal: float, amplitude: float) -> None:
    scene = make_scene(T=60, amplitude=amplitude)
    if focal == 60000.0:  # as good as orthographic
        scene.points[..., :2] = 256 + (make_scene(T=60, focal=1e6, noise=0.5).points[..., :2] - 256) * 1200 / 1e6
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    assert 1.0 * 512 <= poses.focal <= 6.0 * 512
    assert np.isfinite(poses.c2w).all() and np.median(poses.residual) < 1.0


def test_missing_frames_are_carried_by_their_neighbours() -> None:
    scene = make_scene()
    valid = every(scene)
    valid[[0, 1, 50, 51, 52, 53, 99]] = False
    scene.points[~valid] = np.nan
    poses = solve_head_poses(scene.points, valid, 512, 512)
    error = turned_by(poses.c2w, scene.rotation)
    assert error[50:54].max() < 2.0 and error[valid].max() < 1.0
    assert np.isnan(poses.residual[~valid]).all() and np.isfinite(poses.residual[valid]).all()
    assert np.isfinite(poses.c2w).all()


def test_smoothing_lowers_jitter_and_error() -> None:
    scene = make_scene(T=120, noise=0.0)
    # A tracker's typical error: the whole mesh shifts and tilts a little, anew in each frame.
    rng = np.random.default_rng(3)
    scene.points[..., 1] += rng.normal(0, 0.015, (120, 1)) * (scene.points[..., 1] - 256)
    firm = solve_head_poses(scene.points, every(scene), 512, 512)
    loose_config = PoseConfig(smooth_rotation=1.0, smooth_translation=100.0, smooth_scale=1.0)
    loose = solve_head_poses(scene.points, every(scene), 512, 512, loose_config)
    assert firm.jitter["rotation_after"] < 0.7 * firm.jitter["rotation_before"]
    assert turned_by(firm.c2w, scene.rotation).mean() < 0.9 * turned_by(loose.c2w, scene.rotation).mean()


def test_a_landmark_that_moves_on_its_own_loses_its_weight() -> None:
    scene = make_scene(T=60, noise=0.3)
    rng = np.random.default_rng(5)
    loose = lm.RIGID[7]
    scene.points[:, loose, :2] += rng.normal(0, 6.0, (60, 2))
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    assert poses.weights[7] < 0.25 * np.median(poses.weights)
    assert np.sqrt((turned_by(poses.c2w, scene.rotation) ** 2).mean()) < 0.3


def test_bad_landmarks_are_refused() -> None:
    scene = make_scene(T=20)
    valid = every(scene)
    with pytest.raises(UserError, match="3 are needed"):
        solve_head_poses(scene.points, valid & (np.arange(20) < 2), 512, 512)
    with pytest.raises(UserError, match="validity flags"):
        solve_head_poses(scene.points, valid[:-1], 512, 512)
    with pytest.raises(UserError, match="expected"):
        solve_head_poses(scene.points[:, :100], valid, 512, 512)
    with pytest.raises(UserError, match="px apart"):
        solve_head_poses(np.zeros_like(scene.points), valid, 512, 512)
    scene.points[13, 200, 0] = np.nan
    with pytest.raises(UserError, match="frame 13"):
        solve_head_poses(scene.points, valid, 512, 512)


@pytest.mark.parametrize("T", [3, 4])
def test_very_short_tracks_are_solved(T: int) -> None:
    scene = make_scene(T=T)
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    assert poses.c2w.shape == (T, 4, 4) and poses.residual.max() < 1.5


def test_points_behind_the_camera_are_not_projected() -> None:
    assert np.isnan(project_points(np.array([[0.0, 0.0, 2.0]]), np.eye(4), 100.0, 0.0, 0.0)).all()
    np.testing.assert_allclose(project_points(np.array([[0.1, 0.2, -2.0]]), np.eye(4), 100.0, 8.0, 9.0), [[13.0, -1.0]])
