"""The Numba kernels as differentiable PyTorch operations for float32 and float64 tensors on the CPU.

Three operations, so that the projected means are a node of the graph: projection, spherical harmonics, blending.
It must not know the other backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from degstalk_ns.kernels.buffers import AnyArray, borrow
from degstalk_ns.kernels.threads import run
from degstalk_ns.rasterization import binning_kernels as binning
from degstalk_ns.rasterization import blending_kernels as blending
from degstalk_ns.rasterization import harmonics_kernels as harmonics
from degstalk_ns.rasterization import projection_kernels as projection

KERNEL_TASKS = 16
"""Shares that a loop is cut into, whatever the number of threads: sums over shares are then the same to the last bit.
Enough to balance the cores of a desktop; each costs about 5 microseconds, in which no other can begin."""
SHARES_A_THREAD = 3
"""The same for short loops that add nothing up."""


def _shares() -> int:
    return SHARES_A_THREAD * torch.get_num_threads()


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.int32: np.int32}


def _array(tensor: Tensor) -> AnyArray:
    return tensor.detach().contiguous().numpy()


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(borrow(tuple(shape), _NUMPY[dtype]))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Filled by numpy: torch would wake its own threads, which then spin for a while where the kernels are to run."""
    tensor = _empty(shape, dtype)
    tensor.numpy().fill(0)
    return tensor


def _doubles(tensor: Tensor) -> AnyArray:
    return tensor.detach().to(torch.float64).contiguous().numpy()


