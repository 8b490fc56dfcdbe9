"""PSNR, SSIM, correlation and jitter."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_msssim
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from degstalk_ns.metrics.image import correlation, psnr, ssim, temporal_jitter


def pair(size: int = 48, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(size, size, 3, generator=generator)
    image = (target + noise * torch.randn(size, size, 3, generator=generator)).clamp(0, 1)
    return image, target


def test_psnr() -> None:
    image, target = pair()
    assert psnr(image, target) == pytest.approx(float(peak_signal_noise_ratio(image, target, data_range=1.0)), abs=1e-4)
    assert psnr(target, target) == float("inf")
    assert psnr(torch.zeros(4, 4, 3), torch.full((4, 4, 3), 0.1)) == pytest.approx(20.0, abs=1e-4)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    assert psnr(torch.zeros(4, 4, 3), torch.ones(4, 4, 3), mask) is None
    mask[1, 2] = True
    other = torch.ones(4, 4, 3)
    other[1, 2] = 0.01
    assert psnr(torch.zeros(4, 4, 3), other, mask) == pytest.approx(40.0, abs=1e-4)
    with pytest.raises(ValueError, match="two images"):
        psnr(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))


def test_ssim() -> None:
    image, target = pair()
    x, y = (picture.permute(2, 0, 1)[None] for picture in (image, target))
    # torchmetrics pads the border that pytorch_msssim leaves out.
    expected = float(structural_similarity_index_measure(x, y, data_range=1.0, gaussian_kernel=True, sigma=1.5))
    value = ssim(image, target)
    assert value == pytest.approx(expected, abs=0.02) and value is not None and value < 0.99
    assert value == pytest.approx(float(pytorch_msssim.ssim(x, y, data_range=1.0)), abs=1e-6)
    assert value == ssim(image.double(), target.double())
    assert ssim(target, target) == pytest.approx(1.0, abs=1e-5)
    assert ssim(torch.zeros(8, 40, 3), torch.zeros(8, 40, 3)) is None


def test_correlation() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2], [1, 2]) is None and correlation([1, 1, 1], [1, 2, 3]) is None
    with pytest.raises(ValueError, match="equally long"):
        correlation([1, 2, 3], [1, 2])


def test_jitter() -> None:
    t = np.arange(10.0)
    steady = np.stack([t, 3 - 2 * t], 1)[:, None]
    assert temporal_jitter(steady) == pytest.approx(0, abs=1e-12)
    shaking = np.stack([(-1.0) ** t, 0 * t], 1)[:, None]
    assert temporal_jitter(shaking) == pytest.approx(4 / np.sqrt(2))
    assert temporal_jitter(steady[:2]) is None and temporal_jitter(steady[:, :0]) is None
    # Bytes must not wrap around.
    assert temporal_jitter(np.array([[0], [255], [0], [255]], np.uint8)) == pytest.approx(2 * 255)
