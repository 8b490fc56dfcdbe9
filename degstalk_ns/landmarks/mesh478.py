"""What the 478 points of MediaPipe's face mesh mean: rings, contours, the rigid part, and the 68-point convention.

Index lists and measures on arrays of points. It must know neither MediaPipe's code nor images nor files.
"Left" and "right" are the subject's own: the subject's right eye is on the left side of an unmirrored picture.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_FloatArray = NDArray[np.floating]

NUM_POINTS: Final = 478
"""468 points of the mesh and 10 of the irises."""
NUM_MESH: Final = 468
"""Points of the mesh alone."""

LIPS_OUTER: Final[tuple[int, ...]] = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
"""Outer edge of the lips as a closed polygon: from the subject's right corner over the upper lip to the left corner,
and back along the lower lip."""

LIPS_INNER: Final[tuple[int, ...]] = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
"""Inner edge of the lips as a closed polygon, in the same order as :data:`LIPS_OUTER`."""

RIGHT_EYE: Final[tuple[int, ...]] = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""The subject's right eye as a closed polygon: outer corner, upper lid, inner corner, lower lid."""
LEFT_EYE: Final[tuple[int, ...]] = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
"""The subject's left eye, mirrored order: outer corner, upper lid, inner corner, lower lid."""
RIGHT_EYE_CORNERS: Final[tuple[int, int]] = (33, 133)
"""Outer and inner corner of the subject's right eye."""
LEFT_EYE_CORNERS: Final[tuple[int, int]] = (263, 362)
"""Outer and inner corner of the subject's left eye."""

RIGHT_BROW: Final[tuple[int, ...]] = (70, 63, 105, 66, 107)
LEFT_BROW: Final[tuple[int, ...]] = (336, 296, 334, 293, 300)

FACE_OVAL: Final[tuple[int, ...]] = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline of the face as a closed polygon, from the top of the forehead over the subject's left side."""

FOREHEAD_TOP: Final = 10
CHIN: Final = 152
JAW_ANGLES: Final[tuple[int, int]] = (172, 397)
"""Points of the face's outline where the jaw turns towards the ears, the subject's right one first."""
BELOW_NOSE: Final = 2
"""Where the nose meets the upper lip."""

RIGHT_IRIS: Final = 468
LEFT_IRIS: Final = 473
"""Centres of the irises."""
MOUTH_CORNERS: Final[tuple[int, int]] = (61, 291)
"""Outer corners of the lips, the subject's right one first."""
INNER_LIPS_MIDDLE: Final[tuple[int, int]] = (13, 14)
"""Middle of the upper and of the lower lip's inner edge."""
BESIDE_EARS: Final[tuple[int, int]] = (127, 356)
"""Points of the face's outline beside the ears, the subject's right one first."""

_JAW = (127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356)
_NOSE = (168, 197, 5, 1, 98, 97, 2, 326, 327)
_EYES_68 = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_LIPS_68 = (61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178)

TO_68: Final[tuple[int, ...]] = (*_JAW, *RIGHT_BROW, *LEFT_BROW, *_NOSE, *_EYES_68, *_LIPS_68)
"""Mesh point for each of the 68 points of the iBUG / 300-W convention: 0-16 jaw from the subject's right ear, 17-26
brows, 27-35 nose, 36-47 eyes, 48-59 outer lips, 60-67 inner lips. Jaw and lip points are the mesh points nearest to
equal spacing along the outline."""

