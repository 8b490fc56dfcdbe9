"""Brows followed in profiles of the face, and how they stand in the measures of the mesh."""

from __future__ import annotations

import numpy as np
import pytest
from test_alignment import CONFIG, SIZE, solved, textured_video
from test_poses import every, make_face

from degstalk_ns.landmarks.brows import BROW_NAMES, BROW_POINTS, BrowConfig, brow_heights, not_followed
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures
from degstalk_ns.preprocess.steps.alignment import brow_profiles
from degstalk_ns.preprocess.steps.poses import project_points

TEXEL, ROW = 0.0005, 60.0


def profiles(heights: np.ndarray, contrast: float = 0.6, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """[T, B, 160] a forehead that darkens downwards, a brow 5 mm thick at ``heights`` [T, B] above row 60, and lashes
    24 mm below that row, which do not move."""
    rng = np.random.default_rng(seed)
    row = np.arange(160.0)
    middle = ROW - heights[..., None] / TEXEL
    brow = np.exp(-0.5 * ((row - middle) / 5.0) ** 4)
    lashes = np.exp(-0.5 * ((row - ROW - 48) / 3.0) ** 2)
    return 4.5 - 0.002 * row - contrast * brow - 0.8 * lashes + noise * rng.normal(size=brow.shape)


def acted(T: int = 120) -> np.ndarray:
    """[T, 2] metres: one brow that goes far up for a while, one that only frowns and rises a little."""
    t = np.arange(T)
    far = 0.014 / (1 + np.exp(-(t - 50) / 1.5)) / (1 + np.exp((t - 80) / 1.5)) - 0.003 * np.sin(t / 7.0)
    return np.stack([far, 0.003 * np.sin(t / 9.0)], axis=1)


def test_brows_are_found_where_the_mesh_loses_them() -> None:
    true = acted()
    mesh = 0.15 * true + 0.0005 * np.random.default_rng(1).normal(size=true.shape)
    found = brow_heights(profiles(true), np.full(2, ROW), mesh, TEXEL)
    assert np.abs(found - true + np.median(true, axis=0)).max() < 0.0004
    assert np.median(found, axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_frames_without_a_face_are_bridged() -> None:
    true = acted()
    seen = profiles(true)
    seen[20:24] = np.nan
    found = brow_heights(seen, np.full(2, ROW), 0.15 * true, TEXEL)
    assert np.isfinite(found).all()
    assert np.abs(found - true + np.median(true, axis=0))[24:].max() < 0.0006


def test_what_does_not_look_like_a_brow_is_not_measured() -> None:
    """Hair over it that changes, the rim of glasses that stays, or no face at all."""
    true = acted()
    changing = profiles(true)
    changing[:, 0] = 4 + np.random.default_rng(2).normal(size=changing[:, 0].shape)
    found = brow_heights(changing, np.full(2, ROW), true, TEXEL)
    assert np.isnan(found[:, 0]).all() and np.isfinite(found[:, 1]).all()
    rim = profiles(np.zeros_like(true))
    assert np.isnan(brow_heights(rim, np.full(2, ROW), true, TEXEL)).all()
    trusting = BrowConfig(least_movement=0.0)
    assert np.abs(brow_heights(rim, np.full(2, ROW), true, TEXEL, trusting)).max() < 0.0004
    assert np.isnan(brow_heights(np.full_like(rim, np.nan), np.full(2, ROW), true, TEXEL)).all()


def test_it_is_said_which_brows_are_not_followed() -> None:
    heights = np.zeros((5, len(BROW_NAMES)))
    assert not_followed(heights) == ()
    heights[:, [0, 2]] = np.nan
    (note,) = not_followed(heights)
    assert note.startswith("browRightMiddle and browLeftMiddle:") and "mesh" in note


def test_heights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        brow_heights(profiles(acted()), np.full(3, ROW), acted(), TEXEL)


def test_measured_brows_stand_instead_of_the_mesh() -> None:
    points = np.repeat(make_face()[None], 5, axis=0)
    plain = face_measures(points)
    raised = np.outer([0.0, 0.1, -0.1, 0.2, 0.0], np.ones(4))
    raised[:, 3] = np.nan  # not measured
    table = face_measures(points, raised)
    for b, name in enumerate(BROW_NAMES):
        column = MEASURE_NAMES.index(name)
        expected = plain[:, column] + (0.0 if b == 3 else raised[:, b])
        np.testing.assert_allclose(table[:, column], expected, atol=1e-12)
    others = [i for i, name in enumerate(MEASURE_NAMES) if name not in BROW_NAMES]
    assert np.array_equal(table[:, others], plain[:, others])


def test_profiles_run_down_the_face_through_the_brows() -> None:
    frames, scene = textured_video(6)
    valid = every(scene)
    valid[2] = False
    poses = solved(scene)
    count = 0

    def advance() -> None:
        nonlocal count
        count += 1

    seen, rows = brow_profiles(lambda indices: (frames[i] for i in indices), valid, poses, CONFIG, advance)
    assert seen.shape[:2] == (6, len(BROW_POINTS)) and rows.shape == (len(BROW_POINTS),) and count == 5
    assert np.isnan(seen[2]).all() and np.isfinite(seen[valid]).all()
    assert np.log(1.0) <= seen[valid].min() and seen[valid].max() <= np.log(255.0)
    # A dark bar across the brows, painted on every frame where the poses see it, is in the middle of each profile.
    for i in np.flatnonzero(valid):
        for at in project_points(poses.face[list(BROW_POINTS)], poses.c2w[i], poses.focal, poses.cx, poses.cy):
            x, y = np.floor(at).astype(int)
            frames[i][max(y - 1, 0) : y + 2, max(x - 5, 0) : min(x + 6, SIZE)] = 1
    barred, rows = brow_profiles(lambda indices: (frames[i] for i in indices), valid, poses, CONFIG)
    darkest = barred[valid].argmin(axis=2)
    assert np.median(np.abs(darkest - rows)) <= 1  # where bars of two points overlap, either may be the darkest
