"""Splatting in plain PyTorch, any floating dtype: the truth that the other backends are held against.

It is written to be read, not to be fast, and gets every gradient from autograd. It must not know the other backends.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from degstalk_ns.rasterization.rules import MAX_DETERMINANT, MAX_RADIUS, MIN_DETERMINANT, RULES

PAIRS_AT_ONCE = 1 << 19
"""Pixel-Gaussian pairs held in memory at a time: some 100 MB in float64 with what autograd keeps of them."""


def rotation_matrices(quats: Tensor) -> Tensor:
    """Quaternions [..., 4] (wxyz, any length but 0) to rotation matrices [..., 3, 3]."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    radius_clip: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Elliptical weighted average projection (3D Gaussian Splatting, section 4) with gsplat's conventions.

    Args:
        means [N, 3], quats [N, 4], scales [N, 3], viewmats [C, 4, 4], Ks [C, 3, 3] (skew is ignored).

    Returns:
        radii [C, N] int32, pixels, 0 where culled; means2d [C, N, 2], pixels; depths [C, N], camera z;
        conics [C, N, 3], upper triangle of the inverse 2D covariance, 1 / pixel^2. All are 0 where culled.
    """
    quat_norm_ok = (quats * quats).sum(-1) > 0
    quats = torch.where(quat_norm_ok[:, None], quats, quats.new_tensor([1.0, 0.0, 0.0, 0.0]))

    rotation, translation = viewmats[:, :3, :3], viewmats[:, :3, 3]
    points = means @ rotation.transpose(1, 2) + translation[:, None]  # [C, N, 3]
    depths = points[..., 2]
    visible = quat_norm_ok & (depths >= near_plane) & (depths <= far_plane)
    # Culled Gaussians go through the same arithmetic as a harmless one, or their gradients would be 0 times infinity.
    points = torch.where(visible[..., None], points, points.new_tensor([0.0, 0.0, 1.0]))
    x, y, z = points.unbind(-1)

    intrinsics = Ks.detach()
    fx, fy, cx, cy = (intrinsics[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    margin_x = RULES.fov_margin * 0.5 * width / fx
    margin_y = RULES.fov_margin * 0.5 * height / fy
    slope_x = torch.clamp(x / z, min=-(cx / fx + margin_x), max=(width - cx) / fx + margin_x)
    slope_y = torch.clamp(y / z, min=-(cy / fy + margin_y), max=(height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * slope_x / z], dim=-1),
            torch.stack([zero, fy / z, -fy * slope_y / z], dim=-1),
        ],
        dim=-2,
    )  # [C, N, 2, 3]
    axes = rotation_matrices(quats) * scales[:, None, :]  # [N, 3, 3]
    footprint = jacobian @ rotation[:, None] @ axes  # [C, N, 2, 3]
    covariance = footprint @ footprint.transpose(-1, -2)  # [C, N, 2, 2]
    xx, xy, yy = covariance[..., 0, 0] + eps2d, covariance[..., 0, 1], covariance[..., 1, 1] + eps2d
    determinant = xx * yy - xy * xy
    visible = visible & (determinant > MIN_DETERMINANT) & (determinant < MAX_DETERMINANT)
    visible = visible & torch.isfinite(means2d).all(-1)

    with torch.no_grad():
        middle = 0.5 * (xx + yy)
        largest = middle + torch.sqrt(torch.clamp(middle * middle - determinant, min=RULES.min_eigen_spread))
        radii = torch.ceil(RULES.radius_sigmas * torch.sqrt(largest))
        u, v = means2d.unbind(-1)
        visible = visible & (radii > radius_clip)
        visible = visible & (u + radii > 0) & (u - radii < width) & (v + radii > 0) & (v - radii < height)
        radii = torch.where(visible, radii.clamp(max=MAX_RADIUS), 0.0).to(torch.int32)

    determinant = torch.where(visible, determinant, 1.0)
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[..., None]
    means2d = torch.where(visible[..., None], means2d, 0.0)
    conics = torch.where(visible[..., None], conics, 0.0)
    return radii, means2d, torch.where(visible, depths, 0.0), conics


def spherical_harmonics(degree: int, means: Tensor, coeffs: Tensor, centres: Tensor) -> Tensor:
    """Colours seen from camera centres [C, 3]: means [N, 3], coeffs [N, K, 3] -> [C, N, 3], offset by 0.5, at least 0.

    Real spherical harmonics with the signs of Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013), as 3D
    Gaussian Splatting orders them.
    """
    finite = torch.isfinite(means).all(-1, keepdim=True)
    directions = torch.where(finite, means, 0.0) - centres[:, None]
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.9461746957575601 * z * z - 0.3153915652525201,
            -1.0925484305920792 * x * z,
            0.5462742152960395 * (x * x - y * y),
        ]
    if degree >= 3:
        ring = -2.285228997322329 * z * z + 0.4570457994644658
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            ring * y,
            z * (1.865881662950577 * z * z - 1.119528997770346),
            ring * x,
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    values = torch.stack(basis, dim=-1)  # [C, N, (degree + 1)^2]
    colors = torch.einsum("cnk,nkd->cnd", values, coeffs[:, : values.shape[-1]])
    return torch.clamp_min(torch.where(finite, colors + 0.5, 0.0), 0.0)


def _blend_pixels(
    rows: Tensor,
    columns: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    colors: Tensor,
    boxes: Tensor,
    passive: int,
) -> tuple[Tensor, Tensor]:
    """Blend M depth-sorted Gaussians over P pixels: premultiplied colours [P, D] and what is left of the light [P]."""
    dx = means2d[:, 0] - (columns[:, None] + 0.5)  # pixel centres are at +0.5; [P, M]
    dy = means2d[:, 1] - (rows[:, None] + 0.5)
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alpha = torch.clamp_max(opacities * torch.exp(-sigma), RULES.max_alpha)

    tile_x, tile_y = columns[:, None] // RULES.tile_size, rows[:, None] // RULES.tile_size
    listed = (tile_x >= boxes[:, 0]) & (tile_x < boxes[:, 1]) & (tile_y >= boxes[:, 2]) & (tile_y < boxes[:, 3])
    alpha = torch.where(listed & (sigma >= 0) & (alpha >= RULES.min_alpha), alpha, 0.0)
    # The product falls monotonically, so everything behind the Gaussian that ends a pixel is left out with it.
    alive = torch.cumprod(1 - alpha.detach(), dim=1) > RULES.min_transmittance
    alpha = torch.where(alive, alpha, 0.0)

    light = torch.cat(
        [dx.new_ones(len(rows), 1), torch.cumprod(1 - alpha, dim=1)], dim=1
    )  # before each, and at the end
    weights = alpha * light[:, :-1]
    shaping, shown = colors.split([colors.shape[1] - passive, passive], dim=1)
    return torch.cat([weights @ shaping, weights.detach() @ shown], dim=1), light[:, -1]


def tile_boxes(means2d: Tensor, radii: Tensor, width: int, height: int) -> Tensor:
    """Tiles whose lists a Gaussian is in: [M, 4] first and last + 1 column, first and last + 1 row of tiles."""
    tile = RULES.tile_size
    radius = radii.to(means2d.dtype)[:, None] / tile
    centre = means2d.detach() / tile
    most = centre.new_tensor([(width + tile - 1) // tile, (height + tile - 1) // tile])
    first = torch.minimum(torch.floor(centre - radius).clamp(min=0), most)
    last = torch.minimum(torch.ceil(centre + radius).clamp(min=0), most)
    return torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], dim=-1)


def rasterize_to_pixels(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    backgrounds: Tensor | None = None,
    passive: int = 0,
) -> tuple[Tensor, Tensor]:
    """Alpha blending, nearest first; equal depths in order of index.

    Args:
        means2d [C, N, 2], conics [C, N, 3], colors [C, N, D], opacities [C, N], depths [C, N], radii [C, N],
        backgrounds [C, D] or None.
        passive: the last channels of colors that give no gradient to means2d, conics and opacities.

    Returns:
        renders [C, height, width, D], premultiplied; alphas [C, height, width, 1].
    """
    pixels = torch.arange(width * height, device=means2d.device)
    renders, alphas = [], []
    for camera in range(means2d.shape[0]):
        shown = torch.nonzero(radii[camera] > 0)[:, 0]
        shown = shown[torch.sort(depths[camera, shown].detach(), stable=True).indices]
        boxes = tile_boxes(means2d[camera, shown], radii[camera, shown], width, height)
        splats = (means2d[camera, shown], conics[camera, shown], opacities[camera, shown], colors[camera, shown])
        parts = [
            # Recomputing in the backward pass keeps memory at one chunk's worth.
            checkpoint(
                _blend_pixels,
                chunk // width,
                chunk % width,
                *splats,
                boxes,
                passive,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for chunk in pixels.split(max(1, PAIRS_AT_ONCE // max(1, len(shown))))
        ]
        color = torch.cat([part[0] for part in parts])
        light = torch.cat([part[1] for part in parts])
        if backgrounds is not None:
            shaping = color.shape[1] - passive
            behind = torch.cat([light[:, None].expand(-1, shaping), light.detach()[:, None].expand(-1, passive)], 1)
            color = color + behind * backgrounds[camera]
        renders.append(color.reshape(height, width, -1))
        alphas.append((1 - light).reshape(height, width, 1))
    return torch.stack(renders), torch.stack(alphas)
