"""Tests of `landmarks/triangulation.py`: points that turned cameras see are found where they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from degstalk_ns.landmarks.triangulation import triangulated

FOCAL, CENTRE = 900.0, (250.0, 260.0)
POINTS = np.array([[-0.03, 0.03, 0.01], [0.03, 0.03, 0.01], [0.0, -0.02, 0.04]])


def _seen_by(turns: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Cameras [T, 4, 4] half a metre before the head, turned about it by ``turns`` degrees, and what they see."""
    c2w = np.tile(np.eye(4), (len(turns), 1, 1))
    c2w[:, :3, :3] = Rotation.from_euler("y", np.array(turns)[:, None], degrees=True).as_matrix()
    c2w[:, :3, 3] = c2w[:, :3, 2] * 0.5
    inside = np.einsum("tji,tmj->tmi", c2w[:, :3, :3], POINTS - c2w[:, None, :3, 3])
    x = CENTRE[0] - FOCAL * inside[..., 0] / inside[..., 2]
    y = CENTRE[1] + FOCAL * inside[..., 1] / inside[..., 2]
    return c2w, np.stack([x, y], axis=-1)


def test_points_are_found_where_they_are() -> None:
    c2w, points = _seen_by([-10.0, 0.0, 10.0])
    found = triangulated(points, np.ones((3, 3), bool), c2w, FOCAL, CENTRE, np.zeros((3, 3)))
    assert np.abs(found - POINTS).max() < 1e-3  # the prior pulls a little


def test_a_head_that_does_not_turn_leaves_the_depth_to_what_was_known_before() -> None:
    c2w, points = _seen_by([0.0, 0.0])
    before = POINTS + np.array([0.0, 0.0, 0.1])
    found = triangulated(points, np.ones((2, 3), bool), c2w, FOCAL, CENTRE, before)
    again = _seen_by([0.0])[1]
    depth = 0.5 - found[:, 2]
    x = CENTRE[0] + FOCAL * found[:, 0] / depth
    assert np.abs(x - again[0, :, 0]).max() < 0.5, "it stays on its rays"
    assert np.abs(found[:, 2] - before[:, 2]).max() < 0.02


def test_what_is_not_seen_does_not_count() -> None:
    c2w, points = _seen_by([-10.0, 0.0, 10.0])
    wrong, seen = points.copy(), np.ones((3, 3), bool)
    wrong[1, 0] += 50.0
    seen[1, 0] = False
    seen[:, 2] = False
    found = triangulated(wrong, seen, c2w, FOCAL, CENTRE, np.zeros((3, 3)))
    assert np.abs(found[:2] - POINTS[:2]).max() < 1e-3
    assert np.isnan(found[2]).all()


def test_one_frame_is_enough_for_a_ray() -> None:
    c2w, points = _seen_by([5.0])
    found = triangulated(points, np.ones((1, 3), bool), c2w, FOCAL, CENTRE, POINTS)
    assert found == pytest.approx(POINTS, abs=1e-6)
