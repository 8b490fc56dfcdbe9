"""One picture of a dataset for a person to look at: a few frames with everything that was found in them.

It must not know files, nor how anything on it was computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.plates.lengths import whole_pixels

SHEET_ROWS: Final[int] = 6
"""Frames on the sheet."""
CELL: Final[int] = 288
"""Side of a cell, pixels."""
HEADER: Final[int] = 28
"""Height of the line with the columns' names, pixels."""
AXES: Final[NDArray[np.float64]] = np.array([[0, 0, 0], [0.08, 0, 0], [0, 0.08, 0], [0, 0, 0.08]], np.float64)
"""Origin of the head and the ends of its axes, world units (about metres)."""
CHECK: Final[float] = 16 / 512
"""Side of a check behind what is transparent, as a fraction of the frame's height."""
_AXIS_COLOURS: Final = ((255, 60, 60), (60, 220, 60), (70, 120, 255))
_COLUMNS: Final = ("frame", "masks, teeth", "68 landmarks", "pose (x red, y green, z blue)", "torso", "plate")


@dataclass(frozen=True)
class Row:
    """One frame of the sheet; images are [H, W, 3] or [H, W, 4] uint8, positions in pixels.

    Attributes:
        landmarks: [68, 2]. axes: [4, 2] projections of :data:`AXES`. teeth: bool [H, W].
    """

    name: str
    frame: NDArray[np.uint8]
    parsing: NDArray[np.uint8]
    teeth: NDArray[np.bool_]
    landmarks: NDArray[np.floating]
    axes: NDArray[np.floating]
    torso: NDArray[np.uint8]
    plate: NDArray[np.uint8]


def draw(rows: list[Row]) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8: one row a frame, one column a product, names on top."""
    header = np.full((HEADER, CELL * len(_COLUMNS), 3), 32, np.uint8)
    for column, name in enumerate(_COLUMNS):
        _text(header, name, (column * CELL + 6, HEADER - 9))
    return np.vstack([header, *(_row(row) for row in rows)])


def _row(row: Row) -> NDArray[np.uint8]:
    scale = CELL / row.frame.shape[0]
    overlay = cv2.addWeighted(row.frame, 0.5, row.parsing, 0.5, 0)
    overlay[row.teeth] = (255, 255, 0)
    # Checks show through what is transparent.
    y, x = np.indices(row.frame.shape[:2]) // whole_pixels(CHECK, row.frame.shape[0])
    checks = np.where((x + y) % 2, 200, 150).astype(np.uint8)[..., None]
    torso = np.where(row.torso[..., 3:] > 127, row.torso[..., :3], checks)
    cells = [
        cv2.resize(np.ascontiguousarray(image[..., :3]), (CELL, CELL), interpolation=cv2.INTER_AREA)
        for image in (row.frame, overlay, row.frame, row.frame, torso, row.plate)
    ]
    _text(cells[0], row.name, (6, CELL - 8))
    for point in row.landmarks * scale:
        cv2.circle(cells[2], _pixel(point), 1, (0, 255, 0), -1, cv2.LINE_AA)
    if np.isfinite(row.axes).all():
        ends = [_pixel(point * scale) for point in row.axes]
        for end, colour in zip(ends[1:], _AXIS_COLOURS, strict=True):
            cv2.line(cells[3], ends[0], end, colour, 2, cv2.LINE_AA)
    return np.hstack(cells).astype(np.uint8, copy=False)


def _pixel(point: NDArray[np.floating]) -> tuple[int, int]:
    # Far outside is as good as just outside, and drawing takes 16 bits.
    x, y = np.clip(np.round(point), -4 * CELL, 4 * CELL).astype(int).tolist()
    return x, y


def _text(image: NDArray[np.uint8] | cv2.typing.MatLike, text: str, corner: tuple[int, int]) -> None:
    for thickness, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
