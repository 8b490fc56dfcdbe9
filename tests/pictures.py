"""Metrics of the pictures that an evaluation writes, by numpy alone: what its numbers are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from degstalk_ns.dataparsers.recording import Recording

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """``truth`` and ``image``: [N, H, W, 3] RGB; ``lips``: [N, 4] rows y0, y1, columns x0, x1."""

    truth: Images
    image: Images
    lips: NDArray[np.int32]

    def psnr(self) -> NDArray[np.float64]:
        error = self._difference() ** 2
        return np.asarray(-10 * np.log10(error.mean(axis=(1, 2, 3))))

    def ssim(self) -> NDArray[np.float64]:
        return np.array([_ssim(a / 255.0, b / 255.0) for a, b in zip(self.truth, self.image, strict=True)])

    def lips_l1(self) -> NDArray[np.float64]:
        difference = np.abs(self._difference())
        boxes = zip(difference, self.lips, strict=True)
        return np.array([values[y0:y1, x0:x1].mean() for values, (y0, y1, x0, x1) in boxes])

    def agree_with(self, results: Mapping[str, float]) -> None:
        """The reported means are those of the pictures, up to their rounding to bytes."""
        assert results["psnr"] == pytest.approx(self.psnr().mean(), abs=0.02)
        assert results["ssim"] == pytest.approx(self.ssim().mean(), abs=1e-3)
        assert results["lips_l1"] == pytest.approx(self.lips_l1().mean(), abs=2e-3)

    def _difference(self) -> NDArray[np.float64]:
        return (self.truth.astype(np.float64) - self.image) / 255.0


def evaluated_pictures(folder: Path, recording: Recording) -> Pictures:
    """The compositions in ``folder``: each shows the recorded frame on its left and the rendered one on its right."""
    files = sorted(folder.glob("*_composition_*.png"))
    both = np.stack([cv2.imread(str(file))[..., ::-1] for file in files])
    width = both.shape[2] // 2
    return Pictures(both[:, :, :width], both[:, :, width:], recording.lips_rect[recording.val.aud_ids])


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Wang et al. 2004: a Gaussian window of 11 pixels with sigma 1.5, where it lies within the image."""

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in (0, 1):
            values = gaussian_filter1d(values, 1.5, axis=axis, radius=5)
        return values[5:-5, 5:-5]

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((value / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean())
