"""The cameras of a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_edits import edit_transforms, refuses

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import Recording, read_recording


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def test_transforms_missing_invalid_or_empty(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).transforms("val")
    whole = path.read_text()
    for content, part in (
        (whole[:100], "not readable as JSON"),
        ("[1]", '"frames"'),
        ('{"focal_len": 100, "frames": []}', "empty"),
        (whole.replace("focal_len", "focal"), "focal_len"),
        (whole.replace('"focal_len": ', '"focal_len": -'), "focal_len"),
        (whole.replace('"focal_len": ', '"focal_len": 1'), "share one camera"),
    ):
        path.write_text(content)
        refuses(dataset_copy, "transforms_val.json", part)
    path.unlink()
    refuses(dataset_copy, "transforms_val.json: missing", "but no frames, cameras or sound")


def test_bad_poses(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).transforms("train")
    whole = path.read_text()

    def entry(value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda content: content["frames"][4].update(transform_matrix=value)

    eye = np.eye(4)
    for value, part in (
        ((eye * np.nan).tolist(), "of img_id 4 holds NaN"),
        (np.eye(3).tolist(), "4 x 4"),
        ("unit", "4 x 4"),
        ((2 * eye).tolist(), "no rigid motion"),
        (np.diag([1, 1, -1, 1]).tolist(), "no rigid motion"),
    ):
        path.write_text(whole)
        edit_transforms(dataset_copy, "train", entry(value))
        refuses(dataset_copy, "transforms_train.json", part)
    path.write_text(whole)

    def to_opencv(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])).tolist()

    edit_transforms(dataset_copy, "train", to_opencv)
    refuses(dataset_copy, "behind every camera", "OpenGL")
    path.write_text(whole)
    edit_transforms(dataset_copy, "train", lambda content: content["frames"][2].update(img_id="2"))
    refuses(dataset_copy, '"img_id" of frame entry 2')


def test_poses_put_the_head_where_its_mask_is(recording: Recording) -> None:
    for row in range(0, len(recording.train), 5):
        w2c = np.linalg.inv(recording.train.c2w[row].astype(np.float64))
        x, y, z = w2c[:3, 3]
        rows, columns = np.nonzero(read_frame(recording, row, ["masks"]).head)
        u, v = recording.cx + recording.focal * x / -z, recording.cy - recording.focal * y / -z
        assert columns.min() < u < columns.max() and rows.min() < v < rows.max()
