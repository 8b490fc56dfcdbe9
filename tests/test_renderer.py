from __future__ import annotations

import pytest
import torch
from test_avatar import SIZE, _avatar, _conditions, _view

from degstalk_ns.avatar.avatar import Avatar
from degstalk_ns.avatar.renderer import FrameRenderer, _covered_box

TOLERANCE = 1e-5
VISIBLE = 1e-3


@pytest.fixture
def avatar() -> Avatar:
    """Fields that move the Gaussians visibly, and Gaussians of every opacity, so that some hide what is behind."""
    avatar = _avatar()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for field in (avatar.face_field, avatar.mouth_field):
            for parameter in field.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
        for name in ("face", "mouth"):
            params = avatar.region(name).params  # type: ignore[arg-type]
            params["embeddings"].copy_(torch.randn(params["embeddings"].shape, generator=random))
            params["opacities"].copy_(3 * torch.randn(params["opacities"].shape, generator=random))
            params["sh0"].copy_(torch.randn(params["sh0"].shape, generator=random))
            params["shN"].copy_(0.2 * torch.randn(params["shN"].shape, generator=random))
    return avatar


def _plate(channels: int = 3) -> torch.Tensor:
    return torch.rand(SIZE, SIZE, channels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("moving", "overlap"), [(True, 0.0), (False, 0.0), (True, 2.0)])
def test_frames_are_those_of_the_training_path(avatar: Avatar, moving: bool, overlap: float, channels: int) -> None:
    renderer, plate = FrameRenderer(avatar), _plate(channels)
    avatar.plate_overlap = overlap / float(_view().K[0, 0])
    assert avatar.overlap_pixels(_view()) == overlap
    for seed in (0, 1, 0):
        with torch.no_grad():
            truth = avatar.render(_view(), _conditions(seed), plate, 2, moving)
        assert torch.allclose(
            renderer.frame(_view(), _conditions(seed), plate, 2, moving), truth.rgb.clamp(0, 1), atol=TOLERANCE
        )
        pair = renderer.regions(_view(), _conditions(seed), 2, moving)
        assert torch.allclose(pair.covered, truth.covered, atol=TOLERANCE)
        layers = renderer.layers(_view(), _conditions(seed), plate, 2, moving)
        for name in ("rgb", "depth", "audio_attention", "expression_attention"):
            assert torch.allclose(getattr(layers, name), getattr(truth, name), atol=TOLERANCE)


def test_offsets_of_scales_before_softplus_are_those_of_the_training_path(avatar: Avatar) -> None:
    plate, frames = _plate(), {}
    for spaces in (("log", "log"), ("softplus", "log"), ("softplus", "softplus")):
        for name, space in zip(("face", "mouth"), spaces, strict=True):
            avatar.region(name).config.scale_offsets = space  # type: ignore[arg-type,assignment]
        with torch.no_grad():
            truth = avatar.render(_view(), _conditions(0), plate, 2).rgb.clamp(0, 1)
        frames[spaces] = FrameRenderer(avatar).frame(_view(), _conditions(0), plate, 2, True)
        assert torch.allclose(frames[spaces], truth, atol=TOLERANCE)
    assert not torch.allclose(frames["log", "log"], frames["softplus", "log"], atol=TOLERANCE)


def test_without_the_overlap_less_is_covered(avatar: Avatar) -> None:
    renderer = FrameRenderer(avatar)
    whole = renderer.regions(_view(), _conditions(), 2)
    avatar.plate_overlap = 2.0 / float(_view().K[0, 0])
    less = renderer.regions(_view(), _conditions(), 2)
    assert (less.covered <= whole.covered + 1e-6).all() and less.covered.sum() < whole.covered.sum()
    assert torch.allclose(less.face.colour * whole.face.alpha, whole.face.colour * less.face.alpha, atol=1e-6)


@pytest.mark.parametrize("window", [3, 9])
def test_a_dilated_mouth_is_the_same_in_the_fast_frame_and_in_the_layers(avatar: Avatar, window: int) -> None:
    renderer, plate = FrameRenderer(avatar), _plate()
    with torch.no_grad():  # a mouth that ends within the picture
        params = avatar.region("mouth").params
        params["means"].mul_(0.3)
        params["scales"].sub_(1.0)
        layers = avatar.render(_view(), _conditions(), plate, 2, mouth_dilation=window)
    frame = renderer.frame(_view(), _conditions(), plate, 2, mouth_dilation=window)
    assert torch.allclose(frame, layers.rgb.clamp(0, 1), atol=TOLERANCE)
    pair = renderer.regions(_view(), _conditions(), 2, mouth_dilation=window)
    assert torch.allclose(pair.covered, layers.covered, atol=TOLERANCE)
    plain = renderer.regions(_view(), _conditions(), 2)
    assert layers.mouth.alpha.sum() > plain.mouth.alpha.sum() * 1.02
    assert (renderer.frame(_view(), _conditions(), plate, 2) - frame).abs().max() > VISIBLE


