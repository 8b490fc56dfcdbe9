"""What the 68 points of the iBUG / 300-W convention mean, and what is measured on them.

With :mod:`degstalk_ns.landmarks.mesh478` the only place that knows what a landmark's index means. It must not know
MediaPipe, images or files. Each quantity has one normalisation:

- ``lip_gap``: pixels (the unit of the points); what two frames of equal size are compared by.
- ``lip_opening``: that gap over the distance between the eyes; what faces of any size are compared by.
- ``eye_opening``: height over width of the eyes.

"Left" and "right" are the subject's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_Float32 = NDArray[np.float32]
_Points = NDArray[np.floating]

NUM_POINTS_68: Final[int] = 68
JAW_LINE: Final[slice] = slice(3, 14)
"""From one angle of the jaw over the chin to the other."""
RIGHT_EYE_68: Final[tuple[int, ...]] = (36, 37, 38, 39, 40, 41)
"""Outer corner, two points of the upper lid, inner corner, two of the lower lid: up to here from left to right in the
picture, then back."""
LEFT_EYE_68: Final[tuple[int, ...]] = (42, 43, 44, 45, 46, 47)
"""The same from left to right in the picture: inner corner first."""
UPPER_FACE: Final[tuple[int, ...]] = (*range(17, 27), *range(36, 48))
"""Brows and eyes."""
MOUTH_LANDMARKS: Final[slice] = slice(48, 68)
"""The 20 points of the lips."""
BELOW_NOSE_68: Final[int] = 33
"""The base of the nose."""
INNER_LIPS_ABOVE: Final[list[int]] = [61, 62, 63]
INNER_LIPS_BELOW: Final[list[int]] = [67, 66, 65]
"""_Points on the lips' inner rims, each above its partner below."""


def lips_rectangles(landmarks: _Float32, height: float, width: float, margin: float) -> NDArray[np.int32]:
    """Rectangles around the lips.

    Args:
        landmarks: [T, 68, 2] x, y in pixels.
        height, width: of the frames in pixels.
        margin: on each side, as a fraction of the lips' width.

    Returns:
        [T, 4] int32 rows y0 (inclusive), y1 (exclusive), columns x0, x1: within the frame, at least one pixel large.
    """
    lips = landmarks[:, MOUTH_LANDMARKS]
    low, high = lips.min(1), lips.max(1)
    room = margin * (high[:, :1] - low[:, :1])
    limit = np.array([int(width), int(height)])
    first = np.clip(np.floor(low - room), 0, limit - 1).astype(np.int32)
    end = np.clip(np.ceil(high + room), first + 1, limit).astype(np.int32)
    return np.stack([first[:, 1], end[:, 1], first[:, 0], end[:, 0]], 1)


def lip_gap(points: _Points) -> _Points:
    """Height of the gap between the inner lips: mean distance of three points above to those below, 0 is closed.

    Args:
        points: [..., 68, 2 or 3].

    Returns:
        [...] in the unit of ``points``.
    """
    upper, lower = points[..., INNER_LIPS_ABOVE, :], points[..., INNER_LIPS_BELOW, :]
    return np.asarray(np.linalg.norm(upper - lower, axis=-1).mean(-1))


def eye_distance(points: _Points) -> _Points:
    """[...] distance between the centres of the eyes (each the mean of its corners), in the unit of ``points``
    [..., 68, 2 or 3]."""
    right, left = eye_centres(points)
    return np.asarray(np.linalg.norm(left - right, axis=-1))


def eye_centres(points: _Points) -> tuple[_Points, _Points]:
    """[..., 2 or 3] centre of the right eye and of the left one, each the mean of its corners."""
    right, left = (points[..., [eye[0], eye[3]], :].mean(-2) for eye in (RIGHT_EYE_68, LEFT_EYE_68))
    return right, left


def lip_opening(points: _Points) -> _Points:
    """How far the mouth is open: :func:`lip_gap` over :func:`eye_distance`.

    The same quantity as :func:`degstalk_ns.landmarks.mesh478.mesh_lip_opening`, which has five pairs of points for it.

    Args:
        points: [..., 68, 2 or 3], any unit.

    Returns:
        [...] 0 for closed lips, about 0.5 for a wide open mouth. In two dimensions it grows as the head turns aside.
    """
    return np.asarray(lip_gap(points) / np.maximum(eye_distance(points), 1e-9))


def lips_width(points: _Points) -> _Points:
    """Width of the mouth, corner to corner, over :func:`eye_distance`; arguments as for :func:`lip_opening`."""
    right, left = points[..., MOUTH_LANDMARKS, :][..., 0, :], points[..., MOUTH_LANDMARKS, :][..., 6, :]
    return np.asarray(np.linalg.norm(left - right, axis=-1) / np.maximum(eye_distance(points), 1e-9))


def eye_opening(points: _Points) -> _Float32:
    """Height over width of the eyes, mean of both (the "eye aspect ratio", Soukupova and Cech, CVWW 2016).

    Args:
        points: [..., 68, 2 or 3], any unit.

    Returns:
        [...] float32: about 0.3 open, under 0.1 closed.
    """
    points = np.asarray(points, np.float32)
    corner, upper, upper_next, other_corner, lower_next, lower = np.transpose([RIGHT_EYE_68, LEFT_EYE_68])

    def distance(a: NDArray[np.int64], b: NDArray[np.int64]) -> _Float32:
        return np.asarray(np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1), np.float32)  # [..., 2]

    heights = distance(upper, lower) + distance(upper_next, lower_next)
    return np.asarray((heights / np.maximum(2 * distance(corner, other_corner), 1e-3)).mean(-1), np.float32)
