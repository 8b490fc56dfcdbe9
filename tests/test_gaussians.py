"""Parameters of a region: start, deformation, resizing on load."""

from __future__ import annotations

import pytest
import torch

from degstalk_ns.avatar.gaussians import (
    SH_C0,
    EmbeddedGaussians,
    GaussiansConfig,
    Offsets,
    neighbour_distance,
)
from degstalk_ns.errors import UserError

N = 50


def region(seed: int = 0, num_points: int = N) -> EmbeddedGaussians:
    return EmbeddedGaussians(GaussiansConfig(num_points=num_points), seed)


def randomized(num_points: int = N) -> EmbeddedGaussians:
    gaussians = region(num_points=num_points)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in gaussians.params.values():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return gaussians


def test_start_has_the_shapes_and_values_of_the_method() -> None:
    gaussians = region()
    shapes = {name: tuple(parameter.shape) for name, parameter in gaussians.params.items()}
    assert shapes == {
        "means": (N, 3),
        "scales": (N, 3),
        "quats": (N, 4),
        "opacities": (N,),
        "sh0": (N, 1, 3),
        "shN": (N, 8, 3),
        "embeddings": (N, 32),
    }
    assert gaussians.means.abs().max() <= 0.1 and gaussians.means.std() > 0.04
    assert torch.allclose(gaussians.params["opacities"].sigmoid(), torch.tensor(0.1))
    assert (gaussians.embeddings == 0).all() and (gaussians.params["shN"] == 0).all()
    assert 0 <= gaussians.base_colours.min() and gaussians.base_colours.max() <= 1 / 255 + 1e-6
    assert len(gaussians) == N


def test_seed_decides_the_start_and_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = region(7), region(7), region(8)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.means, b.means)
    assert not torch.equal(a.means, c.means)


def test_scales_start_at_the_mean_distance_to_three_neighbours() -> None:
    points = region().means.detach()
    distances = torch.cdist(points.double(), points.double()).sort(dim=1).values[:, 1:4].mean(dim=1)
    assert torch.allclose(neighbour_distance(points, 3).double(), distances, rtol=1e-5)
    assert torch.allclose(region().params["scales"].exp().double(), distances[:, None].expand(-1, 3), rtol=1e-5)


@pytest.mark.parametrize("num_points", [1, 2, 3])
def test_few_points_and_coinciding_points_have_finite_scales(num_points: int) -> None:
    assert region(num_points=num_points).params["scales"].isfinite().all()
    assert (neighbour_distance(torch.zeros(num_points, 3), 3) > 0).all()


@pytest.mark.parametrize("config", [GaussiansConfig(num_points=0), GaussiansConfig(initial_opacity=1.0)])
def test_impossible_starts_are_refused(config: GaussiansConfig) -> None:
    with pytest.raises(UserError):
        EmbeddedGaussians(config)


def test_zero_offsets_are_the_identity() -> None:
    gaussians = randomized()
    zero = Offsets(torch.zeros(N, 3), torch.zeros(N, 3), torch.zeros(N, 4))
    plain = gaussians.deformed(None)
    for offsets in (zero, Offsets()):
        deformed = gaussians.deformed(offsets)
        for name in vars(plain):
            assert torch.equal(getattr(plain, name), getattr(deformed, name)), name


def test_offsets_add_to_raw_parameters() -> None:
    gaussians = randomized()
    offsets = Offsets(d_means=torch.randn(N, 3), d_scales=torch.randn(N, 3), d_quats=torch.randn(N, 4))
    assert offsets.d_means is not None and offsets.d_scales is not None and offsets.d_quats is not None
    deformed, p = gaussians.deformed(offsets), gaussians.params
    assert torch.allclose(deformed.means, p["means"] + offsets.d_means)
    assert torch.allclose(deformed.scales, p["scales"].exp() * offsets.d_scales.exp(), rtol=1e-4)
    assert torch.allclose(deformed.quats, p["quats"] + offsets.d_quats)
    assert torch.equal(deformed.opacities, p["opacities"].sigmoid())
    assert torch.equal(deformed.sh[:, :1], p["sh0"]) and torch.equal(deformed.sh[:, 1:], p["shN"])


def test_gradients_reach_parameters_and_offsets_but_not_embeddings() -> None:
    gaussians = randomized()
    offsets = Offsets(*(torch.zeros(N, width, requires_grad=True) for width in (3, 3, 4)))
    deformed = gaussians.deformed(offsets)
    sum(getattr(deformed, name).square().sum() for name in vars(deformed)).backward()
    for name, parameter in gaussians.params.items():
        assert (parameter.grad is None) == (name == "embeddings"), name
    for offset in (offsets.d_means, offsets.d_scales, offsets.d_quats):
        assert offset is not None and offset.grad is not None and (offset.grad != 0).all()


@pytest.mark.parametrize("stored", [20, 90])
def test_loading_another_number_keeps_parameter_identity_and_optimizers_work(stored: int) -> None:
    source, target = randomized(stored), region()
    identities = {name: id(parameter) for name, parameter in target.params.items()}
    optimizer = torch.optim.Adam(target.params.values(), lr=0.1)
    target.means.sum().backward()  # a gradient of the old size must not survive
    target.load_state_dict(source.state_dict())
    assert {name: id(parameter) for name, parameter in target.params.items()} == identities
    assert len(target) == stored
    for name, parameter in target.params.items():
        assert torch.equal(parameter, source.params[name])
    before = target.means.detach().clone()
    target.deformed().means.sum().backward()
    optimizer.step()
    assert torch.allclose(target.means, before - 0.1, atol=1e-4)


def test_loading_inside_a_larger_module_and_of_another_width() -> None:
    outer = torch.nn.ModuleDict({"face": region()})
    outer.load_state_dict(torch.nn.ModuleDict({"face": randomized(7)}).state_dict())
    assert len(outer["face"].means) == 7  # type: ignore[arg-type]
    other = EmbeddedGaussians(GaussiansConfig(num_points=7, embedding_dim=4))
    with pytest.raises(RuntimeError, match="embeddings"):
        region().load_state_dict(other.state_dict())


def test_base_colours_follow_degree_zero() -> None:
    gaussians = region(num_points=2)
    with torch.no_grad():
        gaussians.params["sh0"][:, 0] = (torch.tensor([[0.0, 1.0, 0.0], [-3.0, 0.25, 9.0]]) - 0.5) / SH_C0
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.25, 1.0]])
    assert torch.allclose(gaussians.base_colours, expected, atol=1e-6)
