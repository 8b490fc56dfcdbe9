"""Reads and checks the cameras of a dataset: `transforms_train.json` and `transforms_val.json`.

It must not know frames, sound or nerfstudio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.dataparsers.layout import Layout, remedy
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.errors import UserError
from degstalk_ns.reading.json_file import is_number, read_json, shown

MOST_FRAMES: Final[int] = 10_000_000
"""Frames of a recording: 111 hours."""


@dataclass(frozen=True)
class FrameTable:
    """The frames of one split, in order of time.

    Attributes:
        img_ids: [n] int64, number of the frame's files.
        aud_ids: [n] int64, row of the frame in the recording's driving arrays (0..T-1); in a recording that was read,
            equal to ``img_ids``.
        c2w: [n, 4, 4] float32, camera to world, OpenGL axes (x right, y up, looking down -z).
    """

    img_ids: NDArray[np.int64]
    aud_ids: NDArray[np.int64]
    c2w: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.img_ids)


def read_transforms(layout: Layout, options: ReadOptions) -> tuple[dict[str, float], dict[str, FrameTable]]:
    """Camera (focal_len and, where given, cx and cy, full-size pixels) and the tables of "train" and "val"."""
    camera: dict[str, float] = {}
    tables: dict[str, FrameTable] = {}
    for split in ("train", "val"):
        path = layout.transforms(split)
        content = read_json(path, remedy(layout.root))
        if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
            raise UserError(f'{path}: expected an object with "focal_len" and "frames"; {remedy(layout.root)}')
        if not content["frames"]:
            raise UserError(f'{path}: "frames" is empty, expected at least one frame; {remedy(layout.root)}')
        own = {key: _number(content[key], path, key) for key in ("focal_len", "cx", "cy") if key in content}
        if own.get("focal_len", 0.0) <= 0:
            raise UserError(f'{path}: expected a positive "focal_len" in pixels; {remedy(layout.root)}')
        if camera and any(abs(camera.get(key, value) - value) > 1e-3 for key, value in own.items()):
            raise UserError(
                f"{path}: focal_len, cx or cy differ from those of transforms_train.json; both splits share one camera"
            )
        camera = camera or own
        tables[split] = _frame_table(content["frames"], path, options)
        _refuse_twice(tables[split].img_ids, path, "is listed twice")
    both = np.concatenate([table.img_ids for table in tables.values()])
    _refuse_twice(both, layout.transforms("val"), "is a training frame too: what is measured on it means nothing")
    return camera, tables


def _refuse_twice(img_ids: NDArray[np.int64], path: Path, what: str) -> None:
    values, counts = np.unique(img_ids, return_counts=True)
    if (counts > 1).any():
        more = f" (and {int((counts > 1).sum()) - 1} more)" if (counts > 1).sum() > 1 else ""
        raise UserError(f"{path}: frame {int(values[counts > 1][0])}{more} {what}")


def _number(value: Any, path: Path, name: str) -> float:
    if not is_number(value):
        raise UserError(f'{path}: "{name}" must be a finite number, got {shown(value)}')
    return float(value)


def _frame_table(frames: Sequence[Any], path: Path, options: ReadOptions) -> FrameTable:
    img_ids, aud_ids, poses = [], [], []
    for place, frame in enumerate(frames):
        if not isinstance(frame, dict) or "img_id" not in frame or "transform_matrix" not in frame:
            raise UserError(f'{path}: frame entry {place} needs "img_id" and "transform_matrix"')
        img_id, aud_id = frame["img_id"], frame.get("aud_id", frame["img_id"])
        for name, value in (("img_id", img_id), ("aud_id", aud_id)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_FRAMES:
                raise UserError(
                    f'{path}: "{name}" of frame entry {place} must be a whole number from 0 to {MOST_FRAMES - 1}, got '
                    f"{shown(value)}"
                )
        try:
            matrix = np.asarray(frame["transform_matrix"], np.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = np.empty(0)
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
        if matrix.shape != (4, 4):
            raise UserError(f'{path}: "transform_matrix" of img_id {img_id} must be 4 x 4 numbers')
        if not np.isfinite(matrix).all():
            raise UserError(f'{path}: "transform_matrix" of img_id {img_id} holds NaN or infinite values')
        rotation = matrix[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
            raise UserError(
                f'{path}: "transform_matrix" of img_id {img_id} is no rigid motion (its 3 x 3 part is no rotation)'
            )
        img_ids.append(img_id)
        aud_ids.append(aud_id)
        poses.append(matrix)
    order = np.argsort(np.asarray(img_ids), kind="stable")
    c2w = np.stack(poses)[order]
    c2w[:, :3, 3] *= options.scene_scale
    # The origin (the head) in front of an OpenGL camera has negative depth along its z axis.
    if (np.einsum("ni,ni->n", c2w[:, :3, 2], -c2w[:, :3, 3]) > 0).all():
        raise UserError(
            f"{path}: the head (the origin) lies behind every camera; expected camera-to-world matrices with OpenGL "
            "axes (looking down -z)"
        )
    return FrameTable(
        np.asarray(img_ids, np.int64)[order], np.asarray(aud_ids, np.int64)[order], c2w.astype(np.float32)
    )


def trimmed(table: FrameTable, length: int) -> FrameTable:
    keep = (table.aud_ids < length) & (table.img_ids < length)
    return FrameTable(table.img_ids[keep], table.aud_ids[keep], table.c2w[keep])