def test_hair_in_front_hides_the_head(avatar: Avatar) -> None:
    renderer, plate = FrameRenderer(avatar), _plate(4)
    plate[..., 3] = 0
    plate[:20, :, 3] = 1
    frame = renderer.frame(_view(), _conditions(), plate, 2)
    assert frame.shape == (SIZE, SIZE, 3)
    assert torch.allclose(frame[:20], plate[:20, :, :3], atol=1e-6)
    bare = renderer.frame(_view(), _conditions(), plate[..., :3], 2)
    assert torch.equal(frame[20:], bare[20:]) and (frame[:20] - bare[:20]).abs().max() > VISIBLE


@pytest.mark.parametrize("channels", [3, 4])
def test_bytes_over_a_plate_of_bytes(avatar: Avatar, channels: int) -> None:
    plate = (_plate(channels) * 255).to(torch.uint8)
    before = plate.clone()
    renderer = FrameRenderer(avatar)
    rgb = renderer.frame(_view(), _conditions(), plate, 2)
    truth = renderer.frame(_view(), _conditions(), plate.float() / 255, 2)
    assert rgb.dtype == torch.uint8 and torch.equal(plate, before)
    assert (rgb.float() - truth * 255).abs().max() <= 0.501


def test_the_plate_is_untouched_outside_the_box_and_nothing_is_drawn_there(avatar: Avatar) -> None:
    with torch.no_grad():
        for name in ("face", "mouth"):
            params = avatar.region(name).params  # type: ignore[arg-type]
            params["means"].mul_(0.3)
            params["scales"].sub_(1.0)
    pair = FrameRenderer(avatar).regions(_view(), _conditions(), 2, moving=False)
    for render in (pair.face, pair.mouth):
        y0, y1, x0, x1 = _covered_box(render)
        assert 0 < (y1 - y0) * (x1 - x0) < SIZE * SIZE
        outside = render.alpha.clone()
        assert outside.abs().max() > 0
        outside[y0:y1, x0:x1] = 0
        assert outside.abs().max() == 0


@pytest.mark.parametrize("channels", [3, 4])
def test_a_head_out_of_sight_leaves_the_plate(avatar: Avatar, channels: int) -> None:
    with torch.no_grad():
        for name in ("face", "mouth"):
            avatar.region(name).params["means"].add_(50.0)  # type: ignore[arg-type]
    plate = _plate(channels)
    assert torch.equal(FrameRenderer(avatar).frame(_view(), _conditions(), plate, 0), plate[..., :3])


@pytest.mark.parametrize("group", ["face_means", "mouth_embeddings", "face_sh0", "mouth_opacities", "face_field_grids"])
def test_written_parameters_are_noticed(avatar: Avatar, group: str) -> None:
    renderer = FrameRenderer(avatar)
    before = renderer.frame(_view(), _conditions(), _plate(), 2)
    with torch.no_grad():
        for parameter in avatar.parameter_groups()[group]:
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        truth = avatar.render(_view(), _conditions(), _plate(), 2).rgb.clamp(0, 1)
    after = renderer.frame(_view(), _conditions(), _plate(), 2)
    assert (after - truth).abs().max() < TOLERANCE < VISIBLE < (after - before).abs().max()


def test_steps_of_fused_optimizers_are_noticed_when_told(avatar: Avatar) -> None:
    renderer = FrameRenderer(avatar)
    before = renderer.frame(_view(), _conditions(), _plate(), 2)
    parameters = list(avatar.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    renderer.forget()
    after = renderer.frame(_view(), _conditions(), _plate(), 2)
    with torch.no_grad():
        truth = avatar.render(_view(), _conditions(), _plate(), 2).rgb.clamp(0, 1)
    assert (after - truth).abs().max() < TOLERANCE < VISIBLE < (after - before).abs().max()


def test_what_sees_only_the_place_is_computed_once(avatar: Avatar, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = FrameRenderer(avatar)
    renderer.frame(_view(), _conditions(), _plate(), 2)

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(avatar.face_field, "prepared", refuse)
    monkeypatch.setattr(avatar.mouth_field, "prepared", refuse)
    renderer.frame(_view(), _conditions(1), _plate(), 2)
