"""What a page sees of a frame, drawn by a trained head: each choice against the same layers put together by hand."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from degstalk_ns.animation.animation import Animation
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.compositing import over
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.viewer.display import DisplayOptions
from degstalk_ns.viewer.painter import MOST_SIDE, SMALLEST_SIDE, FreeCamera, Painter, PaintRequest, bounded_side, jpeg
from degstalk_ns.viewer.sliders import controls

FRAME = 5
VISIBLE = 10
"""Grey levels."""


@pytest.fixture(scope="module")
def trained(trained_config: Path) -> DegstalkModel:
    """After so few steps hardly anything of the head is left: it is made larger, half transparent, and its mouth
    small."""
    model = load_run(trained_config).model
    with torch.no_grad():
        for name, size in (("face", 0.02), ("mouth", 0.01)):
            params = model.avatar.region(name).params  # type: ignore[arg-type]
            params["scales"].fill_(math.log(size))
            params["opacities"].fill_(0.5)
        model.avatar.region("mouth").params["means"].mul_(0.3)
    return model


@pytest.fixture
def model(trained: DegstalkModel) -> Iterator[DegstalkModel]:
    yield trained
    trained.config.mouth_dilation = 0.0


@pytest.fixture
def painter(model: DegstalkModel) -> Iterator[Painter]:
    painter = Painter(model, contextlib.nullcontext)
    yield painter
    painter.close()


@pytest.fixture
def recorded(model: DegstalkModel) -> Animation:
    return Animation.from_recording(model.recording, "train")


def _request(side: int = 64, **options: object) -> PaintRequest:
    return PaintRequest(longest_side=side, options=DisplayOptions(**options))  # type: ignore[arg-type]


def _apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


def _bytes(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _behind_hair(image: torch.Tensor, plate: torch.Tensor) -> torch.Tensor:
    """The hair of a plate [H, W, 4] over a picture [H, W, 3]."""
    return plate[..., 3:] * plate[..., :3] + (1 - plate[..., 3:]) * image


def test_a_plain_picture_is_the_frame_over_its_plate(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    row = int(recorded.recorded[FRAME])
    plate = torch.from_numpy(model.frames.plate(row).copy())
    frame = model.frame(model.frames.view(row), recorded.conditions(FRAME), plate).numpy()
    picture = painter.paint(recorded, FRAME, _request())
    np.testing.assert_array_equal(picture, frame)
    assert _apart(picture, plate[..., :3].numpy()) > VISIBLE
    assert painter.paint(recorded, FRAME, _request(32)).shape == (32, 32, 3)


def test_a_mouth_without_the_face_is_dilated_all_the_same(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    """Computed by hand from the layer that is not dilated."""
    row, request = int(recorded.recorded[FRAME]), _request(face=False)
    plain = painter.paint(recorded, FRAME, request)
    mouth = model.regions(model.frames.view(row), recorded.conditions(FRAME)).mouth
    plate = torch.from_numpy(model.frames.plate(row).copy()).float() / 255
    assert _apart(plain, _bytes(_behind_hair(over(mouth.colour, mouth.alpha, plate[..., :3]), plate))) <= 1

    model.config.mouth_dilation = 0.05
    window = 7  # 2 * 0.05 * 64 + 1, rounded to odd
    grown = torch.from_numpy(cv2.dilate(mouth.alpha[..., 0].numpy(), np.ones((window, window)))[..., None])
    colour, alpha = (
        torch.from_numpy(cv2.blur(part.numpy(), (window, window), borderType=cv2.BORDER_CONSTANT)).view(64, 64, -1)
        for part in (mouth.colour, mouth.alpha)
    )
    spread = mouth.colour + (grown - mouth.alpha) * colour / alpha.clamp_min(1e-6)
    picture = painter.paint(recorded, FRAME, request)
    assert _apart(picture, _bytes(_behind_hair(over(spread, grown, plate[..., :3]), plate))) <= 1
    assert _apart(picture, plain) > VISIBLE
    whole = painter.paint(recorded, FRAME, _request())
    assert _apart(whole, painter.paint(recorded, FRAME, _request(face=False, mouth=False))) > VISIBLE


def test_without_both_layers_the_plate_is_left(model: DegstalkModel, painter: Painter, recorded: Animation) -> None:
    row = int(recorded.recorded[FRAME])
    picture = painter.paint(recorded, FRAME, _request(face=False, mouth=False))
    np.testing.assert_array_equal(picture, model.frames.plate(row)[..., :3])


def test_the_hair_of_the_plate_lies_in_front_of_the_face(
    model: DegstalkModel, painter: Painter, recorded: Animation, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate = model.frames.plate(int(recorded.recorded[FRAME]))
    hair = plate[..., 3] == 255
    assert hair.any() and (plate[..., 3] == 0).any()
    pictures = [painter.paint(recorded, FRAME, _request()), painter.paint(recorded, FRAME, _request(mouth=False))]
    monkeypatch.setattr(model.frames, "hair_in_front", False)
    bare = [painter.paint(recorded, FRAME, _request()), painter.paint(recorded, FRAME, _request(mouth=False))]
    for picture, without in zip(pictures, bare, strict=True):  # the fast way, and that of single layers
        assert _apart(picture[hair], plate[hair, :3]) <= 1 and _apart(without[hair], plate[hair, :3]) > VISIBLE
        free = plate[..., 3] == 0
        assert _apart(picture[free], without[free]) <= 1


def test_behind_new_audio_lies_the_freed_plate_and_there_is_no_truth(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    row, bare = int(recorded.recorded[FRAME]), _request(face=False, mouth=False, truth="side by side")
    freed = model.frames.plate(row, freed=True)
    assert (freed != model.frames.plate(row))[..., :3].any()
    np.testing.assert_array_equal(painter.paint(replace(recorded, freed=True), FRAME, bare), freed[..., :3])


def test_the_recorded_frame_stands_beside_the_picture(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    row = int(recorded.recorded[FRAME])
    for side in (64, 32):
        picture = painter.paint(recorded, FRAME, _request(side, truth="side by side"))
        assert picture.shape == (side, 2 * side, 3)
        np.testing.assert_array_equal(picture[:, :side], painter.paint(recorded, FRAME, _request(side)))
        np.testing.assert_array_equal(picture[:, side:], model.frames.truth(row, (side, side)))


def test_a_plain_colour_lies_behind_where_the_plate_is_not_wanted_or_does_not_fit(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    colour = (10, 200, 60)
    unwanted = replace(_request(plate=False), colour=colour)
    c2w = torch.eye(4)[:3]
    c2w[2, 3] = 1.5  # metres in front of the face
    away = FreeCamera(c2w, fov=0.5, aspect=1.5)
    free = replace(_request(48, truth="side by side"), colour=colour, camera=away)
    for request, shape in ((unwanted, (64, 64, 3)), (free, (32, 48, 3))):
        picture = painter.paint(recorded, FRAME, request)
        assert picture.shape == shape
        assert (picture[0, 0] == colour).all() and (picture[-1, -1] == colour).all()
        assert _apart(picture, np.full(shape, colour)) > VISIBLE, "the head is there"


def test_a_narrow_page_still_gets_a_picture(model: DegstalkModel, painter: Painter, recorded: Animation) -> None:
    c2w = model.frames.c2w(int(recorded.recorded[FRAME]))[:3]
    for aspect, shape in ((0.01, (64, 16, 3)), (100.0, (16, 64, 3))):
        request = PaintRequest(64, camera=FreeCamera(c2w, 0.5, aspect))
        assert painter.paint(recorded, FRAME, request).shape == shape


def test_the_free_camera_at_the_recorded_place_sees_the_recorded_head(
    model: DegstalkModel, painter: Painter, recorded: Animation
) -> None:
    fov = 2 * math.atan(model.recording.height / 2 / model.recording.focal)
    camera = FreeCamera(model.frames.c2w(int(recorded.recorded[FRAME]))[:3], fov, 1.0)
    free = painter.paint(recorded, FRAME, PaintRequest(64, camera=camera))
    assert _apart(free, painter.paint(recorded, FRAME, _request(plate=False))) <= 1


def test_sliders_change_what_drives_the_head(
    model: DegstalkModel, painter: Painter, recorded: Animation, monkeypatch: pytest.MonkeyPatch
) -> None:
    lid = controls(torch.from_numpy(model.recording.expression.copy()))[0]
    seen, real = [], model.frame

    def watched(view: View, conditions: Conditions, plate: torch.Tensor) -> torch.Tensor:
        seen.append(conditions)
        return real(view, conditions, plate)

    monkeypatch.setattr(model, "frame", watched)
    painter.paint(recorded, FRAME, replace(_request(), overrides={lid: 0.75}))
    painter.paint(recorded, FRAME, _request())
    changed, usual = seen
    assert torch.equal(usual.eyelids, recorded.conditions(FRAME).eyelids) and usual.eyelids[lid.index] != 0.75
    expected = usual.eyelids.clone()
    expected[lid.index] = 0.75
    assert torch.equal(changed.eyelids, expected) and torch.equal(changed.expression, usual.expression)


@pytest.mark.parametrize(("option", "way"), [({}, "frame"), ({"face": False}, "compose")])
def test_the_training_stands_still_while_it_paints(
    model: DegstalkModel, recorded: Animation, monkeypatch: pytest.MonkeyPatch, option: dict[str, bool], way: str
) -> None:
    lock, held, real = threading.Lock(), [], getattr(model, way)

    def watched(*arguments: object) -> object:
        held.append(lock.locked())
        return real(*arguments)

    monkeypatch.setattr(model, way, watched)
    painter = Painter(model, lambda: lock)
    painter.paint(recorded, FRAME, _request(**option))
    assert held == [True] and not lock.locked()
    painter.close()


def test_plates_are_read_ahead_until_the_page_closes(recorded: Animation, model: DegstalkModel) -> None:
    painter = Painter(model, contextlib.nullcontext)
    painter.prepare(recorded, [FRAME, len(recorded) + 5])
    painter._reader.submit(int).result(30)  # after those before it
    assert int(recorded.recorded[FRAME]) in model.frames._plates["plate"]._kept
    painter.close()
    painter.prepare(recorded, [FRAME + 1])


def test_a_picture_is_sent_as_jpeg(painter: Painter, recorded: Animation) -> None:
    picture = painter.paint(recorded, FRAME, _request())
    sent = cv2.imdecode(np.frombuffer(jpeg(picture), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert sent.shape == picture.shape and np.abs(sent.astype(int) - picture).mean() < 4


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (512, 512),
        (0, SMALLEST_SIDE),
        (-5, SMALLEST_SIDE),
        (1e9, MOST_SIDE),
        (math.nan, MOST_SIDE),
        (math.inf, MOST_SIDE),
    ],
)
def test_a_page_gets_no_larger_picture_than_there_is_memory_for(asked: float, given: int) -> None:
    assert bounded_side(asked) == given
