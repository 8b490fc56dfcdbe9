"""`rasterize()` and `spherical_harmonics()`: one signature (gsplat's), the backends behind it.

Checks every input here, so that the backends need not. It must not know what is being rendered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from degstalk_ns.kernels.finite import sum_of
from degstalk_ns.rasterization import cpu, cuda, reference
from degstalk_ns.rasterization.rules import MAX_SH_DEGREE, RULES

Backend = Literal["auto", "reference", "cpu", "cuda"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"rasterization: {message}")


def _shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """`expected` holds sizes, None for any."""
    good = tensor.dim() == len(expected) and all(
        e is None or e == s for e, s in zip(expected, tensor.shape, strict=True)
    )
    wanted = ", ".join("*" if e is None else str(e) for e in expected)
    _require(good, f"{name} must have shape [{wanted}], not {list(tensor.shape)}")


def _choose(backend: str, tensor: Tensor) -> Literal["reference", "cpu", "cuda"]:
    if backend == "auto":
        if tensor.is_cuda:
            return "cuda"
        return "cpu" if tensor.device.type == "cpu" and tensor.dtype == torch.float32 else "reference"
    if backend == "cpu":
        good = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
        _require(good, f"backend 'cpu' needs float32 or float64 on the CPU, not {tensor.dtype} on {tensor.device}")
        return "cpu"
    if backend == "cuda":
        good = tensor.is_cuda and tensor.dtype == torch.float32
        _require(good, f"backend 'cuda' needs float32 on a GPU, not {tensor.dtype} on {tensor.device}")
        return "cuda"
    _require(backend == "reference", f"backend must be auto, reference, cpu or cuda, not {backend!r}")
    return "reference"


def _same_kind(first: str, tensors: dict[str, Tensor]) -> None:
    model = tensors[first]
    _require(model.is_floating_point(), f"{first} must be floating point, not {model.dtype}")
    for name, tensor in tensors.items():
        good = tensor.dtype == model.dtype and tensor.device == model.device
        _require(good, f"{name} is {tensor.dtype} on {tensor.device}, but {first} is {model.dtype} on {model.device}")


def _sum(tensor: Tensor) -> float:
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64):
        # Not torch, which would wake its threads for it, and they spin for a while when done, on the cores that the
        # CPU backend is about to use.
        return float(sum_of(tensor.contiguous().numpy().reshape(-1)))
    return float(tensor.sum())


def _bad_gaussians(*parameters: Tensor) -> Tensor | None:
    """Mask [N] of the Gaussians with a non-finite parameter, or None if there is none. Parameters are [N, ...]."""
    # A sum is cheaper than a test of every element; it is finite unless one of them is not, or it overflows.
    if all(math.isfinite(_sum(parameter.detach())) for parameter in parameters):
        return None
    with torch.no_grad():
        bad = torch.zeros(len(parameters[0]), dtype=torch.bool, device=parameters[0].device)
        for parameter in parameters:
            bad |= ~torch.isfinite(parameter).flatten(1).all(1) if parameter.dim() > 1 else ~torch.isfinite(parameter)
        return bad if bool(bad.any()) else None


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
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    radius_clip: float = 0.0,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    layers: Sequence[int] | None = None,
    passive: int = 0,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians into C images (3D Gaussian Splatting, with gsplat's conventions).

    Differentiable with respect to means, quats, scales, opacities, colors, viewmats and backgrounds; not Ks.
    A Gaussian with a non-finite parameter is culled: it changes no pixel and gets no gradient.

    Args:
        means: [N, 3] centres, world units.
        quats: [N, 4] rotations, wxyz, of any length but 0.
        scales: [N, 3] standard deviations along the Gaussian's axes, world units (not their logarithm).
        opacities: [N] in [0, 1].
        colors: [N, D] or [C, N, D], any D >= 1; with `sh_degree`, coefficients [N, K, 3], K >= (sh_degree + 1)^2.
        viewmats: [C, 4, 4] world to camera, OpenCV axes (x right, y down, z forward).
        Ks: [C, 3, 3] intrinsics, pixels; pixel centres lie at +0.5.
        width, height: image size, pixels.
        near_plane, far_plane: camera z outside which a Gaussian is culled, world units.
        eps2d: added to the diagonal of each 2D covariance, pixel^2.
        radius_clip: Gaussians whose radius is not above this are culled, pixels.
        sh_degree: 0 to 3, if `colors` are spherical-harmonics coefficients.
        backgrounds: [C, D], or None for nothing behind.
        layers: sizes of groups that follow each other in the Gaussians' order and sum to N: of one camera, each group
            is rendered into an image of its own, as if it were alone, in one go. No background then, and not on CUDA.
        passive: number of the last channels of `colors` that are rendered like the others and get their gradient, but
            give none to means, quats, scales, opacities and viewmats (maps of values that must not shape anything).
        backend: "auto" takes "cuda" for tensors on a GPU, "cpu" for float32 on the CPU, else "reference".

    Returns:
        renders: [C, height, width, D], premultiplied by alpha, with the background showing through; with `layers`, as
            many images as layers.
        alphas: [C, height, width, 1] in [0, 1], or likewise.
        meta: means2d [C, N, 2] pixels (in the graph: `retain_grad()` works), radii [C, N] int32 pixels (0: culled),
            depths [C, N], conics [C, N, 3], opacities [C, N], width, height, n_cameras, tile_size, backend.

    Raises:
        ValueError: an input of the wrong shape, dtype or device, or an option out of range.
    """
    _require(width > 0 and height > 0, f"the image must have an area, not {width} x {height} pixels")
    _require(near_plane > 0, f"near_plane must be above 0, not {near_plane}")
    _require(far_plane > near_plane, f"far_plane must be above near_plane, not {far_plane}")
    _require(eps2d >= 0, f"eps2d must not be negative, but is {eps2d}")
    _shape("means", means, None, 3)
    count = len(means)
    _shape("quats", quats, count, 4)
    _shape("scales", scales, count, 3)
    _shape("opacities", opacities, count)
    _shape("viewmats", viewmats, None, 4, 4)
    cameras = len(viewmats)
    _require(cameras > 0, "at least one camera is needed")
    _shape("Ks", Ks, cameras, 3, 3)
    tensors = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    tensors |= {"viewmats": viewmats, "Ks": Ks}
    if sh_degree is not None:
        _check_sh(sh_degree, colors, count)
        depth = 3
    else:
        _require(colors.dim() in (2, 3), f"colors must have shape [N, D] or [C, N, D], not {list(colors.shape)}")
        _shape("colors", colors, *((cameras, count) if colors.dim() == 3 else (count,)), None)
        depth = colors.shape[-1]
        _require(depth > 0, "colors must have at least one channel")
    _require(0 <= passive < depth, f"passive must leave a channel of the {depth}, not {passive}")
    _require(not passive or sh_degree is None, "passive channels are not spherical harmonics: evaluate those before")
    if backgrounds is not None:
        _shape("backgrounds", backgrounds, cameras, depth)
        tensors["backgrounds"] = backgrounds
    _same_kind("means", tensors)
    chosen = _choose(backend, means)
    if layers is not None:
        good = min(layers, default=-1) >= 0 and sum(layers) == count
        _require(good, f"layers must sum to the {count} Gaussians, not {list(layers)}")
        good = cameras == 1 and backgrounds is None and chosen != "cuda"
        _require(good, "layers need one camera, no background, and the backend cpu or reference")

    per_gaussian = colors.transpose(0, 1) if sh_degree is None and colors.dim() == 3 else colors
    bad = _bad_gaussians(means, quats, scales, opacities, per_gaussian)
    if bad is not None:
        # Replaced by harmless values, so that no 0 times infinity reaches a gradient.
        means, scales = means.masked_fill(bad[:, None], 0.0), scales.masked_fill(bad[:, None], 1.0)
        quats, opacities = quats.masked_fill(bad[:, None], 1.0), opacities.masked_fill(bad, 0.0)
        colors = colors.masked_fill(bad[:, None, None] if sh_degree is not None else bad[:, None], 0.0)

    if chosen == "cuda":
        renders, alphas, meta = cuda.rasterize(
            means,
            quats,
            scales,
            opacities,
            colors,
            viewmats,
            Ks,
            width,
            height,
            near_plane=near_plane,
            far_plane=far_plane,
            eps2d=eps2d,
            radius_clip=radius_clip,
            sh_degree=sh_degree,
            backgrounds=backgrounds,
            passive=passive,
        )
    else:
        module = cpu if chosen == "cpu" else reference
        if sh_degree is not None:
            colors = module.spherical_harmonics(sh_degree, means, colors, _centres(viewmats))
        radii, means2d, depths, conics = module.project(
            means, quats, scales, viewmats, Ks, width, height, near_plane, far_plane, eps2d, radius_clip
        )
        colors = colors.expand(cameras, count, depth)
        opacities = opacities.expand(cameras, count)
        splats: tuple[Tensor, ...] = (means2d, conics, colors, opacities, depths, radii)
        if layers is not None:
            splats = _in_layers(splats, layers)
        renders, alphas = module.rasterize_to_pixels(*splats, width, height, backgrounds, passive)
        meta = {"means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities}
    if bad is not None:
        meta["radii"] = meta["radii"].masked_fill(bad, 0)
    meta |= {"width": width, "height": height, "n_cameras": cameras, "tile_size": RULES.tile_size, "backend": chosen}
    return renders, alphas, meta


def _in_layers(splats: tuple[Tensor, ...], layers: Sequence[int]) -> tuple[Tensor, ...]:
    """What one camera sees, [1, N, ...], once for each layer, with the radii (the last) of all other layers at 0."""
    *shared, radii = splats
    own = radii.new_zeros(len(layers), radii.shape[1])
    start = 0
    for row, size in zip(own, layers, strict=True):
        row[start : start + size] = radii[0, start : start + size]
        start += size
    return *(value.expand(len(layers), *value.shape[1:]) for value in shared), own


def _check_sh(degree: int, coeffs: Tensor, count: int) -> None:
    _require(0 <= degree <= MAX_SH_DEGREE, f"the SH degree must be 0 to {MAX_SH_DEGREE}, not {degree}")
    _shape("SH coefficients", coeffs, count, None, 3)
    needed = (degree + 1) ** 2
    _require(coeffs.shape[1] >= needed, f"degree {degree} needs {needed} SH coefficients, not {coeffs.shape[1]}")


def _centres(viewmats: Tensor) -> Tensor:
    """World-to-camera matrices [C, 4, 4] to camera centres [C, 3]."""
    return torch.inverse(viewmats)[:, :3, 3]


def spherical_harmonics(
    degree: int, means: Tensor, coeffs: Tensor, viewmats: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """View-dependent colours, as `rasterize(sh_degree=degree)` computes them, for callers that add channels to them.

    Differentiable with respect to means, coeffs and viewmats.

    Args:
        degree: 0 to 3.
        means: [N, 3] centres, world units.
        coeffs: [N, K, 3], K >= (degree + 1)^2; further ones are not used and get zero gradients.
        viewmats: [C, 4, 4] world to camera.
        backend: as for :func:`rasterize`.

    Returns:
        [C, N, 3]: spherical harmonics plus 0.5, at least 0; 0 for a Gaussian whose mean is not finite.

    Raises:
        ValueError: an input of the wrong shape, dtype or device, or a degree out of range.
    """
    _shape("means", means, None, 3)
    _shape("viewmats", viewmats, None, 4, 4)
    _check_sh(degree, coeffs, len(means))
    _same_kind("means", {"means": means, "coeffs": coeffs, "viewmats": viewmats})
    chosen = _choose(backend, means)
    centres = _centres(viewmats)
    if chosen == "cuda":
        return cuda.spherical_harmonics(degree, means, coeffs, centres)
    return (cpu if chosen == "cpu" else reference).spherical_harmonics(degree, means, coeffs, centres)
