"""Measures of a face on its mesh: each moves with its part of the face alone, and with neither pose nor size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures


def _face() -> np.ndarray:
    """One face, [1, 478, 3]: random points, but for eyes, nose and chin, which lie as in a face looked at from the
    front (x to the right in the picture, which is the subject's left; y down)."""
    points = np.random.default_rng(4).uniform(-60, 60, (lm.NUM_POINTS, 3))
    for corners, x in ((lm.RIGHT_EYE_CORNERS, -32.0), (lm.LEFT_EYE_CORNERS, 32.0)):
        points[corners[0]], points[corners[1]] = (1.5 * x, 0.0, 0.0), (0.5 * x, 0.0, 0.0)
    points[lm.RIGHT_IRIS], points[lm.LEFT_IRIS] = (-32.0, 0.0, -5.0), (32.0, 0.0, -5.0)
    for brow, x in ((lm.RIGHT_BROW, -32.0), (lm.LEFT_BROW, 32.0)):
        points[list(brow)] = np.column_stack([x + np.linspace(-20, 20, 5), np.full(5, -25.0), np.zeros(5)])
    points[lm.BELOW_NOSE], points[lm.CHIN] = (0.0, 45.0, 0.0), (0.0, 110.0, 0.0)
    points[lm.BESIDE_EARS[0]], points[lm.BESIDE_EARS[1]] = (-75.0, 10.0, 40.0), (75.0, 10.0, 40.0)
    return points[None]


def _of(points: np.ndarray) -> dict[str, float]:
    return dict(zip(MEASURE_NAMES, face_measures(points)[0].tolist(), strict=True))


def test_they_do_not_change_with_pose_and_size() -> None:
    face = _face()
    turned = face @ Rotation.from_euler("xyz", [20, -35, 10], degrees=True).as_matrix().T * 1.7 + (100, -50, 3)
    np.testing.assert_allclose(face_measures(turned), face_measures(face), atol=1e-9)
    assert face_measures(np.repeat(face, 3, 0)).shape == (3, len(MEASURE_NAMES)) and len(set(MEASURE_NAMES)) == 17


UNIT = 64.0
"""Distance between the eyes of the face."""


@pytest.mark.parametrize(
    ("moved", "by", "expected"),
    [
        (lm.RIGHT_BROW, (0, -6, 0), {"browRightOuter": "+", "browRightMiddle": 6 / UNIT, "browRightInner": "+"}),
        (lm.LEFT_BROW[:1], (0, -6, 0), {"browLeftInner": "+"}),
        (lm.LEFT_BROW[-1:], (0, 3, 0), {"browLeftOuter": "-"}),
        ((lm.RIGHT_IRIS,), (4, 0, 0), {"gazeRightX": 4 / UNIT}),
        ((lm.LEFT_IRIS,), (0, -2, 0), {"gazeLeftY": -2 / UNIT}),
        ((lm.CHIN,), (0, 8, 0), {"jawDrop": "+", "jawSide": 0.0}),
        ((lm.CHIN,), (8, 0, 0), {"jawDrop": "+", "jawSide": "+"}),
    ],
)
def test_each_moves_with_its_part_of_the_face_alone(
    moved: tuple[int, ...], by: tuple[float, float, float], expected: dict[str, float | str]
) -> None:
    before, face = _of(_face()), _face()
    face[0, list(moved)] += by
    for name, value in _of(face).items():
        change = value - before[name]
        wanted = expected.get(name, 0.0)
        if isinstance(wanted, str):
            assert change * (1 if wanted == "+" else -1) > 1e-3, name
        else:
            assert change == pytest.approx(wanted, abs=1e-9), name


def test_an_empty_or_collapsed_face_gives_finite_numbers() -> None:
    assert np.isfinite(face_measures(np.zeros((2, lm.NUM_POINTS, 3)))).all()
    assert face_measures(np.zeros((0, lm.NUM_POINTS, 3))).shape == (0, 17)
