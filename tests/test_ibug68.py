"""Measures on 68 points."""

from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.landmarks import mesh478
from degstalk_ns.landmarks.ibug68 import (
    JAW_LINE,
    LEFT_EYE_68,
    MOUTH_LANDMARKS,
    NUM_POINTS_68,
    RIGHT_EYE_68,
    eye_distance,
    eye_opening,
    lip_gap,
    lip_opening,
    lips_rectangles,
)


def test_the_gap_is_the_mean_distance_of_the_inner_lips() -> None:
    points = np.random.default_rng(0).uniform(0, 512, (68, 2))
    points[[67, 66, 65]] = points[[61, 62, 63]] + [3, 4]
    assert lip_gap(points) == pytest.approx(5)


def test_lip_opening_is_the_gap_over_the_eyes_distance() -> None:
    points = np.zeros((2, 68, 3))
    points[:, [36, 39], 0], points[:, [42, 45], 0] = -0.03, 0.03
    points[1, [65, 66, 67], 1] = -0.015
    np.testing.assert_allclose(lip_opening(points), [0.0, 0.25])


def test_eye_opening_is_height_over_width() -> None:
    points = np.zeros((68, 2))
    for corner, height in ((36, 6.0), (42, 2.0)):
        points[corner], points[corner + 3] = (0, 0), (20, 0)
        points[[corner + 1, corner + 2]], points[[corner + 5, corner + 4]] = (10, -height / 2), (10, height / 2)
    assert eye_opening(points) == pytest.approx((6 / 20 + 2 / 20) / 2)


def test_many_faces_are_measured_as_one_is() -> None:
    points = np.random.default_rng(0).uniform(0, 512, (3, 68, 2))
    for measure in (lip_gap, eye_distance, lip_opening, eye_opening):
        np.testing.assert_array_equal(measure(points), [measure(face) for face in points])


def test_the_mesh_gives_the_same_eyes_and_almost_the_same_lips() -> None:
    mesh = np.random.default_rng(1).normal(200, 40, (mesh478.NUM_POINTS, 3))
    upper, lower = (81, 82, 13, 312, 311), (178, 87, 14, 317, 402)
    mesh[list(upper)] = mesh[list(lower)] + [0.0, -12.0, 5.0]
    points = mesh[list(mesh478.TO_68)]
    assert eye_distance(points) == pytest.approx(mesh478.mesh_eye_distance(mesh))
    assert lip_gap(points) == pytest.approx(13.0)
    assert lip_opening(points) == pytest.approx(mesh478.mesh_lip_opening(mesh))


def test_parts_are_the_conventions() -> None:
    marks = np.array(mesh478.TO_68)
    assert len(marks) == NUM_POINTS_68
    assert set(marks[MOUTH_LANDMARKS]) <= {*mesh478.LIPS_OUTER, *mesh478.LIPS_INNER}
    assert set(marks[list(RIGHT_EYE_68)]) <= set(mesh478.RIGHT_EYE) and set(marks[list(LEFT_EYE_68)]) <= set(
        mesh478.LEFT_EYE
    )
    assert set(marks[JAW_LINE]) <= set(mesh478.FACE_OVAL)
    assert marks[JAW_LINE][5] == mesh478.CHIN


def test_lips_rectangles_are_clamped_and_never_empty() -> None:
    points = np.zeros((3, 68, 2), np.float32)
    points[0, 48:] = np.linspace([20, 30], [40, 36], 20)
    points[1, 48:] = np.linspace([-20, -30], [-4, -10], 20)
    points[2, 48:] = np.linspace([90, 90], [95, 99], 20)
    rectangles = lips_rectangles(points, 64, 64, 0.1)
    assert rectangles[0].tolist() == [28, 38, 18, 42]
    for y0, y1, x0, x1 in rectangles:
        assert 0 <= y0 < y1 <= 64 and 0 <= x0 < x1 <= 64
