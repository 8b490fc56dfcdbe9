import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_poses import FLIP, Scene, every, make_face, make_scene, turned_by

from degstalk_ns.preprocess.steps import alignment
from degstalk_ns.preprocess.steps.alignment import AlignmentConfig, fixed_to_head, refine_head_poses
from degstalk_ns.preprocess.steps.poses import HeadPoses, Marks, solve_head_poses

SIZE, FOCAL = 256, 900.0
CONFIG = AlignmentConfig(texel=0.0009, mean_frames=20, window=15, mark_distance=5.0)


def textured_video(T: int, seed: int = 0, contrast: float = 35.0) -> tuple[list[np.ndarray], Scene]:
    """A freckled ellipsoid that turns and nods, ray traced, and landmarks that jitter and slide as it turns."""
    rng = np.random.default_rng(seed)
    t = np.arange(T) / 25.0
    angles = np.column_stack([6 * np.sin(3.1 * t), 10 * np.sin(2.3 * t), 3 * np.sin(1.9 * t)])
    rotation = FLIP @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    at = np.column_stack([0.01 * np.sin(1.1 * t), 0.01 * np.cos(1.7 * t), 0.8 + 0 * t])
    noise = cv2.GaussianBlur(rng.normal(0, 1, (400, 400)).astype(np.float32), (0, 0), 6.0)
    noise *= contrast / noise.std()
    radii, middle = np.array([0.08, 0.1, 0.1]), np.array([0.0, 0.0, -0.05])
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    rays = np.stack([(x - SIZE / 2) / FOCAL, (y - SIZE / 2) / FOCAL, np.ones_like(x)], axis=-1)
    frames = []
    for R, p in zip(rotation, at, strict=True):
        direction, origin = (rays @ R) / radii, (-p @ R - middle) / radii
        a, b, c = (direction**2).sum(-1), direction @ origin, origin @ origin - 1.0
        hit = b * b - a * c
        depth = (-b - np.sqrt(np.maximum(hit, 0.0))) / a
        place = (origin + depth[..., None] * direction) * radii
        uv = (200 + place[..., :2] * 2000).astype(np.float32)
        skin = 128 + cv2.remap(noise, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR)
        frames.append(np.clip(np.where(hit > 0, skin, 30), 0, 255).astype(np.uint8))
    face = make_face()
    local = np.einsum("tij,nj->tni", rotation, face) + at[:, None]
    points = np.concatenate([SIZE / 2 + FOCAL * local[..., :2] / local[..., 2:], local[..., 2:] * 800 - 640], axis=-1)
    # The errors of trackers: shared by all points, lasting several frames, and a slide with the turn.
    shared = rng.normal(0, 1, (T, 3))
    shared = np.stack([np.convolve(column, np.ones(4) / 2, mode="same") for column in shared.T], axis=1)
    points[..., 0] += 0.8 * shared[:, :1] + 0.012 * shared[:, 2:] * (points[..., 2] - points[..., 2].mean())
    points[..., 1] += 0.8 * shared[:, 1:2]
    points[..., :2] += rng.normal(0, 0.2, points[..., :2].shape)
    return frames, Scene(points, rotation, face, FOCAL, at)


def solved(scene: Scene) -> HeadPoses:
    return solve_head_poses(scene.points, np.ones(len(scene.points), bool), SIZE, SIZE)


def test_texture_makes_poses_truer_than_landmarks() -> None:
    frames, scene = textured_video(60)
    asked: list[int] = []
    done: list[tuple[int, int]] = []

    def read(indices: np.ndarray) -> Iterable[np.ndarray]:
        asked.extend(indices)
        return (np.repeat(frames[i][..., None], 3, axis=2) for i in indices)

    first = solved(scene)
    valid = np.ones(60, bool)
    valid[30] = False
    refined = refine_head_poses(
        read, scene.points, valid, SIZE, SIZE, first, CONFIG, progress=lambda i, n: done.append((i, n))
    )
    before, after = turned_by(first.c2w, scene.rotation), turned_by(refined.c2w, scene.rotation)
    assert np.sqrt((after**2).mean()) < 0.6 * np.sqrt((before**2).mean())
    assert refined.mark_residual is not None and np.nanmedian(refined.mark_residual) < 0.4
    assert first.notes == refined.notes == ()
    assert 30 not in asked and np.isnan(refined.mark_residual[30])
    assert done == [(i, 59) for i in range(1, 60)]


