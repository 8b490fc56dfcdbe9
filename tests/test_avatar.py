from __future__ import annotations

import pytest
import torch

from degstalk_ns.avatar.avatar import Avatar, AvatarConfig
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions, DrivingTrack
from degstalk_ns.avatar.fields.standardise import Standardise, StandardiseConfig
from degstalk_ns.avatar.gaussians import GaussiansConfig

SIZE = 48


def _avatar() -> Avatar:
    config = AvatarConfig(face=GaussiansConfig(num_points=300), mouth=GaussiansConfig(num_points=200))
    return Avatar(config, audio_channels=6, audio_length=16, expression_dim=50)


def _conditions(seed: int = 0) -> Conditions:
    random = torch.Generator().manual_seed(seed)
    return Conditions(
        torch.randn(8, 6, 16, generator=random),
        torch.rand(50, generator=random),
        torch.rand(2, generator=random),
        torch.rand(3, generator=random),
    )


def _view() -> View:
    c2w = torch.eye(4)
    c2w[2, 3] = 0.7
    return View.from_c2w(c2w, (SIZE, SIZE), (SIZE / 2, SIZE / 2), (SIZE, SIZE))


def test_parameter_groups_hold_every_parameter_once() -> None:
    avatar = _avatar()
    groups = avatar.parameter_groups()
    listed = [id(parameter) for parameters in groups.values() for parameter in parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in avatar.parameters())
    assert {"face_means", "mouth_sh0", "face_field_grids", "mouth_field_audio_attention"} <= set(groups)


def test_render_composes_both_regions_over_the_plate() -> None:
    avatar, view = _avatar(), _view()
    plate = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        picture = avatar.render(view, _conditions(), plate, sh_degree=2)
    f, m = picture.face, picture.mouth
    expected = f.colour + (1 - f.alpha) * (m.colour + (1 - m.alpha) * plate)
    assert torch.allclose(picture.rgb, expected, atol=1e-6)
    assert 0 < float(picture.covered.amax()) <= 1
    free = picture.covered[..., 0] == 0
    assert free.any() and torch.equal(picture.rgb[free], plate[free])
    visible = picture.covered[..., 0] > 0.3
    assert ((picture.depth[..., 0][visible] > 0.5) & (picture.depth[..., 0][visible] < 0.9)).all()


def test_conditions_move_the_regions_only_when_moving() -> None:
    avatar, view = _avatar(), _view()
    for module in (avatar.face_field, avatar.mouth_field):  # fields start near zero; make them speak up
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    plate = torch.ones(SIZE, SIZE, 3)
    with torch.no_grad():
        still = [avatar.render(view, _conditions(seed), plate, 0, moving=False).rgb for seed in (0, 1)]
        moved = [avatar.render(view, _conditions(seed), plate, 0).rgb for seed in (0, 1)]
    assert torch.equal(still[0], still[1])
    assert (moved[0] - moved[1]).abs().amax() > 1e-3


def _track(frames: int = 40) -> DrivingTrack:
    random = torch.Generator().manual_seed(2)
    shapes = ((frames, 16, 6), (frames, 50), (frames, 2), (frames, 3))
    return DrivingTrack(*(torch.rand(shape, generator=random) + 3 for shape in shapes))


def test_driving_signals_are_standardised_as_the_training_frames_say() -> None:
    avatar, track, rows = _avatar(), _track(), torch.arange(30)
    track.eyelids[35:] = 50.0  # not a training frame
    avatar.fit_driving(track, rows)
    face, mouth = avatar.face_field, avatar.mouth_field
    for fitted, values in (
        (face.audio.standardise, track.audio.flatten(0, 1)[: 30 * 16]),
        (mouth.audio.standardise, track.audio.flatten(0, 1)[: 30 * 16]),
        (face.standardise_expression, track.expression[:30]),
        (face.standardise_eyelids, track.eyelids[:30]),
        (mouth.standardise_jaw, track.jaw[:30]),
    ):
        wanted = Standardise(values.shape[1], StandardiseConfig())
        wanted.fit(values)
        assert torch.equal(fitted(values), wanted(values)) and not torch.equal(fitted(values), values)
        assert values.mean() > 3 and abs(float(fitted(values).mean())) < 0.5


def test_standardising_can_be_switched_off() -> None:
    off = AvatarConfig(face=GaussiansConfig(num_points=3), standardise=StandardiseConfig(enabled=False))
    avatar, track = Avatar(off, audio_channels=6, audio_length=16, expression_dim=50), _track()
    avatar.fit_driving(track, torch.arange(30))
    assert torch.equal(avatar.face_field.standardise_expression(track.expression), track.expression)
    assert torch.equal(avatar.mouth_field.audio.standardise(track.audio), track.audio)


def test_attention_and_depth_do_not_shape_the_gaussians_but_attention_is_trained() -> None:
    avatar, view = _avatar(), _view()
    values = torch.rand(300, requires_grad=True)
    render = avatar.render_region("face", view, None, 2, extras=[values], depth=True)
    render.extras.sum().backward()
    assert values.grad is not None and (values.grad > 0).any()
    params = avatar.region("face").params
    for name in ("quats", "scales", "opacities"):
        assert params[name].grad is None or not params[name].grad.any(), name  # type: ignore[union-attr]
    render = avatar.render_region("face", view, None, 2, extras=[values])
    render.colour.sum().backward()
    assert params["scales"].grad is not None and params["scales"].grad.any()


@pytest.mark.parametrize("name", ["face", "mouth"])
def test_extras_are_rendered_like_colours(name: str) -> None:
    avatar, view = _avatar(), _view()
    count = len(avatar.region(name))  # type: ignore[arg-type]
    with torch.no_grad():
        render = avatar.render_region(name, view, None, 0, extras=[torch.ones(count), torch.zeros(count)])  # type: ignore[arg-type]
    assert torch.allclose(render.extras[..., :1], render.alpha, atol=1e-5)
    assert render.extras[..., 1].abs().max() == 0
    key = torch.tensor([0.2, 0.5, 0.7])
    assert torch.allclose(render.over_key(key), render.colour + (1 - render.alpha) * key)
