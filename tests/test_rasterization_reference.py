"""The reference backend of the rasterizer against gsplat's PyTorch code and finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rasterizer_scenes import (
    INPUTS,
    make_scene,
    render,
)
from torch import Tensor

from degstalk_ns.rasterization import rasterize, reference


def test_reference_gradients_against_finite_differences() -> None:
    scene = make_scene(3, 4, 3, 2, backgrounds=torch.full((1, 2), 0.3))
    scene["scales"] = scene["scales"] * 3
    scene["opacities"] = 0.2 + 0.5 * scene["opacities"]  # nothing clamped, no pixel full: smooth but for faint edges
    leaves: dict[str, Any] = {name: scene.pop(name).requires_grad_() for name in INPUTS}

    def loss(*values: Tensor) -> tuple[Tensor, Tensor]:
        given: dict[str, Any] = dict(zip(leaves, values, strict=True))
        return rasterize(**scene, **given, backend="reference")[:2]

    assert torch.autograd.gradcheck(loss, tuple(leaves.values()), eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("behind", [False, True])
def test_passive_channels_are_rendered_alike_and_shape_nothing(behind: bool) -> None:
    """With half of six channels passive: what is shaped follows the first three alone, and every colour follows its
    own channel."""
    scene = make_scene(60, 20, 16, 6, cameras=2)
    if behind:
        scene["backgrounds"] = torch.rand(2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weights = torch.randn(2, 16, 20, 6, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def rendered(channels: int, passive: int) -> tuple[Tensor, dict[str, Tensor]]:
        given = scene | {name: scene[name][..., :channels] for name in ("colors", "backgrounds") if name in scene}
        leaves = {name: given[name].clone().requires_grad_() for name in INPUTS if name in given}
        renders = rasterize(**given | leaves, passive=passive, backend="reference")[0]
        gradients = torch.autograd.grad((renders * weights[..., :channels]).sum(), list(leaves.values()))
        return renders, dict(zip(leaves, gradients, strict=True))

    (half, half_gradients), (whole, whole_gradients) = rendered(6, 3), rendered(6, 0)
    _, first_gradients = rendered(3, 0)
    torch.testing.assert_close(half, whole)
    for name in ("means", "quats", "scales", "opacities", "viewmats"):
        torch.testing.assert_close(half_gradients[name], first_gradients[name])
        assert not torch.allclose(whole_gradients[name], first_gradients[name])
    for name in {"colors", "backgrounds"} & half_gradients.keys():
        torch.testing.assert_close(half_gradients[name], whole_gradients[name])
        assert (half_gradients[name][..., 3:] != 0).any()


def test_projection_against_gsplat() -> None:
    from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

    scene = make_scene(500, 64, 48, cameras=2)
    covars = _quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)[0]
    radii, means2d, depths, conics, _ = _fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], scene["width"], scene["height"]
    )
    shown = radii > 0
    assert 100 < shown.sum() < shown.numel()
    for backend in ("reference", "cpu"):
        meta = rasterize(**scene, backend=backend)[2]
        assert torch.equal(meta["radii"], radii)
        for key, want in (("means2d", means2d), ("depths", depths), ("conics", conics)):
            torch.testing.assert_close(meta[key][shown], want[shown])


def test_reference_in_chunks_of_pixels_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(40, 12, 10)
    whole = render(scene, "reference")
    monkeypatch.setattr(reference, "PAIRS_AT_ONCE", 300)
    parts = render(scene, "reference")
    for output, want in zip(parts[0], whole[0], strict=True):
        torch.testing.assert_close(output, want)
    for name, want in whole[1].items():
        torch.testing.assert_close(parts[1][name], want)