RIGID_MIDLINE: Final[tuple[int, ...]] = (10, 151, 9, 168, 6, 197, 5, 4, 1, 2)
"""Rigid points from hairline to nose tip, and below it."""
RIGID_RIGHT: Final[tuple[int, ...]] = (
    *(109, 67, 103, 69, 108, 54, 104, 68, 107, 65),  # forehead and brow
    *(21, 71, 46, 162, 139, 127, 34, 116, 227, 234),  # temple and the outline down to the ear
    *(27, 221, 130, 244, 23),  # around the eye, off the lids
    *(120, 118, 236, 101, 50, 129, 205),  # side of the nose and cheekbone
    *(137, 93, 147),  # outline below the ear
)
"""Rigid points of the subject's right side."""
RIGID_LEFT: Final[tuple[int, ...]] = (
    *(338, 297, 332, 299, 337, 284, 333, 298, 336, 295),
    *(251, 301, 276, 389, 368, 356, 264, 345, 447, 454),
    *(257, 441, 359, 464, 253),
    *(349, 347, 456, 330, 280, 358, 425),
    *(366, 323, 376),
)
"""Their mirror images, in the same order."""
RIGID: Final[tuple[int, ...]] = (*RIGID_MIDLINE, *RIGID_RIGHT, *RIGID_LEFT)
"""Points that move mostly with the skull: spread evenly over the face above the upper lip, without eyelids. Even spread
was measured to give steadier and truer poses than the nose bridge, eye corners and outline alone: the errors of the
tracker are local, so far apart points average them. Each one's own noise is measured and weighed by the solver."""


_LIP_GAPS: Final = ((81, 178), (82, 87), (13, 14), (312, 317), (311, 402))  # upper and lower inner lip, face to face


def to_68(points: _FloatArray) -> _FloatArray:
    """The 68 points of the iBUG / 300-W convention.

    Args:
        points: [..., 478, 2 or 3] mesh points, pixels.

    Returns:
        [..., 68, 2] x, y in the same pixels.
    """
    return points[..., list(TO_68), :2]


def mesh_eye_distance(points: _FloatArray) -> _FloatArray:
    """[...] distance between the centres of the eyes, in the unit of ``points`` [..., 478, 2 or 3].

    With three coordinates it does not shrink when the head turns.
    """
    right = points[..., list(RIGHT_EYE_CORNERS), :].mean(axis=-2)
    left = points[..., list(LEFT_EYE_CORNERS), :].mean(axis=-2)
    return np.linalg.norm(left - right, axis=-1)


_INNER_LIP_GAPS: Final = ((82, 87), (13, 14), (312, 317))
OUTER_EYE_CORNERS: Final[tuple[int, int]] = (RIGHT_EYE_CORNERS[0], LEFT_EYE_CORNERS[0])


def lip_gap_between_eye_corners(points: _FloatArray) -> _FloatArray:
    """How far the lips are apart in the middle of the mouth: mean gap of three pairs of points of the inner lips over
    the distance between the outer corners of the eyes, both in the image plane.

    What renders and recorded frames of the same view are compared by (:mod:`degstalk_ns.metrics.lips_and_eyes`).

    Args:
        points: [..., 478, 2 or 3] mesh points, pixels.

    Returns:
        [...] 0 for closed lips, about 0.3 for a wide open mouth.
    """
    upper, lower = (list(side) for side in zip(*_INNER_LIP_GAPS, strict=True))
    gap = np.linalg.norm(points[..., upper, :2] - points[..., lower, :2], axis=-1).mean(axis=-1)
    corners = [points[..., corner, :2] for corner in OUTER_EYE_CORNERS]
    return gap / np.maximum(np.linalg.norm(corners[0] - corners[1], axis=-1), 1e-9)


def mesh_lip_opening(points: _FloatArray) -> _FloatArray:
    """How far the mouth is open: gap of the inner lips (mean of five pairs of points) over :func:`mesh_eye_distance`.

    Independent of the size of the face, and with three coordinates of the head's pose. The last column of the dataset's
    expression is this, measured in three dimensions.

    Args:
        points: [..., 478, 2 or 3] mesh points, any unit.

    Returns:
        [...] 0 for closed lips, about 0.5 for a wide open mouth.
    """
    upper, lower = (list(side) for side in zip(*_LIP_GAPS, strict=True))
    gap = np.linalg.norm(points[..., upper, :] - points[..., lower, :], axis=-1).mean(axis=-1)
    return gap / np.maximum(mesh_eye_distance(points), 1e-9)
