"""Blendshapes of a tracked face as the driving signals that the dataset stores.

Expression, jaw and eyelid parameters (`3dmm.npz`) and action units (`au.csv`). It must not know MediaPipe's code,
images nor files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures

BLENDSHAPES: Final[tuple[str, ...]] = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft"),
    *("eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft"),
    *("eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft"),
    *("jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft"),
    *("mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""The 52 blendshapes in the order of MediaPipe's FaceLandmarker."""

_APART: Final = ("_neutral", "eyeBlinkLeft", "eyeBlinkRight")
EXPRESSION_NAMES: Final[tuple[str, ...]] = (*(name for name in BLENDSHAPES if name not in _APART), "innerLipOpening")
"""Names of the 50 expression values that blendshapes tell: 49 of them in MediaPipe's order, then the measured
inner-lip opening."""
_BROWS: Final = "brow"
"""Beginning of the names of the blendshapes that are left out where the brows are measured."""
TRACKED_NAMES: Final[tuple[str, ...]] = (
    *(name for name in EXPRESSION_NAMES if not name.startswith(_BROWS)),
    *MEASURE_NAMES,
)
"""Names of the 62 expression values of a tracked face. What is measured on its brows stands instead of their
blendshapes, which a field would believe too."""
JAW_NAMES: Final[tuple[str, ...]] = ("jawOpen", "jawRight-jawLeft", "jawForward")
EYELID_NAMES: Final[tuple[str, ...]] = ("eyeBlinkLeft", "eyeBlinkRight")

ACTION_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "AU01_r": ("browInnerUp",),  # inner brow raiser
    "AU02_r": ("browOuterUpLeft", "browOuterUpRight"),  # outer brow raiser
    "AU04_r": ("browDownLeft", "browDownRight"),  # brow lowerer
    "AU05_r": ("eyeWideLeft", "eyeWideRight"),  # upper lid raiser
    "AU06_r": ("cheekSquintLeft", "cheekSquintRight"),  # cheek raiser; MediaPipe's model leaves it near 0
    "AU07_r": ("eyeSquintLeft", "eyeSquintRight"),  # lid tightener
    "AU09_r": ("noseSneerLeft", "noseSneerRight"),  # nose wrinkler
    "AU10_r": ("mouthUpperUpLeft", "mouthUpperUpRight"),  # upper lip raiser
    "AU12_r": ("mouthSmileLeft", "mouthSmileRight"),  # lip corner puller
    "AU14_r": ("mouthDimpleLeft", "mouthDimpleRight"),  # dimpler
    "AU15_r": ("mouthFrownLeft", "mouthFrownRight"),  # lip corner depressor
    "AU17_r": ("mouthShrugLower",),  # chin raiser
    "AU20_r": ("mouthStretchLeft", "mouthStretchRight"),  # lip stretcher
    "AU23_r": ("mouthPressLeft", "mouthPressRight"),  # lip tightener
    "AU25_r": (),  # lips part: measured, see au_table()
    "AU26_r": ("jawOpen",),  # jaw drop
    "AU45_r": ("eyeBlinkLeft", "eyeBlinkRight"),  # blink
}
"""Blendshapes whose mean stands for each action unit, by the shared FACS description of the movement."""

AU_RANGE: Final = 5.0
"""OpenFace's intensities run from 0 to 5."""
WIDE_OPEN: Final = 0.5
"""Inner-lip opening, in distances between the eyes, that counts as intensity 5 of AU25."""


@dataclass(frozen=True)
class Expression:
    """Driving signals of T frames, float32, as `3dmm.npz` stores them."""

    expression_params: NDArray[np.float32]
    """[T, E] in the order of ``names``: blendshapes in [0, 1], lip opening from 0 to about 0.5, and what was measured
    on the mesh."""
    jaw_params: NDArray[np.float32]
    """[T, 3] jawOpen [0, 1], jawRight - jawLeft [-1, 1], jawForward [0, 1]."""
    eyelid_params: NDArray[np.float32]
    """[T, 2] eyeBlinkLeft, eyeBlinkRight in [0, 1], 1 is closed."""
    names: tuple[str, ...] = EXPRESSION_NAMES
    """Of the E expression values."""


