"""How alike two images are (PSNR, SSIM), and how series of numbers and of frames behave in time.

A number that cannot be computed is None, never a made-up one. It must not know nerfstudio, models or datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.metrics.ssim import SSIM_WINDOW, mean_ssim


def check_same_shape(image: Tensor, target: Tensor) -> None:
    if image.shape != target.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected two images [H, W, 3], got {list(image.shape)} and {list(target.shape)}")


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB.

    Args:
        image, target: [H, W, 3] in 0..1.
        mask: bool [H, W]; only its pixels count.

    Returns:
        dB, infinite for equal images; None where ``mask`` is empty.
    """
    check_same_shape(image, target)
    squared = (image.double() - target.double()) ** 2
    if mask is not None:
        squared = squared[mask]
    if not squared.numel():
        return None
    return float(-10 * torch.log10(squared.mean()))


def ssim(image: Tensor, target: Tensor) -> float | None:
    """Structural similarity, at most 1: :func:`degstalk_ns.metrics.ssim.mean_ssim`.

    Args:
        image, target: [H, W, 3] in 0..1.

    Returns:
        None where a side is shorter than the window.
    """
    check_same_shape(image, target)
    if min(image.shape[:2]) < SSIM_WINDOW:
        return None
    return float(mean_ssim(image.detach().float(), target.detach().float()))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r of two equally long series; None with fewer than three values or where one does not change."""
    a, b = (np.asarray(series, np.float64) for series in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"expected two equally long series, got {len(a)} and {len(b)}")
    if len(a) < 3 or not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def temporal_jitter(series: NDArray[Any]) -> float | None:
    """Root mean square of second differences in time, in the units of ``series``: 0 where all moves uniformly.

    Args:
        series: [T, ...], for example the pixels of frames [T, P, 3] or landmarks [T, P, 2].

    Returns:
        None with fewer than three steps in time or nothing in each.
    """
    if len(series) < 3 or not series.size:
        return None
    second = series[2:].astype(np.float64) - 2.0 * series[1:-1] + series[:-2]
    return float(np.sqrt(np.mean(second**2)))
