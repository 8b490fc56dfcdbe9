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

JAW_SEAM: int = 14
"""Pixels, at a resolution of 512, over which edge and shadow of the recorded jaw fade on the neck. Origin: ours; the
shadow under a chin is about 10 pixels deep."""


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


def freed_plate(
    frame: NDArray[np.uint8],
    head_region: NDArray[np.bool_],
    body: NDArray[np.bool_],
    torso: NDArray[np.uint8],
    clean_plate: NDArray[np.uint8],
    erosion: int = PLATE_EROSION,
    seam: int = JAW_SEAM,
) -> NDArray[np.uint8]:
    """The plate of one frame for a jaw that moves otherwise than the recorded one: nothing of that one is left.

    :func:`frame_plate` leaves a rim of the recorded face, which the rendered face covers as long as it makes the same
    movement. With another sound the jaw is elsewhere, and the rim would show as a second chin. Here the whole head
    region is cut where the torso image continues behind it, and what the recorded jaw threw on the neck (its edge and
    shadow) fades over ``seam`` pixels into the colour that the neck has behind it. Towards hair and background the rim
    stays as it is, for the hair's sake.

    Args:
        frame, head_region, torso, clean_plate, erosion: as :func:`frame_plate` takes them.
        body: bool [H, W], neck and torso as they are seen.
        seam: pixels.

    Returns:
        RGB [H, W, 3], 0..255.
    """
    plate = frame_plate(frame, head_region, torso, clean_plate, erosion)
    near_body = dilate(body, 2 * erosion + 1)
    rim = head_region & ~erode(head_region, erosion) & near_body & (torso[..., 3] == 255)
    plate[rim] = torso[..., :3][rim]
    if not rim.any():
        return plate
    # Every pixel's distance to the cut rim, and which pixel of it is nearest.
    distance, labels = cv2.distanceTransformWithLabels(
        (~rim).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.float32)
    smooth = _smooth_inside(torso[..., :3], torso[..., 3] == 255, seam / 2)
    colours[labels[rim]] = smooth[rim]
    strip = body & (distance > 0) & (distance < seam)
    share = (1.0 - distance[strip] / seam)[:, None]
    share = share * share * (3.0 - 2.0 * share)
    plate[strip] = (share * colours[labels[strip]] + (1.0 - share) * plate[strip] + 0.5).astype(np.uint8)
    return plate


def _smooth_inside(image: NDArray[np.uint8], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian mean of RGB [H, W, 3] over the pixels ``inside`` alone; zero where none is near."""
    weight = inside.astype(np.float32)
    sums = cv2.GaussianBlur(image * weight[..., None], (0, 0), sigma)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    return sums / np.maximum(share, 1e-6)[..., None]


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
