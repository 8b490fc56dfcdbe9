"""MediaPipe's FaceLandmarker on one image: the largest face's mesh and blendshapes.

It must not know videos, files of a dataset, nor how landmarks are used afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns import model_files
from degstalk_ns.errors import UserError

FACES_LOOKED_FOR: Final[int] = 2
"""One is followed; a second one tells that somebody else is in the picture."""
COMPARABLE_SIZE: Final[float] = 0.5
"""Of several faces, those at least this large relative to the largest may be the one that was followed before.
Origin: chosen for this project."""
SAME_FACE: Final[float] = 0.25
"""Two finds are one face where their centres are nearer than this share of the sum of their boxes' diagonals.
Origin: chosen for this project."""


@dataclass(frozen=True)
class FaceObservation:
    """The largest face of one frame."""

    points: NDArray[np.float64]
    """[478, 3] x (right) and y (down) in pixels, pixel centres at half integers; z away from the camera in about the
    same unit."""
    blendshapes: NDArray[np.float64]
    """[52] activations in [0, 1], in MediaPipe's order (:data:`degstalk_ns.landmarks.blendshapes.BLENDSHAPES`)."""
    second_face_size_ratio: float
    """Size of the second face relative to this one; 0 when there is none."""


class FaceTracker:
    """Context manager around MediaPipe's FaceLandmarker; closes it explicitly (else it prints tracebacks at exit).

    Every frame is detected on its own (IMAGE mode). VIDEO mode with one face would smooth with a causal filter: less
    jitter but about half a frame of lag behind lips and nods, and it never notices a second face; with two faces it
    detects every frame anew, exactly as IMAGE mode does. Smoothing is ours, over whole tracks, where it needs no lag.

    Raises:
        UserError: the model file cannot be had (see :mod:`degstalk_ns.model_files`).
    """

    def __init__(self) -> None:
        self._model = model_files.face_landmarker()
        self._task: Any = None

    def __enter__(self) -> FaceTracker:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(self._model)),
            running_mode=vision.RunningMode.IMAGE,
            num_faces=FACES_LOOKED_FOR,
            output_face_blendshapes=True,
        )
        try:
            self._task = vision.FaceLandmarker.create_from_options(options)
        except OSError as error:  # its library is loaded only now
            raise UserError(
                f"MediaPipe cannot start ({error}); on Debian and Ubuntu: apt-get install libegl1 libgles2"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.close()
            self._task = None

    def observe(self, frame: NDArray[np.uint8], near: NDArray[np.floating] | None = None) -> FaceObservation | None:
        """The face in one frame, or None.

        Args:
            frame: [H, W, 3] uint8 RGB.
            near: [2] pixels, where the face was before: of two faces of comparable size the nearer one is taken.
        """
        if self._task is None:
            raise RuntimeError("FaceTracker.observe() outside of its `with` block")
        import mediapipe as mp

        height, width = frame.shape[:2]
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
        result = self._task.detect(image)
        if not result.face_landmarks:
            return None
        faces = [
            np.array([(p.x, p.y, p.z) for p in face], dtype=np.float64) * (width, height, width)
            for face in result.face_landmarks
        ]
        first, others = _choose(faces, near)
        sizes = [_size(face) for face in faces]
        ratio = max((sizes[i] / sizes[first] for i in others), default=0.0)
        return FaceObservation(
            points=faces[first],
            blendshapes=np.array([b.score for b in result.face_blendshapes[first]], dtype=np.float64),
            second_face_size_ratio=float(ratio),
        )


def _size(face: NDArray[np.float64]) -> float:
    """Diagonal of the face's box, pixels."""
    return float(np.linalg.norm(np.ptp(face[:, :2], axis=0)))


def _choose(faces: list[NDArray[np.float64]], near: NDArray[np.floating] | None) -> tuple[int, list[int]]:
    """Index of the face to follow, and of the other distinct ones (one face may be found twice)."""
    sizes = [_size(face) for face in faces]
    centres = [face[:, :2].mean(axis=0) for face in faces]
    order = sorted(range(len(faces)), key=lambda i: -sizes[i])
    first = order[0]
    if near is not None:
        large = [i for i in order if sizes[i] >= COMPARABLE_SIZE * sizes[first]]
        first = min(large, key=lambda i: float(np.linalg.norm(centres[i] - near)))
    others = [
        i
        for i in order
        if i != first and np.linalg.norm(centres[i] - centres[first]) > SAME_FACE * (sizes[i] + sizes[first])
    ]
    return first, others
