"""What the 68 points of the iBUG / 300-W convention mean, and what is measured on them.

It must not know MediaPipe, images or files. All points are [..., 68, 2] x, y in pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

MOUTH_LANDMARKS: Final[slice] = slice(48, 68)
"""The 20 lip points of the 68-landmark convention of the ``.lms`` files."""


INNER_LIPS_ABOVE: Final[list[int]] = [61, 62, 63]


INNER_LIPS_BELOW: Final[list[int]] = [67, 66, 65]
"""Points of the same convention on the lips' inner rims, each above its partner below."""


NUM_POINTS_68: Final[int] = 68


def lips_rectangles(landmarks: Float32, height: float, width: float, margin: float) -> NDArray[np.int32]:
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


def _distance(landmarks: Float32, a: int, b: int) -> Float32:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=-1)


def inner_lip_opening(landmarks: Float32) -> Float32:
    """Mean gap of the inner lips (points 61/67, 62/66, 63/65) over the lips' outer width (48/54): [T], 0 is closed."""
    gap = (_distance(landmarks, 61, 67) + _distance(landmarks, 62, 66) + _distance(landmarks, 63, 65)) / 3
    return np.asarray(gap / np.maximum(_distance(landmarks, 48, 54), 1e-3), np.float32)


def eye_aspect_ratio(landmarks: Float32) -> Float32:
    """Height over width of the eyes, mean of both: [T] (Soukupova and Cech, CVWW 2016)."""
    ratios = []
    for k in (36, 42):
        heights = _distance(landmarks, k + 1, k + 5) + _distance(landmarks, k + 2, k + 4)
        ratios.append(heights / np.maximum(2 * _distance(landmarks, k, k + 3), 1e-3))
    return np.asarray(np.mean(ratios, 0), np.float32)
