"""Composes the layers of a frame: face over mouth over plate (equation 7), and removes the band by which the face was
trained to overlap its plate.

Images in, images out, on any device. It must not know Gaussians, fields, files or nerfstudio.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GREEN_KEY: tuple[float, float, float] = (0.0, 1.0, 0.0)
"""Background colour behind the regions during training: pure green, as in the official DEGSTalk code."""


RIM_OPAQUE: float = 0.75
"""Coverage above which a pixel counts as inside when the silhouette is moved inwards. Below it a pixel counts in
proportion, so that the new edge keeps the subpixel position of the old one. Chosen for this project."""


def over(colour: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """``colour`` (premultiplied, [..., 3]) with ``alpha`` [..., 1] over ``behind`` [..., 3]."""
    return colour + (1.0 - alpha) * behind


def compose(face: Tensor, face_alpha: Tensor, mouth: Tensor, mouth_alpha: Tensor, plate: Tensor) -> Tensor:
    """Equation 7: ``C = F + (1 - a_F) * (M + (1 - a_M) * plate)``, and the hair of the plate in front of it.

    Args:
        face, mouth: premultiplied colours [H, W, 3].
        face_alpha, mouth_alpha: [H, W, 1] in 0..1.
        plate: [H, W, 3], or [H, W, 4] with the share of each pixel that lies in front of the face (0..1).

    Returns:
        The composed frame [H, W, 3].
    """
    behind = plate[..., :3]
    composed = over(face, face_alpha, over(mouth, mouth_alpha, behind))
    if plate.shape[-1] == 3:
        return composed
    return torch.lerp(composed, behind, plate[..., 3:])


def dilate_layer(channels: Tensor, alpha: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Spreads a premultiplied layer outwards, to close gaps between lips and teeth (an option of the official DEGSTalk
    code).

    Args:
        channels: [H, W, C] premultiplied: colour, and further channels such as depth.
        alpha: [H, W, 1] in 0..1.
        size: window of the max filter, pixels (odd).

    Returns:
        The channels and alpha after the max filter. Where alpha is raised, the channels are raised by the mean
        unpremultiplied values of the layer in the same window, so that no dark border appears.

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
    """Weights that move the silhouette of the regions inwards: 0 in a band of ``pixels`` along it, 1 inside.

    The training target of the face is the head mask dilated by some pixels, so that face and plate overlap. In that
    band the face learns whatever lay behind the head in each frame (background, hair, collar) and would carry it along
    with its movement; the plate shows it correctly. The edges of the image do not count as silhouette, and neither do
    holes up to twice as wide as the band, of which a face in early training is full.

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
