"""Mean structural similarity (SSIM) of two images and its gradient, by Numba kernels on the CPU.

The value is pytorch_msssim's, which still does the work on other devices; its grouped convolutions took more than half
of a training step on the CPU. It must not know what the images show nor which loss uses the value.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytorch_msssim
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from degstalk_ns.kernels.compiled import helper, kernel
from degstalk_ns.kernels.threads import run

SSIM_WINDOW = 11
"""Pixels a side of the Gaussian window (sigma 1.5 pixels), as in the SSIM paper (Wang et al. 2004, section III-B)."""

_SIGMA = 1.5
_C1 = 0.01**2
_C2 = 0.03**2
"""(K1 L)^2 and (K2 L)^2 of equation 13 of the SSIM paper, for a data range L of 1."""

# A row of pixels is one run of interleaved values: the next pixel of the same channel is _CHANNELS values further, so
# horizontal filters need no planes per channel. Work is cut into tiles of fixed size, whatever the number of threads,
# and each tile's sums are added in a fixed order: results are the same to the last bit.
#
# One array per tile holds everything at constant offsets, with unsigned indices: only then does the compiler see that
# loads and stores do not overlap, and vectorises.
_CHANNELS = 3
TILE_ROWS = 32
TILE_VALUES = 384
"""Most values of one row that a tile computes."""

_u = np.uint64
_PIXEL = _u(_CHANNELS)
_HALO_ROWS = SSIM_WINDOW - 1
_HALO = _CHANNELS * (SSIM_WINDOW - 1)
_LINE = 432  # at least TILE_VALUES + _HALO; no power of two, so that lines do not compete for the same cache sets
_STEP = _u(_LINE)
_PLANE = _LINE * (TILE_ROWS + _HALO_ROWS)
# Up to three inputs (two images, or three maps), then up to four lines that were filtered vertically.
_IN_0, _IN_1, _IN_2 = _u(0), _u(_PLANE), _u(2 * _PLANE)
_OUT_0, _OUT_1, _OUT_2, _OUT_3 = (_u(3 * _PLANE + i * _LINE) for i in range(4))
_SCRATCH = 3 * _PLANE + 4 * _LINE

# Sums may be reordered and fused, but NaN and infinity keep their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}


@helper
def _weighted(w, a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10):  # type: ignore[no-untyped-def]
    """The symmetric window's sum; ``w`` holds its first six weights."""
    return w[0] * (a0 + a10) + w[1] * (a1 + a9) + w[2] * (a2 + a8) + w[3] * (a3 + a7) + w[4] * (a4 + a6) + w[5] * a5


@helper
def _taps(w, a, i, step):  # type: ignore[no-untyped-def]
    """The window's sum over ``a`` at i, i + step, ..."""
    return _weighted(
        w,
        a[i],
        a[i + step],
        a[i + _u(2) * step],
        a[i + _u(3) * step],
        a[i + _u(4) * step],
        a[i + _u(5) * step],
        a[i + _u(6) * step],
        a[i + _u(7) * step],
        a[i + _u(8) * step],
        a[i + _u(9) * step],
        a[i + _u(10) * step],
    )


