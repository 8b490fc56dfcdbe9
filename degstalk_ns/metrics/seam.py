"""Where a composed frame is broken: cracks between face and plate, and specks in the face.

Counts of pixels, because a mean hides them: a black slit of fifty pixels in the forehead costs no PSNR. Near the border
most of a frame is its own plate, so a plate without any face has few cracks too: read them beside the broken pixels of
the face, of which it has many. It must not know nerfstudio, models or datasets.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.plates.build import dilate, erode
from degstalk_ns.plates.lengths import odd_window

BROKEN = 64 / 255
"""Difference in grey (0 to 1) above which a pixel is broken, not merely inexact. Origin: chosen for this project."""
BAND: float = 16 / 512
"""Reach of the band along the border of the head mask, to each side, as a fraction of the frame height. Origin: chosen
for this project."""
WORST = 50
"""Broken pixels in the band, at a frame of 512 x 512, above which a crack is plain to see. Origin: chosen for this
project."""
_GREY = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class SeamErrors:
    """Errors of one frame.

    Attributes:
        cracks: broken pixels in the band along the border of the head.
        cracks_at_hair: those of them that lie near the hair.
        band_l1: mean absolute error in the band, 0 to 1.
        broken_face: broken pixels of the head (mouth included) as a fraction of its pixels.
    """

    cracks: int
    cracks_at_hair: int
    band_l1: float
    broken_face: float


def broken_pixels(image: Tensor, truth: Tensor) -> NDArray[np.bool_]:
    """bool [H, W]: pixels whose grey differs by more than :data:`BROKEN`; both images [H, W, 3] in 0..1."""
    difference = (image.detach() - truth).cpu() @ torch.tensor(_GREY)
    return np.asarray((difference.abs() > BROKEN).numpy())


def border_band(head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [H, W]: pixels within :data:`BAND` of the border of ``head`` (bool [H, W]), on either side."""
    window = odd_window(BAND, len(head))
    return dilate(head, window) & ~erode(head, window)


def seam_errors(image: Tensor, truth: Tensor, head: NDArray[np.bool_], hair: NDArray[np.bool_]) -> SeamErrors | None:
    """Errors of a composed frame along the border of the head and in the face.

    Args:
        image, truth: [H, W, 3] in 0..1.
        head: bool [H, W], face and mouth together, as recorded.
        hair: bool [H, W].

    Returns:
        None without a head.
    """
    band = border_band(head)
    if not head.any() or not band.any():
        return None
    broken = broken_pixels(image, truth)
    cracks = broken & band
    near_hair = dilate(hair, odd_window(BAND, len(head)))
    error = (image.detach() - truth).abs().mean(-1).cpu().numpy()
    return SeamErrors(
        cracks=int(cracks.sum()),
        cracks_at_hair=int((cracks & near_hair).sum()),
        band_l1=float(error[band].mean()),
        broken_face=float(broken[head].mean()),
    )


def is_plain(cracks: float, height: int) -> bool:
    """Whether so many broken pixels along the border of a frame of ``height`` pixels are plain to see."""
    return cracks > WORST * (height / 512) ** 2


def sharpness(image: Tensor, truth: Tensor, inside: NDArray[np.bool_]) -> float | None:
    """How sharp a rendered region is: spread of its Laplacian over that of the recorded region.

    Args:
        image, truth: [H, W, 3] in 0..1.
        inside: bool [H, W], the region.

    Returns:
        1 where it is as sharp as recorded, 0 where it is smooth; None where the recorded region is empty or smooth.
    """
    spreads = []
    for picture in (image, truth):
        grey = (picture.detach().cpu() @ torch.tensor(_GREY)).numpy()
        values = cv2.Laplacian(grey, cv2.CV_32F, ksize=3)[inside]
        spreads.append(float(values.std()) if len(values) else 0.0)
    return spreads[0] / spreads[1] if spreads[1] > 0 else None
