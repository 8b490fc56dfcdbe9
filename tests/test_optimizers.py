"""Optimizers of every parameter group: none missing, at the rates asked for, and stepping as Adam and AdamW do."""

from __future__ import annotations

import pytest
import torch
from test_avatar import _avatar

from degstalk_ns.configs.optimizers import AdamWConfig, FieldRates, FusedAdamConfig, GaussianRates, optimizers


def test_there_is_one_for_every_group_of_the_avatar() -> None:
    assert set(optimizers()) == set(_avatar().parameter_groups())


def test_the_first_rates_are_those_of_the_official_code() -> None:
    # 3DGS: position_lr_init 1.6e-4 times the extent of the scene (0.2), features 2.5e-3 and a twentieth of it
    rates = {name: group["optimizer"].lr for name, group in optimizers().items()}
    face = {name.removeprefix("face_"): rate for name, rate in rates.items() if name.startswith("face_")}
    assert face == pytest.approx(
        {
            "means": 3.2e-5,
            "sh0": 2.5e-3,
            "shN": 1.25e-4,
            "opacities": 0.05,
            "scales": 3e-3,
            "quats": 1e-3,
            "embeddings": 2.5e-3,
            "field_grids": 5e-3,
            "field_networks": 5e-4,
            "field_audio_attention": 2.5e-3,
        }
    )
    assert {f"mouth_{name}": rate for name, rate in face.items()}.items() <= rates.items()


def test_other_rates_reach_both_regions_and_nothing_else() -> None:
    before = optimizers()
    after = optimizers(GaussianRates(quats=0.5), FieldRates(networks=0.25, audio_attention_weight_decay=0.125))
    changed = {name for name in before if before[name] != after[name]}
    parts = ("quats", "field_networks", "field_audio_attention")
    assert changed == {f"{region}_{part}" for region in ("face", "mouth") for part in parts}
    assert after["mouth_quats"]["optimizer"].lr == 0.5 and after["face_field_networks"]["optimizer"].lr == 0.25
    assert after["face_field_audio_attention"]["optimizer"].weight_decay == 0.125
    assert optimizers(fields=FieldRates(grids_weight_decay=0.5))["mouth_field_grids"]["optimizer"].weight_decay == 0.5


def test_decay_and_epsilon_are_torchs_where_the_official_code_names_none() -> None:
    torchs = torch.optim.AdamW([torch.zeros(1)]).defaults
    assert (torchs["eps"], torchs["weight_decay"]) == (1e-8, 0.01)
    decays = {"field_grids": 0.01, "field_audio_attention": 1e-4}
    for name, group in optimizers().items():
        config, part = group["optimizer"], name.split("_", 1)[1]
        assert config.weight_decay == decays.get(part, 0.0), name
        # 3DGS has an epsilon of its own
        assert config.eps == (1e-8 if part.startswith("field_") else 1e-15), name


def _stepped(config: FusedAdamConfig | AdamWConfig, gradient: float) -> float:
    """What one step makes of 1."""
    parameter = torch.nn.Parameter(torch.ones(1))
    parameter.grad = torch.full_like(parameter, gradient)
    config.setup([parameter]).step()
    return float(parameter.detach())


@pytest.mark.parametrize("gradient", [-100.0, 1e-6])
def test_the_first_step_is_the_rate_against_the_gradient(gradient: float) -> None:
    sign = 1 if gradient > 0 else -1
    # An epsilon of 1e-15 leaves even tiny gradients whole.
    assert _stepped(FusedAdamConfig(lr=0.01, eps=1e-15), gradient) == pytest.approx(1 - 0.01 * sign, rel=1e-6)
    assert _stepped(AdamWConfig(lr=0.01, eps=1e-15), gradient) == pytest.approx(1 - 0.01 * sign, rel=1e-6)


def test_a_gradient_as_small_as_epsilon_moves_half_as_far() -> None:
    assert _stepped(AdamWConfig(lr=0.01, eps=1e-8), 1e-8) == pytest.approx(1 - 0.01 / 2, abs=1e-6)


def test_decay_is_decoupled_from_the_gradient() -> None:
    assert _stepped(AdamWConfig(lr=0.01, weight_decay=0.5), 0.0) == pytest.approx(1 - 0.01 * 0.5)


def test_groups_are_updated_by_one_fused_kernel() -> None:
    parameter = torch.nn.Parameter(torch.ones(1))
    kinds = {type(group["optimizer"].setup([parameter])) for group in optimizers().values()}
    assert kinds == {torch.optim.Adam, torch.optim.AdamW}
    for group in optimizers().values():
        assert group["scheduler"] is None  # rates fall by the stages, not by nerfstudio
        assert group["optimizer"].setup([parameter]).defaults["fused"]
