"""Mouth field: what it computes against the plain formula, where gradients flow, its parameter groups."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.mouth import MouthField, MouthFieldConfig

N, C, L = 30, 9, 16


def field() -> MouthField:
    torch.manual_seed(0)
    made = MouthField(MouthFieldConfig(), C, L)
    with torch.no_grad():
        for parameter in made.encoding.parameters():
            parameter.normal_()
    return made


def conditions(seed: int = 1) -> Conditions:
    random = torch.Generator().manual_seed(seed)
    return Conditions(*(torch.randn(*shape, generator=random) for shape in ((8, C, L), (50,), (2,), (3,))))


def gaussians() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.rand(N, 3, generator=random) * 0.2 - 0.1, torch.randn(N, 32, generator=random)


def test_shapes_and_what_is_left_alone() -> None:
    out = field()(*gaussians(), conditions())
    assert out.offsets.d_means is not None and out.offsets.d_means.shape == (N, 3)
    assert out.offsets.d_scales is None and out.offsets.d_quats is None
    assert out.jaw.shape == (3,)


def test_it_is_the_plain_formula() -> None:
    made, (means, z), given = field(), gaussians(), conditions()

    def run(network: torch.nn.Module, x: Tensor) -> Tensor:
        first, second, third = network.parameters()
        assert [tuple(w.shape) for w in (first, second, third)] == [(32, 100), (32, 32), (3, 32)]
        return F.relu(F.relu(x @ first.t()) @ second.t()) @ third.t()

    joined = torch.cat([made.encoding(means), z, made.audio(given.audio).expand(N, -1)], dim=1)
    out = made(means, z, given)
    assert out.offsets.d_means is not None
    expected = run(made.output_layers, joined) * torch.tensor([0.002, 0.01, 0.002])
    assert torch.allclose(out.offsets.d_means, expected, atol=1e-6)
    assert torch.allclose(out.jaw, run(made.jaw_layers, joined).mean(dim=0), atol=1e-5)


def test_only_audio_drives() -> None:
    made, (means, z), given, other = field(), gaussians(), conditions(), conditions(seed=5)
    base = made(means, z, given)
    silent = made(means, z, Conditions(given.audio, other.expression, other.eyelids, other.jaw))
    heard = made(means, z, Conditions(other.audio, given.expression, given.eyelids, given.jaw))
    assert torch.equal(base.offsets.d_means, silent.offsets.d_means) and torch.equal(base.jaw, silent.jaw)
    assert not torch.equal(base.offsets.d_means, heard.offsets.d_means) and not torch.equal(base.jaw, heard.jaw)


def test_the_jaw_it_predicts_is_that_of_its_networks_whatever_the_jaw_s_size() -> None:
    """The tracked jaw is brought to the size of the prediction, not the other way round."""
    made, (means, z), given = field(), gaussians(), conditions()
    before = made(means, z, given).jaw
    made.standardise_jaw.fit(0.01 * torch.randn(100, 3, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(made(means, z, given).jaw, before)


def test_gradients_of_both_outputs() -> None:
    made, (means, z), given = field(), gaussians(), conditions()
    means.requires_grad_()
    z.requires_grad_()
    out = made(means, z, given)
    assert out.offsets.d_means is not None
    jaw_only = torch.autograd.grad(
        out.jaw.sum(), list(made.output_layers.parameters()), retain_graph=True, allow_unused=True
    )
    assert all(grad is None or (grad == 0).all() for grad in jaw_only), "the jaw loss leaves the offsets' network alone"
    (out.offsets.d_means.square().sum() + out.jaw.square().sum()).backward()
    assert means.grad is not None and (means.grad != 0).any(dim=1).all()
    assert z.grad is not None and (z.grad != 0).any(dim=1).all()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_parameter_groups_hold_every_parameter_once() -> None:
    made = field()
    groups = made.parameter_groups()
    assert set(groups) == {"grids", "networks", "audio_attention"}
    assert sorted(id(p) for g in groups.values() for p in g) == sorted(id(p) for p in made.parameters())


def test_double_precision_and_state_dict() -> None:
    made = field().double()
    means, z = (part.double() for part in gaussians())
    given = Conditions(*(part.double() for part in vars(conditions()).values()))
    assert made(means, z, given).jaw.dtype == torch.float64
    other = MouthField(MouthFieldConfig(), C, L).double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(means, z, given).jaw, made(means, z, given).jaw)


def test_the_expression_drives_beside_the_audio_where_it_is_asked_to_and_the_jaw_stays_heard() -> None:
    torch.manual_seed(0)
    made = MouthField(MouthFieldConfig(expression_features=4), C, L, expression_dim=50)
    with torch.no_grad():
        for parameter in made.encoding.parameters():
            parameter.normal_()
    (means, z), given, other = gaussians(), conditions(), conditions(seed=5)
    base = made(means, z, given)
    smiling = made(means, z, Conditions(given.audio, other.expression, given.eyelids, given.jaw))
    assert base.offsets.d_means is not None and smiling.offsets.d_means is not None
    assert not torch.allclose(base.offsets.d_means, smiling.offsets.d_means)
    assert torch.equal(base.jaw, smiling.jaw)
    # The plain formula: what is seen comes after what is heard.
    assert made.expression is not None
    seen = made.expression(given.expression[None])[0]
    joined = torch.cat([made.encoding(means), z, torch.cat([made.audio(given.audio), seen]).expand(N, -1)], dim=1)
    expected = made.output_layers(joined) * torch.tensor([0.002, 0.01, 0.002])
    torch.testing.assert_close(base.offsets.d_means, expected)
    prepared = made.driven(made.prepared(means, z), given)
    torch.testing.assert_close(prepared.d_means, base.offsets.d_means)
    grouped = [parameter for group in made.parameter_groups().values() for parameter in group]
    assert len(grouped) == len(list(made.parameters())) == len({id(parameter) for parameter in grouped})


def test_values_of_the_upper_face_do_not_move_the_mouth_where_parts_are_kept_apart() -> None:
    names = ("eyeBlinkLeft", "browDownLeft", "gazeLeftX", "jawOpen", "mouthPucker", "unknown")
    torch.manual_seed(0)
    config = MouthFieldConfig(expression_features=4, parts=True)
    made = MouthField(config, C, L, expression_dim=len(names), expression_names=names)
    with torch.no_grad():
        for parameter in made.encoding.parameters():
            parameter.normal_()
    (means, z), given = gaussians(), conditions()
    expression = torch.randn(len(names), requires_grad=True)
    moved = made(means, z, Conditions(given.audio, expression, given.eyelids, given.jaw)).offsets.d_means
    assert moved is not None
    (gradient,) = torch.autograd.grad(moved.square().sum(), expression)
    assert (gradient != 0).tolist() == [False, False, False, True, True, True]