@helper
def _moment_taps(w, a, i):  # type: ignore[no-untyped-def]
    """Vertical sums of x, y, x^2 + y^2 and x y: SSIM needs the two squares only together."""
    j = i + _IN_1
    x0, y0 = a[i], a[j]
    x1, y1 = a[i + _STEP], a[j + _STEP]
    x2, y2 = a[i + _u(2) * _STEP], a[j + _u(2) * _STEP]
    x3, y3 = a[i + _u(3) * _STEP], a[j + _u(3) * _STEP]
    x4, y4 = a[i + _u(4) * _STEP], a[j + _u(4) * _STEP]
    x5, y5 = a[i + _u(5) * _STEP], a[j + _u(5) * _STEP]
    x6, y6 = a[i + _u(6) * _STEP], a[j + _u(6) * _STEP]
    x7, y7 = a[i + _u(7) * _STEP], a[j + _u(7) * _STEP]
    x8, y8 = a[i + _u(8) * _STEP], a[j + _u(8) * _STEP]
    x9, y9 = a[i + _u(9) * _STEP], a[j + _u(9) * _STEP]
    x10, y10 = a[i + _u(10) * _STEP], a[j + _u(10) * _STEP]
    return (
        _weighted(w, x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10),
        _weighted(w, y0, y1, y2, y3, y4, y5, y6, y7, y8, y9, y10),
        _weighted(
            w,
            x0 * x0 + y0 * y0,
            x1 * x1 + y1 * y1,
            x2 * x2 + y2 * y2,
            x3 * x3 + y3 * y3,
            x4 * x4 + y4 * y4,
            x5 * x5 + y5 * y5,
            x6 * x6 + y6 * y6,
            x7 * x7 + y7 * y7,
            x8 * x8 + y8 * y8,
            x9 * x9 + y9 * y9,
            x10 * x10 + y10 * y10,
        ),
        _weighted(
            w, x0 * y0, x1 * y1, x2 * y2, x3 * y3, x4 * y4, x5 * y5, x6 * y6, x7 * y7, x8 * y8, x9 * y9, x10 * y10
        ),
    )


@helper
def _similarity_row(w, c1, c2, scratch, count, d_mean, d_square, d_product, at):  # type: ignore[no-untyped-def]
    """Finish one row: returns its sum of SSIM and writes the three partial derivatives from ``at`` on."""
    total = c1 - c1
    two = w.dtype.type(2.0)
    for j in range(count):
        mx = _taps(w, scratch, j + _OUT_0, _PIXEL)
        my = _taps(w, scratch, j + _OUT_1, _PIXEL)
        squares = _taps(w, scratch, j + _OUT_2, _PIXEL)
        product = _taps(w, scratch, j + _OUT_3, _PIXEL)
        means = mx * my
        mean_squares = mx * mx + my * my
        a1 = two * means + c1
        a2 = two * (product - means) + c2
        b1 = mean_squares + c1
        b2 = squares - mean_squares + c2
        inverse = w.dtype.type(1.0) / (b1 * b2)
        similarity = a1 * a2 * inverse
        over_b1, over_b2 = b2 * inverse, b1 * inverse
        total += similarity
        d_mean[at + j] = two * (my * (a2 - a1) * inverse + mx * similarity * (over_b2 - over_b1))
        d_square[at + j] = -similarity * over_b2
        d_product[at + j] = two * a1 * inverse
    return total


@helper
def _similarity_tile(  # type: ignore[no-untyped-def]
    w, c1, c2, x, x_stride, y, y_stride, scratch, row, rows, first, count, columns, d_mean, d_square, d_product
):
    """Values first .. first + count of the SSIM map's rows row .. row + rows; returns their sum."""
    wide = count + _u(_HALO)
    for r in range(rows + _u(_HALO_ROWS)):
        from_x, from_y, to = (row + r) * x_stride + first, (row + r) * y_stride + first, r * _STEP
        for j in range(wide):
            scratch[to + j] = x[from_x + j]
        for j in range(wide):
            scratch[to + _IN_1 + j] = y[from_y + j]
    total = 0.0
    for r in range(rows):
        line = r * _STEP
        for j in range(wide):
            mx, my, squares, product = _moment_taps(w, scratch, line + j)
            scratch[j + _OUT_0] = mx
            scratch[j + _OUT_1] = my
            scratch[j + _OUT_2] = squares
            scratch[j + _OUT_3] = product
        at = (row + r) * columns + first
        total += _similarity_row(w, c1, c2, scratch, count, d_mean, d_square, d_product, at)
    return total


