"""The standard scene of the rasterizer's benchmark: anyone can make the same one from its seed.

It must not know how it is measured, nor which backend renders it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DISC_SHARE = 380 / 512
"""Diameter of the disc that the centres cover, as a share of the image's side: a head fills about that much."""
FOCAL_SHARE = 1200 / 512
"""Focal length as a share of the image's side: a talking-head camera's."""
_NEAREST, _FARTHEST = 0.9, 1.1
"""World units: range of camera depths, a head's around a camera one metre away."""
MEDIAN_SIZE, _SIZE_SPREAD = 2.5, 0.5
"""Pixels: median standard deviation of a Gaussian along an axis; and the spread of its logarithm. Pixels of this image,
whatever its size: what a pixel costs is the same at every resolution."""
_CHANNELS = 3


@dataclass(frozen=True)
class Scene:
    """Float32 tensors on the CPU, one camera; `arguments()` are those of `rasterize()`."""

    means: Tensor
    """[N, 3] world units; in front of a camera at the origin (OpenCV axes), projected evenly over a disc."""
    quats: Tensor
    """[N, 4] wxyz, unit length, of every direction alike."""
    scales: Tensor
    """[N, 3] world units: each axis log-normal on its own, so that the ellipses are long and short."""
    opacities: Tensor
    """[N] uniform in [0, 1]."""
    colors: Tensor
    """[N, 3] uniform in [0, 1]."""
    viewmats: Tensor
    """[1, 4, 4] identity."""
    Ks: Tensor
    """[1, 3, 3] pixels."""
    width: int
    height: int

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `rasterize()`; the tensors themselves, not copies."""
        return dict(vars(self))

    def parameters(self) -> tuple[Tensor, ...]:
        """What training has gradients of: means, quats, scales, opacities, colors."""
        return self.means, self.quats, self.scales, self.opacities, self.colors


def standard_scene(count: int = 30_000, size: int = 512, seed: int = 0) -> Scene:
    """`count` Gaussians over a disc in the middle of a `size` x `size` image; the same numbers for the same arguments.

    Raises:
        ValueError: a negative count, or an image without an area.
    """
    if count < 0 or size <= 0:
        raise ValueError(f"a scene needs count >= 0 and size > 0, not {count} Gaussians on {size} pixels")
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    focal = FOCAL_SHARE * size
    radius = 0.5 * DISC_SHARE * size * uniform(count).sqrt()  # the root spreads them evenly over the area
    angle = 2 * torch.pi * uniform(count)
    depth = _NEAREST + (_FARTHEST - _NEAREST) * uniform(count)
    x, y = radius * angle.cos() * depth / focal, radius * angle.sin() * depth / focal
    scales = MEDIAN_SIZE * torch.exp(_SIZE_SPREAD * normal(count, 3)) * (depth / focal)[:, None]
    Ks = torch.tensor([[[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]]])
    return Scene(
        means=torch.stack([x, y, depth], dim=-1),
        quats=torch.nn.functional.normalize(normal(count, 4), dim=-1),
        scales=scales,
        opacities=uniform(count),
        colors=uniform(count, _CHANNELS),
        viewmats=torch.eye(4)[None],
        Ks=Ks,
        width=size,
        height=size,
    )
