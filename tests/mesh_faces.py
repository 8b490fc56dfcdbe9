"""Faces of MediaPipe's mesh, made of ellipses whose sizes are known."""

from __future__ import annotations

import numpy as np

from degstalk_ns.landmarks import mesh478 as lm

EYE_CORNERS = 100.0
"""Distance between the outer corners of the eyes, pixels."""


def ring_points(
    ring: tuple[int, ...], points: np.ndarray, centre: tuple[float, float], radii: tuple[float, float]
) -> None:
    """Puts a ring of landmarks on an ellipse, clockwise on the screen from its left end."""
    angle = np.pi + 2 * np.pi * np.arange(len(ring)) / len(ring)
    points[list(ring), 0] = centre[0] + radii[0] * np.cos(angle)
    points[list(ring), 1] = centre[1] + radii[1] * np.sin(angle)


def mesh_face(lips: float = 8.0, eyes: float = 5.0) -> np.ndarray:
    """[478, 3] in pixels: lips around (100, 150), eyes around (65, 80) and (135, 80).

    Args:
        lips: half of the opening in the middle of the mouth, pixels.
        eyes: half of the height of the eyes, which are 30 pixels wide.
    """
    points = np.zeros((lm.NUM_POINTS, 3))
    ring_points(lm.LIPS_OUTER, points, (100, 150), (30, lips + 7))
    ring_points(lm.LIPS_INNER, points, (100, 150), (26, lips))
    ring_points(lm.RIGHT_EYE, points, (65, 80), (15, eyes))
    ring_points(lm.LEFT_EYE, points, (135, 80), (15, eyes))
    points[list(lm.LEFT_EYE), 0] = 270 - points[list(lm.LEFT_EYE), 0]  # the list starts at the outer corner
    return points


def relative_gap(lips: float) -> float:
    """Gap of the lips of such a face, mean of three places, over the distance of the eye corners. The inner lips have
    20 points, so that those beside the middle are 18 degrees away."""
    return float(2 * lips * (1 + 2 * np.cos(np.pi / 10)) / 3 / EYE_CORNERS)