def expression(
    blendshapes: NDArray[np.floating], points: NDArray[np.floating], brows: NDArray[np.floating] | None = None
) -> Expression:
    """Driving signals from the blendshapes and landmarks of a track.

    ``expression_params`` are 62 numbers: the 52 blendshapes without ``_neutral``, those of the brows and the two eye
    blinks (which become ``eyelid_params``), in MediaPipe's order; the opening of the inner lips over the distance
    between the eyes, measured on the landmarks in 3D, so free of the head's pose and size; and the measures of
    :func:`~degstalk_ns.landmarks.measures.face_measures`.

    Args:
        blendshapes: [T, 52] in [0, 1], order :data:`BLENDSHAPES`.
        points: [T, 478, 3] landmarks, pixels.
        brows: [T, 4] how far brows are raised in the picture, if that is known, over the distance between the eyes.

    Raises:
        UserError: other shapes, lengths that differ, or values that are not finite.
    """
    blendshapes = _blendshapes(blendshapes)
    points = np.asarray(points)
    if points.shape != (len(blendshapes), lm.NUM_POINTS, 3):
        raise UserError(
            f"expression: expected landmarks [{len(blendshapes)}, {lm.NUM_POINTS}, 3], found {list(points.shape)}; "
            "run the tracking again"
        )
    if not np.isfinite(points).all():
        raise UserError("expression: landmarks are not finite; run the tracking again")
    return driving_signals(blendshapes, lm.mesh_lip_opening(points), face_measures(points, brows))


def driving_signals(
    blendshapes: NDArray[np.floating], opening: NDArray[np.floating], measures: NDArray[np.floating] | None = None
) -> Expression:
    """:func:`expression` where the opening of the inner lips [T] is known already (over the distance of the eyes), and
    the measures [T, 17] are too; without them the brows are told by their blendshapes (50 values)."""
    blendshapes = _blendshapes(blendshapes)
    names = EXPRESSION_NAMES if measures is None else TRACKED_NAMES
    values = {name: _column(blendshapes, name) for name in BLENDSHAPES} | {"innerLipOpening": np.asarray(opening)}
    if measures is not None:
        values |= dict(zip(MEASURE_NAMES, np.asarray(measures).T, strict=True))
    jaw = [
        _column(blendshapes, "jawOpen"),
        _column(blendshapes, "jawRight") - _column(blendshapes, "jawLeft"),
        _column(blendshapes, "jawForward"),
    ]
    eyelids = [_column(blendshapes, name) for name in EYELID_NAMES]
    return Expression(
        expression_params=np.stack([values[name] for name in names], axis=1).astype(np.float32),
        jaw_params=np.stack(jaw, axis=1).astype(np.float32),
        eyelid_params=np.stack(eyelids, axis=1).astype(np.float32),
        names=names,
    )


def au_table(
    blendshapes: NDArray[np.floating],
    points: NDArray[np.floating],
    valid: NDArray[np.bool_],
    frame_rate: float = 25.0,
) -> dict[str, NDArray[np.floating]]:
    """Action units in OpenFace's columns, from blendshapes.

    Each intensity is 5 times the mean of the blendshapes that describe the same movement in FACS
    (:data:`ACTION_UNITS`), except AU25 (lips part), which no single blendshape tells: 5 times the measured inner-lip
    opening over that of a wide open mouth. They follow OpenFace's in kind, not in calibration.

    Args:
        blendshapes: [T, 52] in [0, 1].
        points: [T, 478, 3] landmarks, pixels.
        valid: [T] bool, frames in which the face was found.
        frame_rate: frames per second.

    Returns:
        Columns in file order: frame (from 1, as OpenFace counts), timestamp [s], confidence, success, AU01_r ... AU45_r
        in [0, 5]; each [T].
    """
    return action_units(blendshapes, lm.mesh_lip_opening(np.asarray(points)), valid, frame_rate)


def action_units(
    blendshapes: NDArray[np.floating],
    opening: NDArray[np.floating],
    valid: NDArray[np.bool_],
    frame_rate: float = 25.0,
) -> dict[str, NDArray[np.floating]]:
    """:func:`au_table` where the opening of the inner lips [T] is known already (over the distance of the eyes)."""
    blendshapes = _blendshapes(blendshapes)
    T = len(blendshapes)
    table: dict[str, NDArray[np.floating]] = {
        "frame": np.arange(1.0, T + 1.0),
        "timestamp": np.arange(T) / frame_rate,
        "confidence": np.asarray(valid, dtype=np.float64),
        "success": np.asarray(valid, dtype=np.float64),
    }
    for unit, names in ACTION_UNITS.items():
        if names:
            level = np.mean([_column(blendshapes, name) for name in names], axis=0)
        else:
            level = np.asarray(opening) / WIDE_OPEN
        table[unit] = AU_RANGE * np.clip(level, 0.0, 1.0)
    return table


def _blendshapes(values: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(BLENDSHAPES):
        raise UserError(
            f"expression: expected blendshapes [T, {len(BLENDSHAPES)}], found {list(values.shape)}; run the tracking "
            "again"
        )
    if not np.isfinite(values).all():
        raise UserError("expression: blendshapes are not finite; run the tracking again")
    return values


def _column(blendshapes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    return blendshapes[:, BLENDSHAPES.index(name)]