@partial(kernel, fastmath=_FAST)
def _similarity_forward(  # type: ignore[no-untyped-def]
    task, tasks, w, c1, c2, x, x_stride, y, y_stride, rows, columns, width, sums, d_mean, d_square, d_product
):
    """Sums [tasks] of SSIM and the maps [rows * columns] of its partial derivatives; a task is TILE_ROWS rows.

    w [6], c1, c2: first half of the window and constants, in the images' dtype. x, y: values of both images, flat, with
    so many from one row to the next. rows, columns: of the SSIM map, ``columns`` in values. width: of a tile.
    """
    scratch = np.empty(_SCRATCH, w.dtype)
    row = _u(task) * _u(TILE_ROWS)
    height = min(_u(TILE_ROWS), rows - row)
    total = 0.0
    for first in range(_u(0), columns, width):
        count = min(width, columns - first)
        total += _similarity_tile(
            w,
            c1,
            c2,
            x,
            x_stride,
            y,
            y_stride,
            scratch,
            row,
            height,
            first,
            count,
            columns,
            d_mean,
            d_square,
            d_product,
        )
    sums[task] = total


@helper
def _load_padded(scratch, to, source, start, low, high, wide):  # type: ignore[no-untyped-def]
    """Line ``to`` of the scratch: values low .. high of ``wide`` from source[start:], zeros outside."""
    for j in range(low):
        scratch[to + j] = 0.0
    for j in range(high - low):
        scratch[to + low + j] = source[start + j]
    for j in range(wide - high):
        scratch[to + high + j] = 0.0


@helper
def _gradient_row(w, scale, scratch, count, x, from_x, y, from_y, gradient, at):  # type: ignore[no-untyped-def]
    two = w.dtype.type(2.0)
    for j in range(count):
        mean = _taps(w, scratch, j + _OUT_0, _PIXEL)
        square = _taps(w, scratch, j + _OUT_1, _PIXEL)
        product = _taps(w, scratch, j + _OUT_2, _PIXEL)
        gradient[at + j] = scale * (mean + two * x[from_x + j] * square + y[from_y + j] * product)


@helper
def _gradient_tile(  # type: ignore[no-untyped-def]
    w, scale, x, x_stride, y, y_stride, scratch, row, rows, first, count, columns, map_rows, d_mean, d_square,
    d_product, gradient,
):  # fmt: skip
    """Values first .. first + count of the gradient's rows row .. row + rows."""
    halo, halo_rows = _u(_HALO), _u(_HALO_ROWS)
    map_columns = columns - halo
    wide = count + halo
    # The windows that see a pixel begin up to a halo before it: column j of a line is the maps' first - halo + j.
    low = min(max(halo, first) - first, wide)
    high = max(min(map_columns + halo - first, wide), low)
    for r in range(rows + halo_rows):
        to = r * _STEP
        if row + r < halo_rows or row + r >= map_rows + halo_rows:
            for j in range(wide):
                scratch[to + j] = 0.0
                scratch[to + j + _IN_1] = 0.0
                scratch[to + j + _IN_2] = 0.0
        else:
            start = (row + r - halo_rows) * map_columns + first + low - halo
            _load_padded(scratch, to + _IN_0, d_mean, start, low, high, wide)
            _load_padded(scratch, to + _IN_1, d_square, start, low, high, wide)
            _load_padded(scratch, to + _IN_2, d_product, start, low, high, wide)
    for r in range(rows):
        line = r * _STEP
        for j in range(wide):
            mean = _taps(w, scratch, line + j + _IN_0, _STEP)
            square = _taps(w, scratch, line + j + _IN_1, _STEP)
            product = _taps(w, scratch, line + j + _IN_2, _STEP)
            scratch[j + _OUT_0] = mean
            scratch[j + _OUT_1] = square
            scratch[j + _OUT_2] = product
        from_x, from_y = (row + r) * x_stride + first, (row + r) * y_stride + first
        _gradient_row(w, scale, scratch, count, x, from_x, y, from_y, gradient, (row + r) * columns + first)


@partial(kernel, fastmath=_FAST)
def _similarity_backward(  # type: ignore[no-untyped-def]
    task, tasks, w, scale, x, x_stride, y, y_stride, rows, columns, width, d_mean, d_square, d_product, gradient
):
    """Gradient [rows * columns], rows and columns (in values) being the image's: ``scale`` times the sum over windows
    of weight (dS/dmu_x + 2 x dS/dE[xx] + y dS/dE[xy]). A task is TILE_ROWS rows."""
    scratch = np.empty(_SCRATCH, w.dtype)
    row = _u(task) * _u(TILE_ROWS)
    height, map_rows = min(_u(TILE_ROWS), rows - row), rows - _u(_HALO_ROWS)
    for first in range(_u(0), columns, width):
        count = min(width, columns - first)
        _gradient_tile(
            w, scale, x, x_stride, y, y_stride, scratch, row, height, first, count, columns, map_rows, d_mean, d_square,
            d_product, gradient,
        )  # fmt: skip


