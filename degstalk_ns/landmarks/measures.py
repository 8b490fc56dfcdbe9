"""Measures of a tracked face that its blendshapes do not tell: where brows, gaze, lips and chin are on the mesh.

Blendshapes are what a network takes an expression for: two moments with the same ones can have their brows apart by
more than those usually move (measured on a recording with strong expressions: of the movement of its brows in frames
that a linear fit had not seen, the blendshapes explained nearly nothing). The mesh follows the picture, but for brows
that are raised far: see ``brows``. Points in, series of numbers out. It must know neither MediaPipe's code nor images
nor files.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.brows import BROW_NAMES

_Points = NDArray[np.floating]
_ON_BROW: Final = {"Outer": 0, "Middle": 2, "Inner": 4}
"""Points of a brow that are measured, by their place in :data:`degstalk_ns.landmarks.mesh478.RIGHT_BROW` and in the
reverse of the left one."""

MEASURE_NAMES: Final[tuple[str, ...]] = (
    *(f"brow{side}{part}" for side in ("Right", "Left") for part in _ON_BROW),
    *("gazeRightX", "gazeRightY", "gazeLeftX", "gazeLeftY"),
    *("mouthCornerRight", "mouthCornerLeft", "mouthWidth", "mouthUpperLip", "mouthLowerLip", "jawDrop", "jawSide"),
)
"""Names of the measures. Those of the mouth begin like its blendshapes."""


def face_measures(points: _Points, brows: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """The measures of T faces, all over the distance between the eyes, so free of the size of the face; in three
    dimensions, so nearly free of its pose.

    Brows: distance of three points of each from the centre of its eye. Gaze: offset of the centre of each iris from
    that of its eye, towards the subject's left (X) and downwards (Y). Mouth: distance of each corner from the centre of
    the eye above it, distance of the corners from each other, and of both lips' inner edges from below the nose. Jaw:
    distance of the chin from below the nose, and how much nearer it is to the left ear than to the right one.

    Args:
        points: [T, 478, 3] mesh points, any unit.
        brows: [T, 4] how far brows are raised in the picture (:func:`~degstalk_ns.landmarks.brows.brow_heights`), over
            the distance between the eyes; it stands instead of what the mesh tells of them, but for columns of NaN.

    Returns:
        [T, 17] in the order of :data:`MEASURE_NAMES`.
    """
    points = np.asarray(points, np.float64)
    unit = np.maximum(lm.mesh_eye_distance(points), 1e-9)
    centres = {
        "Right": points[:, list(lm.RIGHT_EYE_CORNERS)].mean(1),
        "Left": points[:, list(lm.LEFT_EYE_CORNERS)].mean(1),
    }
    across = _normalised(centres["Left"] - centres["Right"])
    down = points[:, lm.BELOW_NOSE] - (centres["Left"] + centres["Right"]) / 2
    down = _normalised(down - (down * across).sum(-1, keepdims=True) * across)

    def apart(a: _Points, b: _Points) -> _Points:
        return np.linalg.norm(a - b, axis=-1)

    measures: list[_Points] = []
    for side, brow in (("Right", lm.RIGHT_BROW), ("Left", lm.LEFT_BROW[::-1])):
        measures += [apart(points[:, brow[place]], centres[side]) for place in _ON_BROW.values()]
    for side, iris in (("Right", lm.RIGHT_IRIS), ("Left", lm.LEFT_IRIS)):
        away = points[:, iris] - centres[side]
        measures += [(away * axis).sum(-1) for axis in (across, down)]
    right, left = (points[:, corner] for corner in lm.MOUTH_CORNERS)
    measures += [apart(right, centres["Right"]), apart(left, centres["Left"]), apart(right, left)]
    measures += [apart(points[:, place], points[:, lm.BELOW_NOSE]) for place in (*lm.INNER_LIPS_MIDDLE, lm.CHIN)]
    to_right, to_left = (apart(points[:, lm.CHIN], points[:, ear]) for ear in lm.BESIDE_EARS)
    measures.append(to_right - to_left)
    table = np.stack(measures, axis=1) / unit[:, None]
    if brows is not None:
        for name, raised in zip(BROW_NAMES, np.asarray(brows, np.float64).T, strict=True):
            if np.isfinite(raised).all():
                column = MEASURE_NAMES.index(name)
                table[:, column] = np.median(table[:, column]) + raised
    return table


def _normalised(vectors: _Points) -> _Points:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
