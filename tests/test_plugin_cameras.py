"""A camera of nerfstudio as a view, and the row of the recording that it shows."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras

from degstalk_ns.animation.animation import recorded_track
from degstalk_ns.animation.frames import FrameSource
from degstalk_ns.dataparsers.recording import FrameTable, Recording, read_recording
from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.plugin.cameras import Moments, view_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


@pytest.fixture
def cameras(dataset: Path) -> Cameras:
    """Those of the training part, as nerfstudio gets them."""
    cameras = TalkingHeadDataParserConfig(data=dataset).setup().get_dataparser_outputs("train").cameras
    assert isinstance(cameras, Cameras)
    return cameras


def _rows(moments: Moments, cameras: Cameras, recording: Recording) -> list[int]:
    return [moments.row(cameras[index], recorded_track(recording)) for index in range(len(cameras))]


def _without_times(cameras: Cameras, moved: float = 0.0) -> Cameras:
    other = copy.deepcopy(cameras)
    other.times = None
    other.camera_to_worlds[..., 0, 3] += moved
    return other


def test_a_camera_is_a_view(recording: Recording, cameras: Cameras) -> None:
    for index in (0, len(cameras) - 1):
        view = view_of(cameras[index], CPU)
        world = np.linalg.inv(recording.train.c2w[index]) * np.array([[1], [-1], [-1], [1]])  # OpenGL to OpenCV
        np.testing.assert_allclose(view.viewmat.numpy(), world, atol=1e-5)
        focal, cx, cy = recording.focal, recording.cx, recording.cy
        np.testing.assert_allclose(view.K.numpy(), [[focal, 0, cx], [0, focal, cy], [0, 0, 1]], rtol=1e-6)
        assert (view.width, view.height) == (recording.width, recording.height)


def test_a_camera_shows_the_moment_of_its_time_wherever_it_stands(recording: Recording, cameras: Cameras) -> None:
    moments = Moments(FrameSource(recording))
    assert _rows(moments, cameras, recording) == recording.train.aud_ids.tolist()
    cameras.camera_to_worlds[..., 0, 3] += 5.0
    assert _rows(moments, cameras, recording) == recording.train.aud_ids.tolist()


def test_a_camera_without_a_time_shows_the_moment_of_its_pose(
    recording: Recording, cameras: Cameras, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = Moments(FrameSource(recording))
    assert _rows(moments, _without_times(cameras), recording) == recording.train.aud_ids.tolist()
    assert capsys.readouterr().out == ""


def test_off_the_recorded_path_it_shows_the_first_frame_and_that_is_said_once(
    recording: Recording, cameras: Cameras, capsys: pytest.CaptureFixture[str]
) -> None:
    def later(table: FrameTable) -> FrameTable:
        return replace(table, img_ids=table.img_ids[3:], aud_ids=table.aud_ids[3:], c2w=table.c2w[3:])

    moments = Moments(FrameSource(replace(recording, train=later(recording.train))))
    assert set(_rows(moments, _without_times(cameras, 5.0), recording)) == {3}, "the first that was kept"
    assert " ".join(capsys.readouterr().out.split()).count("off the recorded path") == 1
    assert _rows(moments, _without_times(cameras)[5:6], recording) == [5], "on the path again"
