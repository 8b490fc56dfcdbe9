"""A rendered video beside the recording: which recorded frame each of its frames shows, and the sheet of the worst."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_edits import edit_transforms
from mesh_faces import mesh_face
from video_files import tone, write_video

from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.metrics import comparison
from degstalk_ns.metrics.comparison import compared_video, draw_worst
from degstalk_ns.metrics.worst import MOMENT_CELL, Moment, Pair


class FakeTracker:
    """Sees the same face in every frame."""

    points = mesh_face()

    def __enter__(self) -> FakeTracker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def observe(self, frame: np.ndarray) -> FakeTracker:
        return self


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def recorded_video(path: Path, dataset: Path, images: list[int], edit: dict[int, np.ndarray] | None = None) -> Path:
    """A video of recorded frames, without loss, with other pictures where ``edit`` (by frame) says so."""
    frames = [np.asarray(cv2.imread(str(Layout(dataset).frame(i)))[..., ::-1]) for i in images]
    for number, picture in (edit or {}).items():
        frames[number] = picture
    return write_video(path, list(np.arange(len(frames)) / 25), frames, tone(len(frames) / 25))


@pytest.mark.parametrize("part", ["train", "val", "all"])
def test_a_video_as_long_as_a_part_shows_that_part(
    dataset: Path, recording: Recording, tmp_path: Path, part: str
) -> None:
    train, val = recording.train.img_ids.tolist(), recording.val.img_ids.tolist()
    images = {"train": train, "val": val, "all": train + val}[part]
    compared = compared_video(recorded_video(tmp_path / "a.mkv", dataset, images), dataset)
    assert compared.images == images
    for image, pair in zip(images, compared.pairs(), strict=True):
        frame = read_frame(recording, image)
        np.testing.assert_array_equal(pair.image, frame.image)
        np.testing.assert_array_equal(pair.truth, frame.image)
        np.testing.assert_array_equal(pair.head, frame.head | frame.mouth)


def test_rows_without_a_frame_are_compared_with_the_nearest(dataset_copy: Path, tmp_path: Path) -> None:
    def drop(content: dict[str, Any]) -> None:
        content["frames"] = [frame for frame in content["frames"] if frame["img_id"] not in (7, 8)]

    edit_transforms(dataset_copy, "train", drop)
    compared = compared_video(recorded_video(tmp_path / "a.mkv", dataset_copy, list(range(24))), dataset_copy)
    assert compared.images == [*range(7), 6, 9, *range(9, 24)]


def test_a_video_of_another_length_is_refused_with_the_lengths_that_are_expected(dataset: Path, tmp_path: Path) -> None:
    video = recorded_video(tmp_path / "a.mkv", dataset, list(range(10)))
    with pytest.raises(UserError) as caught:
        compared_video(video, dataset)
    message = str(caught.value)
    assert "\n" not in message and "a.mkv: has 10 frames" in message
    for part in ("held-out part 3", "training part 21", "whole part 24", "degstalk render --track"):
        assert part in message


def test_a_video_of_another_size_is_refused(dataset: Path, tmp_path: Path) -> None:
    wide = [np.zeros((64, 128, 3), np.uint8)] * 24
    video = write_video(tmp_path / "a.mkv", list(np.arange(24) / 25), wide, tone(24 / 25))
    with pytest.raises(UserError, match=r"a\.mkv: is 128 x 64 pixels.* 64 x 64;.*--side-by-side") as caught:
        list(compared_video(video, dataset).pairs())
    assert "\n" not in str(caught.value)


def test_what_is_no_video_or_no_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        compared_video(tmp_path / "a.mkv", dataset)
    video = recorded_video(tmp_path / "a.mkv", dataset, list(range(24)))
    with pytest.raises(UserError, match="nowhere"):
        compared_video(video, tmp_path / "nowhere")


def test_the_sheet_shows_the_planted_fault(
    dataset: Path, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "FaceTracker", FakeTracker)
    drawn: list[tuple[Moment, Pair]] = []
    real = comparison.draw_moments

    def watched(moments: list[tuple[Moment, Pair]]) -> np.ndarray:
        drawn.extend(moments)
        return real(moments)

    monkeypatch.setattr(comparison, "draw_moments", watched)
    frame = read_frame(recording, 9)
    broken = frame.image.copy()
    row = int(np.flatnonzero(frame.head.any(1)).mean())
    left = int(np.flatnonzero(frame.head[row])[0])
    broken[row - 3 : row + 3, left] = 0
    video = recorded_video(tmp_path / "a.mkv", dataset, list(range(24)), {9: broken})
    draw_worst(compared_video(video, dataset), tmp_path / "sheet.png")
    (seam,) = (pair for moment, pair in drawn if moment.criterion == "seam" and moment.frame == 9)
    np.testing.assert_array_equal(seam.image, broken)
    np.testing.assert_array_equal(seam.truth, frame.image)
    (jitter, *_) = (moment for moment, _ in drawn if moment.criterion == "jitter")
    assert jitter.frame == 9
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (len(drawn) * MOMENT_CELL, 4 * MOMENT_CELL, 3) and len(drawn) <= 12
