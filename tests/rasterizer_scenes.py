"""Scenes for the tests of the rasterizer, and the comparison of a backend with the reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from degstalk_ns.rasterization import rasterize

OUTPUTS_WITHIN = 1e-4
GRADIENTS_WITHIN = 1e-3
INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")


def make_scene(
    count: int,
    width: int,
    height: int,
    channels: int = 3,
    cameras: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **changes: Tensor,
) -> dict[str, Any]:
    """A cloud of Gaussians two units in front of cameras side by side; `changes` replace arguments of rasterize()."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=torch.float64)

    viewmats = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    viewmats[:, 0, 3] = torch.linspace(0.0, 0.2, cameras)
    viewmats[:, 2, 3] = 2.0
    focal = 1.1 * width
    Ks = torch.tensor([[focal, 0, 0.48 * width], [0, 1.05 * focal, 0.53 * height], [0, 0, 1]], dtype=torch.float64)
    scene: dict[str, Any] = {
        "means": 0.5 * normal(count, 3),
        "quats": normal(count, 4),
        "scales": torch.exp(0.7 * normal(count, 3) - 2.7),
        "opacities": uniform(count),
        "colors": uniform(count, channels),
        "viewmats": viewmats,
        "Ks": Ks.repeat(cameras, 1, 1),
        "width": width,
        "height": height,
    }
    scene.update(changes)
    return {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in scene.items()}


def render(scene: dict[str, Any], backend: Any) -> tuple[list[Tensor], dict[str, Tensor], dict[str, Any]]:
    """Outputs, the gradients of a random linear loss on them, and meta."""
    scene = {k: v.clone().requires_grad_(k in INPUTS) if isinstance(v, Tensor) else v for k, v in scene.items()}
    renders, alphas, meta = rasterize(**scene, backend=backend)
    meta["means2d"].retain_grad()
    random = torch.Generator().manual_seed(7)
    weights = [torch.randn(out.shape, generator=random, dtype=torch.float64).to(out.dtype) for out in (renders, alphas)]
    ((renders * weights[0]).sum() + (alphas * weights[1]).sum()).backward()
    leaves = {k: scene[k] for k in INPUTS if k in scene} | {"means2d": meta["means2d"]}
    gradients = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items()}
    return [renders.detach(), alphas.detach()], gradients, meta


def assert_same(scene: dict[str, Any]) -> None:
    """The CPU backend agrees with the reference on a float64 scene: outputs, radii and every gradient."""
    wanted, wanted_gradients, wanted_meta = render(scene, "reference")
    outputs, gradients, meta = render(scene, "cpu")
    assert torch.equal(meta["radii"], wanted_meta["radii"])
    for key in ("means2d", "depths", "conics"):
        torch.testing.assert_close(meta[key], wanted_meta[key], rtol=1e-9, atol=1e-9)
    for output, want in zip(outputs, wanted, strict=True):
        assert output.shape == want.shape
        assert torch.isfinite(output).all()
        assert (output - want).abs().max() <= OUTPUTS_WITHIN if want.numel() else True
    for name, want in wanted_gradients.items():
        gradient = gradients[name]
        assert torch.isfinite(gradient).all(), name
        if want.numel() == 0:
            continue
        wrong = gradient - want
        assert wrong.norm() <= GRADIENTS_WITHIN * want.norm() + 1e-12, name
        assert wrong.abs().max() <= GRADIENTS_WITHIN * want.abs().max() + 1e-12, name


def degenerate_scenes() -> dict[str, dict[str, Any]]:
    def ones(*shape: int) -> Tensor:
        return torch.ones(*shape, dtype=torch.float64)

    plain = make_scene(100, 40, 40)
    behind = plain["means"].clone()
    behind[::2, 2] -= 5.0
    all_behind = plain["means"] - torch.tensor([0.0, 0.0, 9.0])
    aside = plain["means"].clone()
    aside[::2, 0] += 30.0
    near_the_edge = plain["means"].clone()
    near_the_edge[:, 0] += 1.5  # where the Jacobian is clamped
    on_the_camera = plain["means"].clone()
    on_the_camera[:10] = torch.tensor([0.0, 0.0, -2.0])
    dot = torch.zeros(3000, 3, dtype=torch.float64) + torch.tensor([0.01, 0.02, 0.0])
    one_depth = plain["means"].clone()
    one_depth[:, 2] = 0.1
    needles = torch.tensor([1.0, 1e-4, 1e-4], dtype=torch.float64).repeat(100, 1)
    scenes = {
        "half behind": plain | {"means": behind},
        "all behind": plain | {"means": all_behind},
        "off screen": plain | {"means": aside},
        "beyond the field of view": plain | {"means": near_the_edge, "scales": plain["scales"] * 8},
        "on the camera": plain | {"means": on_the_camera},
        "opacity 0": plain | {"opacities": 0 * ones(100)},
        "some opacity 0": plain | {"opacities": plain["opacities"] * (torch.arange(100) % 2)},
        "opaque": plain | {"opacities": ones(100)},
        "fainter than is drawn": plain | {"opacities": ones(100) / 300},
        "huge": plain | {"scales": 50 * ones(100, 3)},
        "colossal": plain | {"scales": 1e12 * ones(100, 3)},
        "tiny": plain | {"scales": 1e-9 * ones(100, 3)},
        "tiny without blur": plain | {"scales": 1e-9 * ones(100, 3), "eps2d": 0.0},
        "flat": plain | {"scales": plain["scales"] * torch.tensor([1.0, 1.0, 0.0])},
        "needles": plain | {"scales": needles},
        "needles that pass far outside": plain | {"means": aside * 100, "scales": 1e5 * needles},
        "quats of no length": plain | {"quats": plain["quats"] * (torch.arange(100) % 2)[:, None]},
        "long and short quats": plain | {"quats": plain["quats"] * torch.logspace(-6, 6, 100)[:, None].double()},
        "same depth": plain | {"means": one_depth},
        "thousands on one pixel": make_scene(3000, 24, 24) | {"means": dot, "scales": 1e-3 * ones(3000, 3)},
        "radius clip": plain | {"radius_clip": 6.0},
        "near and far": plain | {"near_plane": 1.8, "far_plane": 2.2},
        "empty": make_scene(0, 40, 40, cameras=2, backgrounds=ones(2, 3)),
    }
    return scenes