def test_a_face_without_texture_keeps_its_poses() -> None:
    frames, scene = textured_video(12, contrast=1e-3)
    first = solved(scene)
    refined = refine_head_poses(
        lambda indices: (frames[i] for i in indices), scene.points, np.ones(12, bool), SIZE, SIZE, first, CONFIG
    )
    assert refined.c2w is first.c2w and refined.mark_residual is None
    (note,) = refined.notes
    assert "landmarks alone" in note and "fewer than 16 marks" in note


def test_texture_that_contradicts_the_landmarks_is_not_believed() -> None:
    """The picture sways by several pixels under the landmarks: what moves is not this head."""
    frames, scene = textured_video(40)
    first = solved(scene)
    sway = 5.0 * np.sin(np.arange(40) / 3.0)
    moved = [np.roll(frame, round(by), axis=1) for frame, by in zip(frames, sway, strict=True)]
    refined = refine_head_poses(
        lambda indices: (moved[i] for i in indices), scene.points, np.ones(40, bool), SIZE, SIZE, first, CONFIG
    )
    assert refined.c2w is first.c2w
    (note,) = refined.notes
    assert "landmarks alone" in note and "px behind" in note
    trusting = dataclasses.replace(CONFIG, max_landmark_loss=100.0)
    refined = refine_head_poses(
        lambda indices: (moved[i] for i in indices), scene.points, np.ones(40, bool), SIZE, SIZE, first, trusting
    )
    assert refined.mark_residual is not None and not refined.notes, "it was the limit that refused it"


# --- ears and hair beside the face ------------------------------------------------------------------------------------

FRONT, BESIDE = 40, 12


def marked(noise: float, sway: float) -> tuple[Scene, HeadPoses, Marks]:
    """A head, its poses from landmarks, and what was followed on it: marks between the eyes and the nose that are off
    by ``noise`` pixels for some frames together, and a side, 6 cm behind them, that is exact but for ``sway`` pixels to
    and fro."""
    scene = make_scene(T=80, noise=1.0)
    poses = solve_head_poses(scene.points, every(scene), 512, 512)
    rng = np.random.default_rng(5)
    middle = scene.face[(np.abs(scene.face[:, 0]) < 0.045) & (scene.face[:, 1] > -0.02)]
    at = np.concatenate(
        [
            middle[rng.choice(len(middle), FRONT, replace=False)],
            np.array([0.08, 0.0, -0.06]) + rng.uniform(-0.01, 0.01, (BESIDE, 3)),
        ]
    )
    local = np.einsum("tij,nj->tni", scene.rotation, at) + scene.at[:, None]
    uv = 256.0 + scene.focal * local[..., :2] / local[..., 2:] + 0.3 * rng.normal(size=(80, FRONT + BESIDE, 2))
    uv[:, :FRONT] += noise * np.repeat(rng.normal(size=(10, FRONT, 2)), 8, axis=0)
    uv[:, FRONT:, 0] += sway * np.sin(np.arange(80) / 5.0)[:, None]
    centre, own = scene.face.mean(axis=0), poses.face.mean(axis=0)
    turn, _ = Rotation.align_vectors(poses.face - own, scene.face - centre)
    scale = np.linalg.norm(poses.face - own) / np.linalg.norm(scene.face - centre)
    shape = turn.apply(at - centre) * scale + own
    shape[FRONT:, 2] += 0.02  # the side is only guessed
    return scene, poses, Marks(uv, np.ones(uv.shape[:2], bool), shape, np.arange(FRONT + BESIDE) >= FRONT)


