"""The training losses: equations 8 and 9 and the regularisers of DEGSTalk, on images, masks and offsets.

It must not know Gaussians, steps or nerfstudio: which loss is on when is `stages.py`'s business.
Image losses are evaluated on the smallest box outside which both images are equal, and normalised by the whole
image: the value is that of the whole image, the cost is that of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from degstalk_ns.avatar.boxes import Area, Box
from degstalk_ns.metrics.lpips import LPIPS_MINIMUM, Perceptual, padded_to
from degstalk_ns.metrics.ssim import SSIM_WINDOW, mean_ssim
from degstalk_ns.plates.lengths import whole_pixels


@dataclass
class LossConfig:
    """Weights. Defaults are the release's; the paper's text names lambda = 0.5 and gamma = 0.2."""

    lambda_dssim: float = 0.2
    """Weight of D-SSIM (equation 8; release 0.2, paper 0.5)."""
    jaw: float = 1e-3
    """Weight beta of the jaw loss (L1)."""
    offsets: float = 1e-5
    """Weight of each kind of offset's L1."""
    alpha: float = 1e-3
    """Weight of the regions' alpha against their masks."""
    attention: float = 1e-4
    """Weight of the attention that must stay off lips (expression) and hair (both)."""
    face_lips_perceptual: float = 0.01
    """LPIPS on the crop of the lips, end of the motion stage."""
    face_patch_perceptual: float = 0.2
    """LPIPS on patches of the face with the lips painted over, end of the motion stage."""
    mouth_patch_perceptual: float = 0.5
    """LPIPS on patches of the mouth, end of the motion stage."""
    fuse_perceptual: float = 0.5
    """Weight gamma of LPIPS in the second half of the fuse stage (equation 9; release 0.5, paper 0.2)."""
    random_key: bool = False
    """Put a random colour behind the regions at each step of the first two stages instead of the green key (release:
    green). It settles alpha sooner, which short runs need."""
    face_patch: tuple[float, float] = (64 / 512, 96 / 512)
    """Smallest and largest side of the face's random patches, as fractions of the frame's height (release: 64 and 96
    pixels at 512). A patch is never smaller than LPIPS allows, 32 pixels."""
    mouth_patch: tuple[float, float] = (32 / 512, 42 / 512)
    """Smallest and largest side of the mouth's and the fuse stage's random patches, as fractions of the frame's height
    (release: 32 and 42 pixels at 512). A patch is never smaller than LPIPS allows, 32 pixels."""
    hair_every: int = 7
    """Of so many motion steps all but one ignore hair pixels in the face loss."""


def patch_sides(fractions: tuple[float, float], height: int) -> tuple[int, int]:
    """Smallest and largest side of random patches in a frame of ``height`` pixels, pixels; ``fractions`` are of the
    height. At least :data:`~degstalk_ns.metrics.lpips.LPIPS_MINIMUM`: a smaller patch would mostly be padding."""
    smallest, largest = (whole_pixels(fraction, height, LPIPS_MINIMUM) for fraction in fractions)
    return smallest, largest


def _nchw(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)[None]


