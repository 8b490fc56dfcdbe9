"""Face field: what it computes against the plain formula, where gradients flow, its parameter groups."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.face import FaceField, FaceFieldConfig, FaceOutput
from degstalk_ns.errors import UserError

N, C, L, E = 40, 9, 16, 50


def field() -> FaceField:
    torch.manual_seed(0)
    made = FaceField(FaceFieldConfig(), C, L, E)
    with torch.no_grad():
        for parameter in made.encoding.parameters():
            parameter.normal_()
    return made


def conditions(seed: int = 1, length: int = L, channels: int = C) -> Conditions:
    random = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*shape, generator=random) for shape in ((8, channels, length), (E,), (2,), (3,))]
    return Conditions(*parts)


def gaussians() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.rand(N, 3, generator=random) * 0.2 - 0.1, torch.randn(N, 32, generator=random)


def parts(out: FaceOutput) -> list[Tensor]:
    assert out.offsets.d_means is not None and out.offsets.d_scales is not None and out.offsets.d_quats is not None
    return [
        out.offsets.d_means,
        out.offsets.d_scales,
        out.offsets.d_quats,
        out.audio_attention,
        out.expression_attention,
    ]


def test_shapes() -> None:
    out = field()(*gaussians(), conditions())
    assert [tuple(part.shape) for part in parts(out)] == [(N, 3), (N, 3), (N, 4), (N,), (N,)]
    assert (out.audio_attention >= 0).all() and (out.expression_attention >= 0).all()


def test_networks_have_the_method_s_widths_and_no_biases() -> None:
    made = field()
    networks = {
        "expression": [50, 16, 14],
        "audio_channel_attention": [68, 32, 32],
        "expression_channel_attention": [68, 16, 16],
        "output_layers": [68 + 32 + 16, 64, 64, 11],
    }
    for name, widths in networks.items():
        parameters = dict(getattr(made, name).named_parameters())
        assert [tuple(p.shape) for p in parameters.values()] == list(zip(widths[1:], widths, strict=False)), name
        assert all(key.endswith("weight") for key in parameters)


def test_it_is_the_plain_formula() -> None:
    made, (means, z), given = field(), gaussians(), conditions()

    def run(network: torch.nn.Module, x: Tensor) -> Tensor:
        first, *rest = list(network.parameters())
        x = x @ first.t()
        for weight in rest:
            x = F.relu(x) @ weight.t()
        return x

    where = torch.cat([made.encoding(means), z], dim=1)
    audio = made.audio(given.audio).expand(N, -1)
    expression = torch.cat([run(made.expression, given.expression), given.eyelids]).expand(N, -1)
    audio_gate = run(made.audio_channel_attention, where)
    expression_gate = F.relu(run(made.expression_channel_attention, where))
    out = run(made.output_layers, torch.cat([where, audio_gate * audio, expression_gate * expression], dim=1))
    expected = [out[:, :3] * 0.01, out[:, 8:], out[:, 3:7], audio_gate.norm(dim=1), expression_gate.norm(dim=1)]
    for a, b in zip(parts(made(means, z, given)), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_audio_expression_and_eyelids_drive_and_the_jaw_does_not() -> None:
    made, (means, z), given = field(), gaussians(), conditions()
    base = made(means, z, given).offsets.d_means
    other = conditions(seed=5)
    for name in ("audio", "expression", "eyelids", "jaw"):
        changed = Conditions(**{**vars(given), name: getattr(other, name)})
        moved = made(means, z, changed).offsets.d_means
        assert torch.equal(base, moved) == (name == "jaw"), name


def test_expression_and_eyelids_are_standardised_before_the_networks_see_them() -> None:
    plain, fitted, given = field(), field(), conditions()
    random = torch.Generator().manual_seed(3)
    fitted.standardise_expression.fit(0.02 * torch.randn(500, E, generator=random))
    fitted.standardise_eyelids.fit(torch.rand(500, 2, generator=random))
    expression = fitted.standardise_expression(given.expression)
    eyelids = fitted.standardise_eyelids(given.eyelids)
    assert (expression - given.expression).abs().min() > 0 and (eyelids - given.eyelids).abs().min() > 0
    standard = Conditions(given.audio, expression, eyelids, given.jaw)
    for wanted, found in zip(parts(plain(*gaussians(), standard)), parts(fitted(*gaussians(), given)), strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradients_reach_what_they_should() -> None:
    made, (means, z), given = field(), gaussians(), conditions()
    means.requires_grad_()
    z.requires_grad_()
    sum(part.square().sum() for part in parts(made(means, z, given))).backward()  # type: ignore[union-attr]
    assert means.grad is not None and (means.grad != 0).any(dim=1).all()
    assert z.grad is not None and (z.grad != 0).any(dim=1).all()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name
    unused = made.output_layers.layers[-1].weight.grad[7]  # type: ignore[union-attr,index]
    assert (unused == 0).all(), "the predicted opacity is not used"
    attention_only = made(means.detach(), z.detach(), given).audio_attention.sum()
    grads = torch.autograd.grad(attention_only, list(made.audio.parameters()), allow_unused=True)
    assert all(grad is None for grad in grads), "attention does not depend on what is heard"


def test_a_fresh_field_hardly_moves_anything_and_has_finite_gradients() -> None:
    torch.manual_seed(0)
    made = FaceField(FaceFieldConfig(), C, L, E)
    means = gaussians()[0].requires_grad_()
    z = torch.zeros(N, 32, requires_grad=True)
    out = made(means, z, conditions())
    for part in parts(out)[:3]:
        assert part.abs().max() < 1e-2
    sum(part.sum() for part in parts(out)).backward()  # type: ignore[union-attr]
    assert means.grad is not None and means.grad.isfinite().all()
    assert z.grad is not None and z.grad.isfinite().all()


def test_parameter_groups_hold_every_parameter_once() -> None:
    made = field()
    groups = made.parameter_groups()
    assert set(groups) == {"grids", "networks", "audio_attention"}
    listed = [id(p) for group in groups.values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in made.parameters())
    assert [id(p) for p in groups["grids"]] == [id(p) for p in made.encoding.parameters()]
    assert len(groups["audio_attention"]) == 12


def test_hubert_windows_work_and_wrong_ones_are_refused() -> None:
    torch.manual_seed(0)
    made = FaceField(FaceFieldConfig(), 1024, 2, E)
    out = made(*gaussians(), conditions(length=2, channels=1024))
    assert all(part.isfinite().all() for part in parts(out))
    with pytest.raises(ValueError, match="audio windows"):
        made(*gaussians(), conditions())


def test_a_checkpoint_without_statistics_is_refused() -> None:
    made = field()
    state = made.state_dict()
    made.load_state_dict(state)
    old = {key: value for key, value in state.items() if "standardise" not in key}
    with pytest.raises(UserError, match="did not standardise"):
        made.load_state_dict(old, strict=False)
