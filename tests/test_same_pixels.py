"""One frame, one picture: the viewer, an exported video, the evaluation and `ns-render` show the same pixels."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mediapy
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils import colormaps

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.frames import resized
from degstalk_ns.export.render import render_frames
from degstalk_ns.files import read_rgb
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.viewer.display import DisplayOptions
from degstalk_ns.viewer.painter import Painter, PaintRequest

DILATION = 0.05
VISIBLE = 10
"""Grey levels."""


@pytest.fixture(scope="module")
def trained(trained_config: Path) -> TrainedAvatar:
    """After so few steps hardly anything of the head is left: it is made larger and half transparent."""
    run = load_run(trained_config)
    with torch.no_grad():
        for name, size in (("face", 0.015), ("mouth", 0.008)):
            params = run.model.avatar.region(name).params  # type: ignore[arg-type]
            params["scales"].fill_(math.log(size))
            params["opacities"].fill_(0.5)
            params["means"].mul_(0.5)
    return run


@pytest.fixture(params=[0.0, DILATION], ids=["plain", "dilated"])
def run(trained: TrainedAvatar, request: pytest.FixtureRequest) -> Iterator[TrainedAvatar]:
    trained.model.config.mouth_dilation = request.param
    yield trained
    trained.model.config.mouth_dilation = 0.0


def _cameras(run: TrainedAvatar, side: int) -> Cameras:
    """Of the evaluation, for frames of ``side`` pixels."""
    manager = run.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManager)
    cameras = copy.deepcopy(manager.eval_dataset.cameras)
    cameras.rescale_output_resolution(side / 64)
    return cameras


def _by_the_viewer(model: DegstalkModel, animation: Animation, number: int, side: int) -> np.ndarray:
    painter = Painter(model, contextlib.nullcontext)
    options = DisplayOptions(truth="side by side")
    both = painter.paint(animation, number, PaintRequest(longest_side=side, options=options))
    painter.close()
    truth = model.frames.truth(int(animation.recorded[number]))
    np.testing.assert_array_equal(both[:, side:], resized(truth, (side, side)))
    return both[:, :side]


def _as_written(rgb: torch.Tensor, path: Path) -> np.ndarray:
    """As `ns-render dataset` writes the output and anyone reads it."""
    mediapy.write_image(path, colormaps.apply_colormap(rgb).cpu().numpy(), fmt="png")
    return read_rgb(path)


@pytest.mark.parametrize("side", [64, 32])
def test_all_ways_show_the_same_pixels(run: TrainedAvatar, side: int, tmp_path: Path) -> None:
    model, animation = run.model, Animation.from_recording(run.recording, "val")
    cameras = _cameras(run, side)
    views = [model.frames.view(int(row), (side, side)) for row in animation.recorded]
    exported = list(render_frames(run, animation if side == 64 else replace(animation, views=views)))
    assert len(exported) == len(cameras) > 1
    for number, picture in enumerate(exported):
        plate = model.frames.plate(int(animation.recorded[number]), (side, side))
        assert np.abs(picture.astype(int) - plate[..., :3]).max() > VISIBLE, "the head is there"
        hair = plate[..., 3] == 255
        assert hair.any() and np.abs(picture[hair].astype(int) - plate[hair, :3]).max() <= 1, "but behind the hair"
        outputs = model.get_outputs_for_camera(cameras[number : number + 1])
        evaluated = (outputs["rgb"] * 255 + 0.5).to(torch.uint8).numpy()
        np.testing.assert_array_equal(picture, _by_the_viewer(model, animation, number, side))
        np.testing.assert_array_equal(picture, evaluated)
        np.testing.assert_array_equal(picture, _as_written(outputs["rgb"], tmp_path / "0.png"))


@pytest.mark.parametrize("side", [64, 32])
def test_the_dilation_can_be_seen(trained: TrainedAvatar, side: int) -> None:
    model, animation = trained.model, Animation.from_recording(trained.recording, "val")
    view = model.frames.view(int(animation.recorded[1]), (side, side))
    both = []
    for dilation in (0.0, DILATION):
        model.config.mouth_dilation = dilation
        both.append(next(render_frames(trained, replace(animation, views=[view] * len(animation)), 1, 2)))
    model.config.mouth_dilation = 0.0
    assert np.abs(both[0].astype(int) - both[1]).max() > VISIBLE