def _half_window(dtype: torch.dtype) -> Tensor:
    """First six weights; rounded to float32 for every dtype, as pytorch_msssim's."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float32) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    return (weights / weights.sum())[: SSIM_WINDOW // 2 + 1].to(dtype)


def _flat(image: Tensor) -> tuple[Any, np.uint64]:
    """All values from the image's first to its last, and the step from row to row; a crop is not copied."""
    image = image.detach()
    if image.stride(2) != 1 or image.stride(1) != _CHANNELS:
        image = image.contiguous()
    height, width = image.shape[:2]
    step = image.stride(0)
    return image.as_strided(((height - 1) * step + width * _CHANNELS,), (1,)).numpy(), np.uint64(step)


def _size(rows: int, columns: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Rows and columns of a map, and the width of its tiles: much the same for all, at most TILE_VALUES."""
    across = -(-columns // TILE_VALUES)
    return np.uint64(rows), np.uint64(columns), np.uint64(-(-columns // across))


class _MeanSSIM(torch.autograd.Function):
    """(image, target) -> mean SSIM; both [H, W, 3] float32 or float64 on the CPU."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor) -> Tensor:
        rows, columns = image.shape[0] - _HALO_ROWS, image.shape[1] * _CHANNELS - _HALO
        window = _half_window(image.dtype)
        constants = window.new_tensor([_C1, _C2]).numpy()
        maps = torch.empty(3, rows * columns, dtype=image.dtype)
        sums = np.empty(-(-rows // TILE_ROWS))
        sources = (*_flat(image), *_flat(target), *_size(rows, columns))
        run(_similarity_forward, len(sums), window.numpy(), *constants, *sources, sums, *maps.numpy())
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(image, target, maps)
        return image.new_tensor(sums.sum() / (rows * columns))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None]:
        image, target, maps = ctx.saved_tensors
        rows, columns = image.shape[0], image.shape[1] * _CHANNELS
        window = _half_window(image.dtype).numpy()
        scale = window.dtype.type(upstream.item() / maps[0].numel())
        gradient = torch.empty(image.shape, dtype=image.dtype)
        sources = (*_flat(image), *_flat(target), *_size(rows, columns))
        results = (*maps.numpy(), gradient.view(-1).numpy())
        run(_similarity_backward, -(-rows // TILE_ROWS), window, scale, *sources, *results)
        return gradient, None


def mean_ssim(image: Tensor, target: Tensor) -> Tensor:
    """Mean SSIM over all windows that lie inside the images, and over the channels (Wang et al. 2004, equation 13).

    The value of ``pytorch_msssim.ssim(..., data_range=1.0)``. Tensors on the CPU give the same bits for any number of
    threads.

    Args:
        image: [H, W, 3] in 0..1, at least 11 pixels a side; differentiable once.
        target: same shape, dtype and device; needs no gradient and gets none.

    Returns:
        A scalar in -1..1.

    Raises:
        ValueError: other or different shapes, an image smaller than the window, a target that requires a gradient.
    """
    if image.shape != target.shape or image.ndim != 3 or image.shape[2] != _CHANNELS:
        raise ValueError(
            f"SSIM compares two images [H, W, {_CHANNELS}]; these are {list(image.shape)} and {list(target.shape)}"
        )
    if min(image.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of {SSIM_WINDOW} x {SSIM_WINDOW} pixels or more, not {list(image.shape)}")
    if target.requires_grad:
        raise ValueError("SSIM's target gets no gradient: detach it, or swap the two images")
    if image.device.type == "cpu" and image.dtype == target.dtype and image.dtype in (torch.float32, torch.float64):
        return _MeanSSIM.apply(image, target)  # type: ignore[no-untyped-call]
    return pytorch_msssim.ssim(image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None], data_range=1.0)
