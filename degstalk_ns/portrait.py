"""How regions become a portrait: region masks, the plate behind the face, and the composition of equation 7.

It must not know Gaussians, fields, files or nerfstudio: images and masks in, images out.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

GREEN_KEY: tuple[float, float, float] = (0.0, 1.0, 0.0)
"""Colour behind the regions while they are trained (DEGSTalk and its family: a pure green screen)."""

PLATE_EROSION: int = 13
"""Window, in pixels at any resolution of the family (512), by which the face region is eroded before it is cut
out of the plate, so that hair at its border survives (DEGSTalk, hair preservation)."""


def _window(size: int) -> NDArray[np.uint8]:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a morphological window must be odd and positive, got {size}")
    return np.ones((size, size), np.uint8)


def dilate(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Grow ``mask`` (bool [H, W]) by a square window of ``size`` pixels (odd)."""
    return cv2.dilate(mask.astype(np.uint8), _window(size)).astype(bool)


def erode(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Shrink ``mask`` (bool [H, W]) by a square window of ``size`` pixels (odd)."""
    return cv2.erode(mask.astype(np.uint8), _window(size)).astype(bool)


def frame_plate(
    frame: NDArray[np.uint8],
    head_region: NDArray[np.bool_],
    torso: NDArray[np.uint8],
    clean_plate: NDArray[np.uint8],
    erosion: int = PLATE_EROSION,
) -> NDArray[np.uint8]:
    """The plate of one frame: everything but the face (DEGSTalk, hair preservation and equation 7).

    Outside the eroded head region it is the frame itself (hair, torso, background); inside, the torso image over
    the clean background plate, so that nothing of the recorded face is left behind the rendered one.

    Args:
        frame: RGB [H, W, 3], 0..255.
        head_region: bool [H, W], face and mouth interior together.
        torso: RGBA [H, W, 4], 0..255, straight (not premultiplied) alpha.
        clean_plate: RGB [H, W, 3], 0..255, the background without the person.
        erosion: window in pixels (odd).

    Returns:
        RGB [H, W, 3], 0..255.
    """
    inside = erode(head_region, erosion)
    plate = frame.copy()
    alpha = torso[inside][:, 3:].astype(np.uint16)
    behind = torso[inside][:, :3] * alpha + clean_plate[inside] * (255 - alpha)
    plate[inside] = ((behind + 127) // 255).astype(np.uint8)
    return plate


def over(colour: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """``colour`` (premultiplied, [..., 3]) with ``alpha`` [..., 1] over ``behind`` [..., 3]."""
    return colour + (1.0 - alpha) * behind


def compose(
    face: Tensor, face_alpha: Tensor, mouth: Tensor, mouth_alpha: Tensor, plate: Tensor, mouth_dilation: int = 0
) -> Tensor:
    """Equation 7: ``C = F + (1 - a_F) * (M + (1 - a_M) * plate)``.

    Args:
        face, mouth: premultiplied colours [H, W, 3].
        face_alpha, mouth_alpha: [H, W, 1] in 0..1.
        plate: [H, W, 3].
        mouth_dilation: window in pixels (odd) of a max filter on the mouth's alpha; 0 leaves it as it is. Where the
            filter raises alpha, the mouth's colour is raised with it, so that no dark rim appears.

    Returns:
        The composed frame [H, W, 3].
    """
    if mouth_dilation:
        mouth, mouth_alpha = dilate_layer(mouth, mouth_alpha, mouth_dilation)
    return over(face, face_alpha, over(mouth, mouth_alpha, plate))


def dilate_layer(colour: Tensor, alpha: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Spread a premultiplied layer outwards: alpha by a max filter of ``size`` pixels (odd), colour by the mean
    straight colour of the layer in the same window. Shapes [H, W, 3] and [H, W, 1]."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a dilation window must be odd and positive, got {size}")
    grown = F.max_pool2d(alpha.permute(2, 0, 1), size, 1, size // 2).permute(1, 2, 0)
    both = torch.cat([colour, alpha], -1).permute(2, 0, 1)
    mean = F.avg_pool2d(both, size, 1, size // 2).permute(1, 2, 0)
    straight = mean[..., :3] / mean[..., 3:].clamp_min(1e-6)
    return colour + (grown - alpha) * straight, grown


def alpha_over(face_alpha: Tensor, mouth_alpha: Tensor) -> Tensor:
    """Coverage of both regions together, [H, W, 1] in 0..1: how much of the plate is hidden."""
    return 1.0 - (1.0 - face_alpha) * (1.0 - mouth_alpha)
