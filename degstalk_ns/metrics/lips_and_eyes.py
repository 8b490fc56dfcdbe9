"""How well the face of a rendered frame agrees with the true one: distance of the lips' landmarks, opening of lips and
eyes, depth of blinks.

A number that cannot be computed is None, with a line that says why; never a made-up one. It must not know nerfstudio,
models or datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.avatar.boxes import Box
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.ibug68 import MOUTH_LANDMARKS, NUM_POINTS_68, UPPER_FACE, eye_opening, lip_gap
from degstalk_ns.landmarks.mesh478 import lip_gap_between_eye_corners, to_68

CLOSED_SHARE = 0.5
"""Opening of the eyes, as a fraction of their median opening, below which they are in a blink. Origin: chosen for this
project; squinting and looking down stay above it."""

CLOSED_LIPS = 0.15
"""Opening of the lips, as a fraction of the wide opening (:data:`WIDE_PERCENTILE`), below which they count as closed.
Origin: chosen for this project."""
WIDE_PERCENTILE = 95.0
"""Percentile of the recorded openings that counts as wide open. Origin: chosen for this project."""

Landmarks = NDArray[np.floating]
Detector = Callable[[NDArray[np.uint8]], "Landmarks | None"]
"""RGB uint8 [H, W, 3] -> mesh landmarks [478, 2 or 3] in pixels, or None without a face."""


def lip_landmark_distance(landmarks: Landmarks, target: Landmarks) -> float:
    """LMD: mean distance in pixels over the 20 mouth landmarks, each set after removing its mean (DEGSTalk, table 1).

    Args:
        landmarks, target: [68, 2] x, y in pixels of the 68-landmark convention.
    """
    shapes = []
    for points in (landmarks, target):
        if points.shape != (NUM_POINTS_68, 2):
            raise ValueError(f"expected landmarks [68, 2], got {list(points.shape)}")
        lips = np.asarray(points, np.float64)[MOUTH_LANDMARKS]
        shapes.append(lips - lips.mean(0))
    return float(np.linalg.norm(shapes[0] - shapes[1], axis=-1).mean())


def eye_closing(openings: Sequence[float], true_openings: Sequence[float]) -> tuple[float, int] | None:
    """How far rendered eyes close at blinks, as a share of how far the recorded ones do.

    A frame belongs to a blink where the recorded eyes are open less than half as far as in the median frame.

    Args:
        openings, true_openings: of the eyes, of the same frames in any order
            (:func:`~degstalk_ns.landmarks.ibug68.eye_opening`).

    Returns:
        Mean drop of the rendered opening from all other frames to those of blinks, over the same of the recorded one:
        1 where the head blinks as the person does, 0 where it stares; and how many frames belong to blinks. None
        without any.
    """
    rendered, true = (np.asarray(series, np.float64) for series in (openings, true_openings))
    if rendered.shape != true.shape:
        raise ValueError(f"expected two equally long series, got {len(rendered)} and {len(true)}")
    if not len(true):
        return None
    blink = true < CLOSED_SHARE * np.median(true)
    if not blink.any():
        return None
    rendered_drop, true_drop = (series[~blink].mean() - series[blink].mean() for series in (rendered, true))
    return float(rendered_drop / true_drop), int(blink.sum())


@dataclass(frozen=True)
class LipMovement:
    """How far rendered lips move, compared with the recorded ones of the same frames.

    Attributes:
        slope: of the regression of rendered on recorded openings: 1 where lips move as far as they should.
        spread: standard deviation of the rendered openings over that of the recorded ones.
        shut: frames with closed lips in which the rendered lips are closed too.
        closed: frames in which the recorded lips are closed (:data:`CLOSED_LIPS`).
    """

    slope: float
    spread: float
    shut: int
    closed: int


def lip_movement(openings: Sequence[float], true_openings: Sequence[float], wide: float) -> LipMovement | None:
    """Compares the openings of the lips of rendered frames with those of the recorded ones.

    Args:
        openings, true_openings: of the same frames
            (:func:`~degstalk_ns.landmarks.mesh478.lip_gap_between_eye_corners`).
        wide: recorded opening that counts as wide open (:func:`wide_opening`); "closed" is a fraction of it.

    Returns:
        None with fewer than three frames, or where the recorded lips do not move.
    """
    rendered, true = (np.asarray(series, np.float64) for series in (openings, true_openings))
    if rendered.shape != true.shape:
        raise ValueError(f"expected two equally long series, got {len(rendered)} and {len(true)}")
    if len(true) < 3 or np.ptp(true) <= 0:
        return None
    closed = true < CLOSED_LIPS * wide
    return LipMovement(
        slope=float(((rendered - rendered.mean()) * (true - true.mean())).mean() / true.var()),
        spread=float(rendered.std() / true.std()),
        shut=int((rendered[closed] < CLOSED_LIPS * wide).sum()),
        closed=int(closed.sum()),
    )


def wide_opening(true_openings: Sequence[float]) -> float | None:
    """The recorded opening that counts as wide open: a percentile (:data:`WIDE_PERCENTILE`); None without any."""
    return float(np.percentile(true_openings, WIDE_PERCENTILE)) if len(true_openings) else None


def _as_bytes(image: Tensor | NDArray[Any]) -> NDArray[np.uint8]:
    """[H, W, 3] as RGB uint8; floats are taken as 0..1."""
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8:
        array = (np.clip(array, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(array)


def lmd_availability() -> str | None:
    """None where LMD can be computed, else one line that says why not (no MediaPipe, or its model file is absent)."""
    try:
        from degstalk_ns.landmarks.tracker import FaceTracker
        from degstalk_ns.model_files import face_landmarker

        face_landmarker()
        with FaceTracker():  # its libraries are loaded only when a task is made
            pass
    except (ImportError, UserError) as error:
        return f"LMD is left out: {' '.join(str(error).split())}"
    return None


@dataclass(frozen=True)
class FaceComparison:
    """Lips and eyes of a rendered and a true frame.

    Attributes:
        distance: LMD, pixels.
        opening, true_opening: gap between the lips, pixels (:func:`~degstalk_ns.landmarks.ibug68.lip_gap`).
        relative, true_relative: gap between the lips over the distance of the eye corners
            (:func:`~degstalk_ns.landmarks.mesh478.lip_gap_between_eye_corners`).
        eyes, true_eyes: opening of the eyes (:func:`~degstalk_ns.landmarks.ibug68.eye_opening`).
        upper_box, mouth_box: rows and columns (y0, y1, x0, x1; ends excluded) of eyes and brows, and of the lips, in
            the true frame.
    """

    distance: float
    opening: float
    true_opening: float
    relative: float
    true_relative: float
    eyes: float
    true_eyes: float
    upper_box: Box
    mouth_box: Box


def _box(points: Landmarks, shape: Sequence[int]) -> Box:
    """Around ``points`` [P, 2], within a picture of this shape (rows, columns, ...), at least one pixel large."""
    size = np.array(shape[1::-1])
    low = np.clip(np.floor(points.min(0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(points.max(0)) + 1, low + 1, size).astype(int)
    return int(low[1]), int(high[1]), int(low[0]), int(high[0])


class FaceLandmarks:
    """Compares the lips and eyes of rendered and true frames, with MediaPipe's landmarks.

    Use as a context manager, or call :meth:`close`: MediaPipe's task must be closed before Python ends.
    """

    def __init__(self, detector: Detector | None = None) -> None:
        """``detector``: another landmark detector; MediaPipe's, opened at the first use, where None."""
        self._detector = detector
        self._tracker: Any = None
        self._last: tuple[Any, Landmarks | None] = (None, None)

    def __call__(self, image: Tensor | NDArray[Any], target: Tensor | NDArray[Any]) -> FaceComparison | None:
        """Compare two frames [H, W, 3] (uint8, or float in 0..1); None where a face is not found.

        A ``target`` that is the same object as that of the call before is not searched again.

        Raises:
            UserError: MediaPipe's model file is absent and cannot be fetched.
        """
        if self._last[0] is not target:
            self._last = (target, self._landmarks(_as_bytes(target)))
        found = [self._landmarks(_as_bytes(image)), self._last[1]]
        meshes = [points for points in found if points is not None]
        if len(meshes) < 2:
            return None
        (shape, true_shape), (mesh, true_mesh) = [to_68(mesh) for mesh in meshes], meshes
        return FaceComparison(
            distance=lip_landmark_distance(shape, true_shape),
            opening=float(lip_gap(shape)),
            true_opening=float(lip_gap(true_shape)),
            relative=float(lip_gap_between_eye_corners(mesh)),
            true_relative=float(lip_gap_between_eye_corners(true_mesh)),
            eyes=float(eye_opening(shape)),
            true_eyes=float(eye_opening(true_shape)),
            upper_box=_box(true_shape[[*UPPER_FACE]], target.shape),
            mouth_box=_box(true_shape[MOUTH_LANDMARKS], target.shape),
        )

    def _landmarks(self, image: NDArray[np.uint8]) -> Landmarks | None:
        if self._detector is not None:
            return self._detector(image)
        # Imported here: MediaPipe loads slowly, and the core runs without it.
        from degstalk_ns.landmarks.tracker import FaceTracker

        if self._tracker is None:
            self._tracker = FaceTracker().__enter__()
        seen = self._tracker.observe(image)
        return None if seen is None else seen.points

    def close(self) -> None:
        """Release MediaPipe; safe to call twice."""
        if self._tracker is not None:
            self._tracker.__exit__(None, None, None)
            self._tracker = None

    def __enter__(self) -> FaceLandmarks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
