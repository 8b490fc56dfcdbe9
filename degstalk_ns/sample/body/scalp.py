"""The head as hair sees it: a plain shape to lie on, the hairline, the face that stays free. Head coordinates, metres.

It must not know the face's features nor strands.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.sample.body.bust import Doubles, gradient
from degstalk_ns.sample.body.surfels import BACK_Z, CROWN_Y, HAIRLINE_Y, SKULL_HALF_WIDTH

_CRANIUM_Y, CRANIUM_Z = 0.020, -0.007  # its centre
_CRANIUM_RADII = (SKULL_HALF_WIDTH, CROWN_Y - _CRANIUM_Y, CRANIUM_Z - BACK_Z)
# What hair lies on besides the cranium: forehead, cheeks, jaw, ears; centres and radii, metres, x > 0 for both sides.
_LUMPS = (
    ((0.0, 0.036, 0.026), (0.058, 0.044, 0.052)),
    ((0.0, -0.022, 0.014), (0.061, 0.058, 0.055)),
    ((0.0, -0.050, 0.018), (0.054, 0.046, 0.050)),
    ((0.073, -0.010, -0.013), (0.009, 0.029, 0.018)),
)
# Heights of the hairline, metres, by azimuth from the face, degrees.
_HAIRLINE = (
    (0.0, 28.0, 48.0, 62.0, 76.0, 92.0, 108.0, 130.0, 180.0),
    (HAIRLINE_Y, HAIRLINE_Y + 0.001, 0.062, 0.040, 0.014, 0.004, -0.016, -0.040, -0.050),
)
# Half the width of the face that stays free of hair, metres, by height; below 0 above the hairline.
_OPENING = (
    (-0.200, -0.150, -0.115, -0.085, -0.055, -0.020, 0.010, 0.035, 0.055, 0.066, 0.072, 0.085),
    (0.030, 0.036, 0.044, 0.051, 0.0570, 0.0590, 0.0570, 0.0475, 0.0310, 0.0130, -0.006, -0.040),
)
_OPENING_BEHIND = 0.012  # metres z: the face is in front of this


def _ellipsoid(points: Doubles, centre: tuple[float, ...], radii: tuple[float, ...]) -> Doubles:
    q = (points - centre) / radii
    level, slope = np.linalg.norm(q, axis=1), np.linalg.norm(q / radii, axis=1)
    return level * (level - 1.0) / np.maximum(slope, 1e-9)


def head_distance(points: Doubles) -> Doubles:
    """Signed distance [N], metres, from points [N, 3] to a plain head, as far as hair lies on it."""
    folded = np.abs(points) * [1.0, 0.0, 0.0] + points * [0.0, 1.0, 1.0]
    distance = _ellipsoid(folded, (0.0, _CRANIUM_Y, CRANIUM_Z), _CRANIUM_RADII)
    for centre, radii in _LUMPS:
        other = _ellipsoid(folded, centre, radii)
        h = np.maximum(0.010 - np.abs(distance - other), 0.0) / 0.010
        distance = np.minimum(distance, other) - h * h * 0.0025
    return distance


def face_opening(points: Doubles) -> Doubles:
    """Signed distance [N], metres, from points [N, 3] to the room in front of the face that hair leaves free."""
    y = points[:, 1]
    sideways = np.abs(points[:, 0]) - np.interp(y, *_OPENING)
    return np.maximum(sideways, _OPENING_BEHIND - points[:, 2])


def above_hairline(points: Doubles, margin: float = 0.0) -> Doubles:
    """Metres [N] above the hairline less ``margin``, for points [N, 3] on the scalp; positive is hair."""
    azimuth = np.degrees(np.arctan2(np.abs(points[:, 0]), points[:, 2] - CRANIUM_Z))
    return points[:, 1] - np.interp(azimuth, *_HAIRLINE) - margin


def scalp_points(count: int) -> tuple[Doubles, Doubles]:
    """Points [N, 3] spread evenly over the scalp within the hairline, and normals. ``count`` is for the whole head."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), np.pi * (1 + 5**0.5) * i
    direction = np.stack([np.sin(turn) * np.sin(polar), np.cos(polar), np.cos(turn) * np.sin(polar)], axis=1)
    points = np.array([0.0, _CRANIUM_Y, CRANIUM_Z]) + direction * _CRANIUM_RADII
    for _ in range(4):
        normals, steepness = gradient(head_distance, points)
        points = points - (head_distance(points) / steepness)[:, None] * normals
    x, y, z = points.T
    ragged = 0.0014 * np.sin(310.0 * x + 190.0 * z) + 0.0012 * np.sin(740.0 * x - 520.0 * y)
    inside = above_hairline(points) > ragged
    return points[inside], normals[inside]
