"""Splatting by gsplat's CUDA kernels, called with gsplat's own names.

gsplat compiles its kernels when they are first touched, which needs a GPU and minutes: it is imported only in calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    radius_clip: float,
    sh_degree: int | None,
    backgrounds: Tensor | None,
    passive: int,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Arguments and results as :func:`degstalk_ns.rasterization.rasterize`, which has checked them."""
    from gsplat import rasterization

    def render(shape: tuple[Tensor, ...], colors: Tensor, backgrounds: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        means, quats, scales, opacities, viewmats = shape
        return rasterization(
            means=means,
            quats=quats,
            scales=scales,
            opacities=opacities,
            colors=colors,
            viewmats=viewmats,
            Ks=Ks,
            width=width,
            height=height,
            near_plane=near_plane,
            far_plane=far_plane,
            radius_clip=radius_clip,
            eps2d=eps2d,
            sh_degree=sh_degree,
            packed=False,  # [C, N, ...] everywhere, as the other backends
            backgrounds=backgrounds,
        )

    shape = (means, quats, scales, opacities, viewmats)
    if not passive:
        return render(shape, colors, backgrounds)
    # gsplat has no such channels: they are a render of their own, of geometry that takes no gradient.
    behind = (None, None) if backgrounds is None else (backgrounds[..., :-passive], backgrounds[..., -passive:])
    renders, alphas, meta = render(shape, colors[..., :-passive], behind[0])
    shown, _, _ = render(tuple(part.detach() for part in shape), colors[..., -passive:], behind[1])
    return torch.cat([renders, shown], -1), alphas, meta


def spherical_harmonics(degree: int, means: Tensor, coeffs: Tensor, centres: Tensor) -> Tensor:
    """means [N, 3], coeffs [N, K, 3], camera centres [C, 3] -> colours [C, N, 3]."""
    from gsplat import spherical_harmonics as evaluate

    finite = torch.isfinite(means).all(-1, keepdim=True)
    directions = torch.where(finite, means, 0.0) - centres[:, None]
    colors = evaluate(degree, directions, coeffs.expand(len(centres), *coeffs.shape))
    return torch.clamp_min(torch.where(finite, colors + 0.5, 0.0), 0.0)
