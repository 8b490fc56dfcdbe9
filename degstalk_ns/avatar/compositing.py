"""How regions become one frame: layers over each other (equation 7), and the silhouette without its rim.

Images in, images out, on any device. It must not know Gaussians, fields, files or nerfstudio.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREEN_KEY: tuple[float, float, float] = (0.0, 1.0, 0.0)
"""Colour behind the regions while they are trained (DEGSTalk and its family: a pure green screen)."""


RIM_OPAQUE: float = 0.75
"""Coverage from which a pixel counts as inside when the silhouette is moved inwards; below, it counts in proportion, so
that the new edge lies between pixels where the old one did. Origin: ours."""


def over(colour: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """``colour`` (premultiplied, [..., 3]) with ``alpha`` [..., 1] over ``behind`` [..., 3]."""
    return colour + (1.0 - alpha) * behind


def compose(face: Tensor, face_alpha: Tensor, mouth: Tensor, mouth_alpha: Tensor, plate: Tensor) -> Tensor:
    """Equation 7: ``C = F + (1 - a_F) * (M + (1 - a_M) * plate)``.

    Args:
        face, mouth: premultiplied colours [H, W, 3].
        face_alpha, mouth_alpha: [H, W, 1] in 0..1.
        plate: [H, W, 3].

    Returns:
        The composed frame [H, W, 3].
    """
    return over(face, face_alpha, over(mouth, mouth_alpha, plate))


def dilate_layer(channels: Tensor, alpha: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Spread a premultiplied layer outwards, against gaps between lips and teeth (an option of the release).

    Args:
        channels: [H, W, C] premultiplied: colour, and further channels such as depth.
        alpha: [H, W, 1] in 0..1.
        size: window of the max filter, pixels (odd).

    Returns:
        The channels, raised where alpha is raised by the layer's mean straight values in the same window, so that no
        dark rim appears; and alpha after the max filter.

    Raises:
        ValueError: an even window, or none.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a dilation window must be odd and positive, got {size}")
    grown = F.max_pool2d(alpha.permute(2, 0, 1), size, 1, size // 2).permute(1, 2, 0)
    both = torch.cat([channels, alpha], -1).permute(2, 0, 1)
    mean = F.avg_pool2d(both, size, 1, size // 2).permute(1, 2, 0)
    straight = mean[..., :-1] / mean[..., -1:].clamp_min(1e-6)
    return channels + (grown - alpha) * straight, grown


def inside_rim(covered: Tensor, pixels: int) -> Tensor:
    """How much of the regions is left when their silhouette moves inwards: 0 in a rim of ``pixels``, 1 inside.

    The face's training target is the head mask grown by some pixels, so that face and plate overlap; what it learns
    there is whatever lay behind the head at the time (background, hair, collar), and it would carry that along. The
    plate knows better. Edges of the image are no silhouette, nor are holes up to twice as wide as the rim: a head that
    has only begun to be learned is full of them.

    Args:
        covered: [H, W, 1] in 0..1, coverage of both regions together (:func:`alpha_over`). No gradient passes.
        pixels: at least 1.

    Returns:
        [H, W, 1] in 0..1, soft over a pixel; colour and alpha of both regions are multiplied by it.
    """
    size = 2 * pixels + 1
    if covered.is_cuda:
        filled = F.max_pool2d(covered.detach().permute(2, 0, 1)[None], size, 1, pixels)
        low = -F.max_pool2d(-filled, 4 * pixels + 1, 1, 2 * pixels)
        inside = (low / RIM_OPAQUE).clamp_(0.0, 1.0)
        return F.avg_pool2d(F.pad(inside, (1, 1, 1, 1), mode="replicate"), 3, 1)[0].permute(1, 2, 0)
    # OpenCV's is 25 times faster than the pooling on a CPU.
    closed = cv2.dilate(covered.detach()[..., 0].numpy(), np.ones((size, size), np.uint8))
    eroded = cv2.erode(closed, np.ones((4 * pixels + 1, 4 * pixels + 1), np.uint8))
    soft = cv2.blur(np.clip(eroded / RIM_OPAQUE, 0.0, 1.0), (3, 3), borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(soft)[..., None]


def alpha_over(face_alpha: Tensor, mouth_alpha: Tensor) -> Tensor:
    """Coverage of both regions together, [H, W, 1] in 0..1: how much of the plate is hidden."""
    return 1.0 - (1.0 - face_alpha) * (1.0 - mouth_alpha)