class _Project(torch.autograd.Function):
    """(means, quats, scales, viewmats) -> (radii, means2d, depths, conics)."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        near_plane: float,
        far_plane: float,
        eps2d: float,
        radius_clip: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (len(viewmats), len(means))
        radii = _empty(shape, torch.int32)
        means2d = _empty((*shape, 2), means.dtype)
        depths = _empty(shape, means.dtype)
        conics = _empty((*shape, 3), means.dtype)
        inputs = (_array(means), _array(quats), _array(scales), _doubles(viewmats), _doubles(Ks))
        limits = (float(near_plane), float(far_plane), float(eps2d), float(radius_clip))
        outputs = (radii.numpy(), means2d.numpy(), depths.numpy(), conics.numpy())
        run(projection.project_forward, _shares(), *inputs, width, height, *limits, *outputs)
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii)
        ctx.size, ctx.eps2d = (width, height), float(eps2d)
        ctx.mark_non_differentiable(radii)
        return radii, means2d, depths, conics

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, _: Tensor, v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, viewmats, Ks, radii = ctx.saved_tensors
        inputs = (_array(means), _array(quats), _array(scales), _doubles(viewmats), _doubles(Ks))
        v_means, v_quats, v_scales = (_empty(tensor.shape, tensor.dtype) for tensor in (means, quats, scales))
        v_views = np.zeros((KERNEL_TASKS, len(viewmats), 3, 4))
        upstream = (_array(v_means2d), _array(v_depths), _array(v_conics))
        results = (v_means.numpy(), v_quats.numpy(), v_scales.numpy())
        flat = (*inputs, *ctx.size, ctx.eps2d, radii.numpy(), *upstream, *results, v_views)
        run(projection.project_backward, KERNEL_TASKS, *flat)
        v_viewmats = None
        if ctx.needs_input_grad[3]:
            v_viewmats = torch.zeros(viewmats.shape, dtype=viewmats.dtype)
            v_viewmats[:, :3] = torch.from_numpy(v_views.sum(axis=0))
        return v_means, v_quats, v_scales, v_viewmats, *(None,) * 7


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
    """As :func:`degstalk_ns.rasterization.reference.project`; Ks get no gradient."""
    return _Project.apply(means, quats, scales, viewmats, Ks, width, height, near_plane, far_plane, eps2d, radius_clip)  # type: ignore[no-untyped-call]


class _SphericalHarmonics(torch.autograd.Function):
    """(degree, means, coeffs, centres) -> colors."""

    @staticmethod
    def forward(ctx: Any, degree: int, means: Tensor, coeffs: Tensor, centres: Tensor) -> Tensor:
        colors = _empty((len(centres), len(means), 3), means.dtype)
        flat = (len(coeffs), coeffs.shape[1] * 3)
        inputs = (_array(means), _array(coeffs).reshape(flat), _doubles(centres))
        run(harmonics.sh_forward, _shares(), degree, *inputs, colors.numpy())
        ctx.degree = degree
        ctx.save_for_backward(means, coeffs, centres, colors)
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors: Tensor) -> tuple[Tensor | None, ...]:
        means, coeffs, centres, colors = ctx.saved_tensors
        v_means, v_coeffs = (_empty(tensor.shape, tensor.dtype) for tensor in (means, coeffs))
        v_centres = np.zeros((KERNEL_TASKS, *centres.shape))
        flat = (len(coeffs), coeffs.shape[1] * 3)
        inputs = (_array(means), _array(coeffs).reshape(flat), _doubles(centres), _array(colors), _array(v_colors))
        outputs = (v_means.numpy(), v_coeffs.numpy().reshape(flat), v_centres)
        run(harmonics.sh_backward, KERNEL_TASKS, ctx.degree, *inputs, *outputs)
        return None, v_means, v_coeffs, torch.from_numpy(v_centres.sum(axis=0)).to(centres.dtype)


def spherical_harmonics(degree: int, means: Tensor, coeffs: Tensor, centres: Tensor) -> Tensor:
    """As :func:`degstalk_ns.rasterization.reference.spherical_harmonics`."""
    return _SphericalHarmonics.apply(degree, means, coeffs, centres)  # type: ignore[no-untyped-call]


@dataclass
class _Bins:
    """Which Gaussians each tile blends, nearest first: E intersections in all."""

    splats: AnyArray  # [C * N, GEOMETRY + D] what blending needs of each Gaussian
    offsets: AnyArray  # [C * N + 1] first intersection of each Gaussian
    lists: AnyArray  # [E] index of a Gaussian, tile after tile
    entries: (
        AnyArray  # [E] int64, the same intersections' numbers, counted Gaussian by Gaussian; [0] if never gone back
    )
    starts: AnyArray  # [C * tiles + 1] first place of each tile in the lists
    tiles: tuple[int, int]  # across, down


def _bin(
    means2d: AnyArray,
    conics: AnyArray,
    colors: AnyArray,
    opacities: AnyArray,
    depths: AnyArray,
    radii: AnyArray,
    width: int,
    height: int,
    will_go_back: bool,
) -> _Bins:
    """All arrays are [C, N, ...]."""
    cameras, count = radii.shape
    total, depth = cameras * count, colors.shape[-1]
    flat = (means2d.reshape(total, 2), conics.reshape(total, 3), opacities.reshape(total), radii.reshape(total))
    splats = borrow((total, binning.GEOMETRY + depth), means2d.dtype)
    spans, counts = borrow((total, 4), np.int32), borrow((total,), np.int32)
    keys = depths.view(np.uint32 if depths.dtype == np.float32 else np.uint64)
    sort_keys, sort_indices = borrow((2, total), keys.dtype), borrow((2, total), np.int32)
    outputs = (splats, spans, counts, sort_keys, sort_indices)
    inputs = (keys, *flat, colors.reshape(total, depth), width, height)
    run(binning.describe_and_order, _shares() + cameras, *inputs, *outputs)
    order = sort_indices[0]

    tiles = ((width + binning.TILE - 1) // binning.TILE, (height + binning.TILE - 1) // binning.TILE)
    shares = _shares()
    slots = borrow((shares, cameras * tiles[0] * tiles[1]), np.int64)
    slots.fill(0)
    starts = borrow((slots.shape[1] + 1,), np.int64)
    offsets = borrow((total + 1,), np.int64)
    run(binning.count_lists, shares, splats, spans, counts, order, max(count, 1), *tiles, slots)
    binning.lay_out_lists(slots, starts, counts, offsets)
    lists = borrow((int(starts[-1]),), np.int32)
    entries = borrow((len(lists) if will_go_back else 0,), np.int64)
    run(binning.fill_lists, shares, splats, spans, counts, order, max(count, 1), *tiles, offsets, slots, lists, entries)
    return _Bins(splats, offsets, lists, entries, starts, tiles)


def _scratch(channels: int, dtype: Any) -> AnyArray:
    """[KERNEL_TASKS, blocks of a tile and then sums of channels]."""
    row = (binning.BLOCKS * (blending.SCRATCH_ROWS + channels | 1) + channels) * blending.LANES
    return borrow((KERNEL_TASKS, row), dtype)


class _Blend(torch.autograd.Function):
    """(means2d, conics, colors, opacities, backgrounds) -> (renders, alphas)."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        backgrounds: Tensor | None,
        depths: Tensor,
        radii: Tensor,
        width: int,
        height: int,
        passive: int,
        will_go_back: bool,
    ) -> tuple[Tensor, Tensor]:
        cameras, depth = len(means2d), colors.shape[-1]
        renders = _empty((cameras, height, width, depth), means2d.dtype)
        alphas = _empty((cameras, height, width, 1), means2d.dtype)
        behind = np.zeros((cameras, depth), renders.numpy().dtype) if backgrounds is None else _array(backgrounds)
        channels = (0,) * depth  # a tuple's length is part of its type: kernels are compiled per number of channels
        splats = (_array(means2d), _array(conics), _array(colors), _array(opacities), _array(depths), _array(radii))
        bins = _bin(*splats, width, height, will_go_back)
        tiles = len(bins.starts) - 1 if will_go_back else 0
        kept = borrow((tiles, binning.BLOCKS, blending.KEPT), behind.dtype)
        masks = borrow((len(bins.lists),), np.uint64)
        run(
            blending.blend_forward,
            KERNEL_TASKS,
            bins.splats,
            bins.lists,
            bins.starts,
            *bins.tiles,
            width,
            height,
            channels,
            behind,
            _scratch(depth, behind.dtype),
            renders.numpy().reshape(-1),
            alphas.numpy().reshape(-1),
            kept,
            masks,
        )
        ctx.shaping = (0,) * (depth - passive)
        ctx.bins, ctx.kept, ctx.masks, ctx.behind, ctx.channels = bins, kept, masks, behind, channels
        ctx.conics, ctx.shapes = splats[1], (means2d.shape, conics.shape, colors.shape, opacities.shape)
        if backgrounds is not None:
            ctx.save_for_backward(alphas)
        ctx.set_materialize_grads(False)
        return renders, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_renders: Tensor | None, v_alphas: Tensor | None) -> tuple[Tensor | None, ...]:
        bins: _Bins = ctx.bins
        if v_renders is None and v_alphas is None:
            return (None,) * 11
        some = v_renders if v_renders is not None else v_alphas
        assert some is not None
        if v_renders is None:
            v_renders = _zeros((*some.shape[:-1], len(ctx.channels)), some.dtype)
        if v_alphas is None:
            v_alphas = _zeros((*some.shape[:-1], 1), some.dtype)
        gradients = [_empty(shape, some.dtype) for shape in ctx.shapes]
        v_means2d, v_conics, v_colors, v_opacities = gradients
        total = v_opacities.numel()
        columns = -(-(blending.SUMS + len(ctx.channels)) // blending.LANES) * blending.LANES
        partial = borrow((len(bins.lists), columns), ctx.behind.dtype)
        run(
            blending.blend_backward,
            KERNEL_TASKS,
            bins.splats,
            bins.lists,
            bins.entries,
            bins.starts,
            ctx.masks,
            *bins.tiles,
            ctx.channels,
            ctx.shaping,
            ctx.behind,
            _scratch(len(ctx.channels), ctx.behind.dtype),
            ctx.kept,
            _array(v_renders),
            _array(v_alphas)[..., 0],
            partial,
        )
        run(
            blending.gather_gradients,
            KERNEL_TASKS,
            bins.splats,
            ctx.conics.reshape(total, 3),
            bins.offsets,
            partial,
            v_means2d.numpy().reshape(total, 2),
            v_conics.numpy().reshape(total, 3),
            v_opacities.numpy().reshape(total),
            v_colors.numpy().reshape(total, len(ctx.channels)),
        )
        v_backgrounds = None
        if ctx.needs_input_grad[4]:
            (alphas,) = ctx.saved_tensors
            v_backgrounds = torch.einsum("chwd,chw->cd", v_renders, 1 - alphas[..., 0])
        return v_means2d, v_conics, v_colors, v_opacities, v_backgrounds, *(None,) * 6


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
    """As :func:`degstalk_ns.rasterization.reference.rasterize_to_pixels`."""
    splats = (means2d, conics, colors, opacities, backgrounds)
    will_go_back = torch.is_grad_enabled() and any(splat is not None and splat.requires_grad for splat in splats)
    return _Blend.apply(*splats, depths, radii, width, height, passive, will_go_back)  # type: ignore[no-untyped-call]
