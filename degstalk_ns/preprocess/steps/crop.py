"""One fixed square crop around the head for a whole video, and its resize.

It must not know how faces are found: it is given boxes of the face in some frames, and a frame size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CropConfig:
    """Options of the crop around the head. Fractions are relative to the side of the crop unless noted; the values were
    chosen for this project on portrait videos."""

    head_fraction: float = 0.47
    """Height of the head, from the top of the hair to the chin, as a fraction of the crop. The videos used by AD-NeRF,
    DEGSTalk and related methods have 0.45 to 0.5."""
    head_centre: float = 0.42
    """Vertical position of the head centre, as a fraction measured from the top of the crop; the default keeps the
    shoulders in view."""
    margin: float = 0.05
    """Minimum margin between the edge of the crop and the head, at all its positions during the video, as a fraction of
    the crop."""
    head_over_face: float = 1.35
    """Ratio of the height of the whole head to the height of the face landmarks, which span from hairline to chin."""
    width_over_face: float = 1.35
    """Ratio of the width of the head, including ears and hair, to the width of the face landmarks."""
    square_tolerance: float = 0.02
    """Relative difference of width and height below which a video is treated as square."""
    headshot_fraction: float = 0.30
    """Fraction of the height of a square video that the face landmarks must cover for the video to be used without
    cropping."""
    every_seconds: float = 0.5
    """Interval, in seconds, at which a first pass over the video searches for the face to place the crop."""


@dataclass(frozen=True)
class Crop:
    """A square of ``side`` pixels whose top left corner is (``x``, ``y``) in the upright source frame."""

    x: int
    y: int
    side: int

    def apply(self, frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3] uint8 -> RGB [size, size, 3] uint8."""
        square = frame[self.y : self.y + self.side, self.x : self.x + self.side]
        if self.side == size:
            return np.ascontiguousarray(square)
        # Averaging when shrinking keeps fine hair from aliasing; a wider kernel when enlarging keeps edges.
        kind = cv2.INTER_AREA if self.side > size else cv2.INTER_CUBIC
        return cv2.resize(square, (size, size), interpolation=kind).astype(np.uint8, copy=False)


def plan(faces: NDArray[np.float32], width: int, height: int, config: CropConfig | None = None) -> Crop:
    """Choose the crop for a whole video.

    Args:
        faces: [K, 4] boxes (x0, y0, x1, y1) of the face's landmarks in K sampled frames, pixels; K >= 1.
        width, height: of the source frame, pixels.

    Returns:
        A square inside the frame (never padded). If the source is smaller than the wanted square, the largest one.
    """
    config = config or CropConfig()
    largest = min(width, height)
    face_height = float(np.median(faces[:, 3] - faces[:, 1]))
    square = abs(width - height) <= config.square_tolerance * largest
    if square and face_height >= config.headshot_fraction * largest:
        return Crop((width - largest) // 2, (height - largest) // 2, largest)

    heads = _heads(faces, config)
    left, top, right, bottom = heads[:, 0].min(), heads[:, 1].min(), heads[:, 2].max(), heads[:, 3].max()
    room = 1 - 2 * config.margin
    head_height = float(np.median(heads[:, 3] - heads[:, 1]))
    wanted = max(head_height / config.head_fraction, (right - left) / room, (bottom - top) / room)
    side = min(int(np.ceil(wanted)), largest)

    margin = config.margin * side
    x = (left + right) / 2 - side / 2
    y = float(np.median(heads[:, 1] + heads[:, 3])) / 2 - config.head_centre * side
    # The whole range of motion goes before the framing: the top (hair) before the bottom, which is only the chin.
    y = min(max(y, bottom + margin - side), top - margin)
    return Crop(
        x=int(np.clip(round(float(x)), 0, width - side)), y=int(np.clip(round(float(y)), 0, height - side)), side=side
    )


def _heads(faces: NDArray[np.float32], config: CropConfig) -> NDArray[np.float32]:
    """Boxes of whole heads from boxes of faces: taller by the hair, wider by ears and hair; the chin stays."""
    heads = faces.astype(np.float32).copy()
    heads[:, 1] = faces[:, 3] - (faces[:, 3] - faces[:, 1]) * config.head_over_face
    grow = (faces[:, 2] - faces[:, 0]) * (config.width_over_face - 1) / 2
    heads[:, 0] -= grow
    heads[:, 2] += grow
    return heads
