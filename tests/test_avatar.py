from __future__ import annotations

import pytest
import torch

from degstalk_ns.avatar.avatar import Avatar, AvatarConfig
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions
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