def refined_by(marks: Marks, scene: Scene, poses: HeadPoses, monkeypatch: pytest.MonkeyPatch) -> HeadPoses:
    monkeypatch.setattr(alignment, "find_marks", lambda *_: marks)
    return refine_head_poses(lambda _: (), scene.points, every(scene), 512, 512, poses)


def turn_error(poses: HeadPoses, scene: Scene) -> float:
    """Root mean square, degrees."""
    return float(np.sqrt((turned_by(poses.c2w, scene.rotation) ** 2).mean()))


def test_ears_tell_a_turn_from_a_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, poses, marks = marked(noise=1.0, sway=0.0)
    front = refined_by(marks.part(~marks.beside), scene, poses, monkeypatch)
    both = refined_by(marks, scene, poses, monkeypatch)
    assert turn_error(both, scene) < 0.6 * turn_error(front, scene)


def test_hair_that_swings_changes_no_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, poses, marks = marked(noise=0.0, sway=12.0)
    front = refined_by(marks.part(~marks.beside), scene, poses, monkeypatch)
    assert np.array_equal(refined_by(marks, scene, poses, monkeypatch).c2w, front.c2w)
    still = marked(noise=0.0, sway=0.0)[2]
    assert not np.array_equal(refined_by(still, scene, poses, monkeypatch).c2w, front.c2w)


def test_a_second_round_that_fails_leaves_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, poses, marks = marked(noise=0.0, sway=0.0)
    once = refined_by(marks, scene, poses, monkeypatch)
    found = iter([marks, None])
    monkeypatch.setattr(alignment, "find_marks", lambda *_: next(found))
    twice = refine_head_poses(lambda _: (), scene.points, every(scene), 512, 512, poses, AlignmentConfig(rounds=2))
    assert np.array_equal(twice.c2w, once.c2w) and twice.notes == ()


def test_marks_beside_the_face_are_placed_where_they_are_seen_and_must_be_seen() -> None:
    _scene, poses, marks = marked(noise=0.0, sway=0.0)
    marks.seen[:, -1] = np.arange(80) < 4
    marks.seen[:, -2] = False
    kept = fixed_to_head(marks, poses, most=3.0, least_seen=0.1)
    assert kept.beside.sum() == BESIDE - 2
    assert np.array_equal(kept.shape[:FRONT], marks.shape[:FRONT])
    true_depth = marks.shape[FRONT:-2, 2] - 0.02
    assert np.abs(kept.shape[FRONT:, 2] - true_depth).max() < 0.01


def test_a_head_that_never_turns_keeps_its_marks_where_they_are() -> None:
    _scene, poses, marks = marked(noise=0.0, sway=0.0)
    c2w = np.repeat(poses.c2w[:1], 80, axis=0)
    still = dataclasses.replace(marks, points=np.repeat(marks.points[:1], 80, axis=0))
    kept = fixed_to_head(still, dataclasses.replace(poses, c2w=c2w), most=100.0, least_seen=0.1)
    assert kept.beside.sum() == BESIDE and np.abs(kept.shape - still.shape).max() < 0.02


def test_the_side_of_the_head_is_followed_beyond_the_front() -> None:
    frames, scene = textured_video(30)
    config = dataclasses.replace(CONFIG, half_width=0.05, side_width=0.02)

    def found(config: AlignmentConfig) -> Marks | None:
        return alignment.find_marks(lambda indices: (frames[i] for i in indices), every(scene), poses, config)

    poses = solved(scene)
    assert found(dataclasses.replace(config, texel=0.01)) is None  # a texture of a few texels has no room for marks
    marks = found(config)
    assert marks is not None and marks.beside.sum() >= 5 and (~marks.beside).sum() >= 16
    across = np.abs(marks.shape[:, 0])
    coarse = dataclasses.replace(config, texel=0.01)  # a texture of a few texels has no room for marks
    assert (
        alignment.find_marks(lambda indices: (frames[i] for i in indices), every(scene), solved(scene), coarse) is None
    )
    assert across[~marks.beside].max() < 0.05 < across[marks.beside].min() and across.max() < 0.07