SSIM_REACH = 2 * (SSIM_WINDOW // 2)
"""Pixels around a difference that SSIM looks at: every window that touches it counts, and each needs its own
surroundings, twice half a window."""


def l1_dssim(image: Tensor, target: Tensor, box: Box, area: Area | None = None) -> tuple[Tensor, Tensor]:
    """L1 and D-SSIM = 1 - SSIM of two images that differ only inside ``box`` (equation 8).

    Args:
        image, target: [H, W, 3] in 0..1, or what lies in ``area`` of them.
        box: must hold every pixel where they differ.
        area: that was cut out of the images: at least ``box`` with :data:`SSIM_REACH` pixels around it.

    Returns:
        The mean L1 and the mean D-SSIM over the whole image (SSIM without padding: over its valid pixels).
    """
    area = area or Area.whole(image)
    height, width = area.height, area.width
    l1 = (area.inside(image, box) - area.inside(target, box)).abs().sum() / (height * width * image.shape[2])
    around = Area.around(box, SSIM_REACH, height, width, least=SSIM_WINDOW).box
    half = SSIM_WINDOW // 2
    valid = (around[1] - around[0] - 2 * half) * (around[3] - around[2] - 2 * half)
    share = valid / ((height - 2 * half) * (width - 2 * half))
    similarity = mean_ssim(area.inside(image, around), area.inside(target, around))
    return l1, (1.0 - similarity) * share


def jaw_loss(predicted: Tensor, tracked: Tensor) -> Tensor:
    """L1 between the predicted and the tracked jaw coefficients, both [3]."""
    return (predicted - tracked).abs().mean()


def alpha_loss(alpha: Tensor, mask: Tensor, ignored: Tensor | None = None, area: Area | None = None) -> Tensor:
    """Keeps a region's alpha [H, W, 1] (0..1) at its mask (bool [H, W]): mean L1 over all pixels, those ignored as 0.

    With an ``area``, all three are cut to it, and alpha and mask are 0 elsewhere.
    """
    difference = (alpha[..., 0] - mask.to(alpha.dtype)).abs()
    if ignored is not None:
        difference = difference * ~ignored
    area = area or Area.whole(mask)
    return difference.sum() / (area.height * area.width)


def off_region(attention: Tensor, region: Tensor, pixels: int | None = None) -> Tensor:
    """Mean of a rendered attention map [H, W] over ``region`` (bool [H, W]); zero where the region is empty.

    ``pixels``: of the whole region, where both were cut to a part outside which the attention is zero.
    """
    return (attention * region).sum() / max(int(region.sum()) if pixels is None else pixels, 1)


def crop_perceptual(
    image: Tensor, target: Tensor, box: Box, perceptual: Perceptual, area: Area | None = None
) -> Tensor:
    """LPIPS of the crop ``box`` of two images [H, W, 3], or of what lies in ``area`` of them; zero for an empty box."""
    if box[1] <= box[0] or box[3] <= box[2]:
        return image.sum() * 0.0
    area = area or Area.whole(image)
    pair = torch.cat([_nchw(area.inside(image, box)), _nchw(area.inside(target, box))])
    pair = padded_to(pair, LPIPS_MINIMUM)
    return perceptual(pair[:1], pair[1:]).mean()


def patch_perceptual(
    image: Tensor,
    target: Tensor,
    box: Box,
    sizes: tuple[int, int],
    perceptual: Perceptual,
    generator: torch.Generator,
    area: Area | None = None,
) -> Tensor:
    """Mean LPIPS over the whole image cut into square patches of one random size.

    Patches outside ``box`` are equal in both images and have LPIPS 0, so only those over the box are computed.

    Args:
        image, target: [H, W, 3] in 0..1, equal outside ``box``.
        sizes: smallest and largest side in pixels, both included.
        generator: draws size and offset of the grid (on the CPU).
        area: that was cut out of the images: at least ``box`` with the largest side around it.
    """
    area = area or Area.whole(image)
    height, width = area.height, area.width
    if box[1] <= box[0] or box[3] <= box[2]:
        return image.sum() * 0.0
    size = int(torch.randint(sizes[0], sizes[1] + 1, (1,), generator=generator))
    size = min(size, height, width)

    def starts(low: int, high: int, limit: int) -> tuple[int, int]:
        count = -(-(high - low) // size)
        count = min(count, limit // size)
        slack = limit - count * size
        first = int(torch.randint(0, size, (1,), generator=generator))
        return min(max(low - first % max(count * size - (high - low) + 1, 1), 0), slack), count

    y0, rows = starts(box[0], box[1], height)
    x0, columns = starts(box[2], box[3], width)

    def patches(picture: Tensor) -> Tensor:
        covered = area.inside(picture, (y0, y0 + rows * size, x0, x0 + columns * size))
        grid = covered.reshape(rows, size, columns, size, 3).permute(0, 2, 4, 1, 3)
        return padded_to(grid.reshape(rows * columns, 3, size, size), LPIPS_MINIMUM)

    share = rows * columns / max((height // size) * (width // size), 1)
    return perceptual(patches(image), patches(target)).mean() * share
