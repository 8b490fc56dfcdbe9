"""One picture a subject: chosen held-out frames as recorded and as each method shows them, mouth and hair enlarged.

The frames are chosen by the recording alone, so no result can choose them. It must not know nerfstudio or avatars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.avatar.boxes import Box
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.files import write_png

_Image = NDArray[np.uint8]
OVER_PLATES: Final[tuple[str, ...]] = ("own", "other")
"""Pictures of a frame: over its own plate, and over that of the training frame most like it."""
SIDE: Final[int] = 256
"""Side of a tile, pixels."""
_HEADING: Final[int] = 28
_MOUTH_MARGIN: Final[float] = 0.35
_HAIR_SIDE: Final[float] = 0.25
"""Side of the part of the picture that shows hair, as a fraction of the picture's height."""


@dataclass(frozen=True)
class Shown:
    """A chosen frame.

    Attributes:
        row: of the recording. truth: [H, W, 3] as recorded. mouth, hair: boxes that are enlarged.
    """

    row: int
    truth: _Image
    mouth: Box
    hair: Box


def picture_path(folder: Path, row: int, kind: str) -> Path:
    """Where a trial keeps its picture of ``row``; ``kind`` is one of :data:`OVER_PLATES`."""
    return folder / "frames" / f"{row:06d}_{kind}.png"


def chosen_rows(recording: Recording) -> list[int]:
    """Rows of two held-out frames: that with the widest mouth, and of the others that with the least usual head
    pose."""
    rows = recording.val.aud_ids
    widest = int(np.argmax(recording.mouth_opening[rows]))
    away = np.linalg.norm(recording.val.c2w[:, :3, 3] - recording.train.c2w[:, :3, 3].mean(0), axis=1)
    away[widest] = -1.0
    turned = int(np.argmax(away))
    return [int(rows[place]) for place in dict.fromkeys([widest, turned])]


def shown_frames(recording: Recording) -> list[Shown]:
    """The chosen frames with what is enlarged of each."""
    images = {row: image for image, row in recording.track_rows.items()}
    shown = []
    for row in chosen_rows(recording):
        frame = read_frame(recording, images[row], what=("image", "masks"))
        shown.append(Shown(row, frame.image, _mouth_box(recording, row), _hair_box(frame.hair)))
    return shown


def _mouth_box(recording: Recording, row: int) -> Box:
    y0, y1, x0, x1 = (int(value) for value in recording.lips_rect[row])
    side = min(round(max(y1 - y0, x1 - x0) * (1 + _MOUTH_MARGIN)), recording.height, recording.width)
    return _square((y0 + y1) // 2, (x0 + x1) // 2, side, (recording.height, recording.width))


def _square(y: int, x: int, side: int, size: tuple[int, int]) -> Box:
    top, left = (min(max(centre - side // 2, 0), limit - side) for centre, limit in zip((y, x), size, strict=True))
    return top, top + side, left, left + side


def _hair_box(hair: NDArray[np.bool_]) -> Box:
    """Where hair has the most border; the middle of the upper edge without hair."""
    height, width = hair.shape
    side = min(max(round(_HAIR_SIDE * height), 1), width)
    edge = cv2.morphologyEx(hair.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(np.float32)
    sums = cv2.boxFilter(edge, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    if not sums.any():
        return _square(0, width // 2, side, (height, width))
    y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return _square(int(y), int(x), side, (height, width))


def figure(shown: Sequence[Shown], folders: Mapping[str, Path]) -> _Image:
    """The picture [H, W, 3]: a column for the recording and one for each method, and four rows for each chosen frame:
    whole, mouth, hair, and hair over another frame's plate.

    Args:
        shown: of :func:`shown_frames`.
        folders: of the trials, by their methods; a picture that is not there is left grey.
    """
    columns = [_heading("recorded"), *(_heading(method) for method in folders)]
    rows = [np.concatenate(columns, 1)]
    for frame in shown:
        pictures = {
            kind: [
                frame.truth,
                *(_read(picture_path(folder, frame.row, kind), frame.truth) for folder in folders.values()),
            ]
            for kind in OVER_PLATES
        }
        whole = (0, frame.truth.shape[0], 0, frame.truth.shape[1])
        for kind, box in (("own", whole), ("own", frame.mouth), ("own", frame.hair), ("other", frame.hair)):
            rows.append(np.concatenate([_tile(image, box) for image in pictures[kind]], 1))
    return np.concatenate(rows, 0)


def save_figure(path: Path, shown: Sequence[Shown], folders: Mapping[str, Path]) -> None:
    """Writes :func:`figure`, whole or not at all."""
    write_png(path, figure(shown, folders))


def _read(path: Path, like: _Image) -> _Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or image.shape != like.shape:
        return np.full_like(like, 128)
    return np.asarray(image[..., ::-1], np.uint8)


def _tile(image: _Image, box: Box) -> _Image:
    part = np.ascontiguousarray(image[box[0] : box[1], box[2] : box[3]])
    scale = SIDE / max(part.shape[:2])
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    drawn = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.full((SIDE, SIDE, 3), 255, np.uint8)
    tile[: drawn.shape[0], : drawn.shape[1]] = drawn
    return tile


def _heading(text: str) -> _Image:
    band = np.full((_HEADING, SIDE, 3), 255, np.uint8)
    cv2.putText(band, text, (4, _HEADING - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return band
