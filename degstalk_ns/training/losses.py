"""The training losses: equations 8 and 9 and the regularisers of DEGSTalk, on images, masks and offsets.

It must not know Gaussians, steps or nerfstudio: `stages.py` decides when each loss is used. Image losses are computed
on the smallest box outside which both images are equal and normalised by the size of the whole image: the value is that
of the whole image, the cost that of the face.
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
    """Weights and settings of the training losses. The values are those of the official DEGSTalk code, unless an option
    says otherwise."""

    lambda_dssim: float = 0.2
    """Weight (lambda in the paper) of the D-SSIM loss. The official DEGSTalk code has 0.2, the text of the paper
    0.5."""
    jaw: float = 1e-3
    """Weight (beta in the paper) of the L1 loss between the jaw coefficients that the mouth field predicts from the
    audio and the tracked ones."""
    offsets: float = 1e-5
    """Weight of the L1 penalty on each kind of offset that a field predicts: position, scale and rotation."""
    alpha: float = 1e-3
    """Weight of the L1 loss between the rendered alpha of a region and its mask."""
    attention: float = 1e-4
    """Weight of the penalty on attention where it must be low: expression attention at the lips, and audio and
    expression attention in the hair."""
    face_lips_perceptual: float = 0.01
    """Weight of the LPIPS loss on the crop around the lips at the end of the motion stage."""
    face_patch_perceptual: float = 0.2
    """Weight of the LPIPS loss on patches of the face, with the lips masked, at the end of the motion stage."""
    mouth_patch_perceptual: float = 0.5
    """Weight of the LPIPS loss on patches of the mouth in the last steps of the motion stage, in which only its colours
    are trained."""
    lips_l1: float = 0.0
    """Weight of an additional L1 loss of the face inside the lips rectangle, in the motion stage, where lips of a few
    pixels decide whether a mouth is shut. The official DEGSTalk code has no such loss."""
    poses: float = 1e-4
    """Weight of the penalty on corrections of the poses, where they are refined (option refine-poses)."""
    smoothness: float = 0.0
    """Weight of the penalty on embeddings of the face's Gaussians that differ from those of their neighbours, in the
    motion stage: an expression that was never recorded then moves skin as one piece. The official DEGSTalk code has no
    such loss."""
    smoothness_cell: float = 0.004
    """Edge of the cubes, in world units (about metres), in which Gaussians count as neighbours. Chosen for this
    project."""
    fuse_perceptual: float = 0.5
    """Weight (gamma in the paper) of the LPIPS loss in the second part of the fuse stage. The official DEGSTalk code
    has 0.5, the text of the paper 0.2."""
    random_key: bool = False
    """Train the first two stages over a random background colour in each step instead of over green. Alpha then
    converges earlier, which short runs need. The official DEGSTalk code always uses green."""
    face_patch: tuple[float, float] = (64 / 512, 96 / 512)
    """Smallest and largest side of the random patches for the LPIPS loss of the face, as fractions of the frame height
    (64 and 96 pixels at 512). Patches are never smaller than 32 pixels, the minimum of LPIPS."""
    mouth_patch: tuple[float, float] = (32 / 512, 42 / 512)
    """Smallest and largest side of the random patches for the LPIPS losses of the mouth and of the fuse stage, as
    fractions of the frame height (32 and 42 pixels at 512). Patches are never smaller than 32 pixels, the minimum of
    LPIPS."""
    patch_share: float = 1.0
    """Fraction of these patches, drawn in each step, for which LPIPS is computed, from above 0 to 1: an unbiased
    estimate of all. The official DEGSTalk code computes all."""
    hair_every: int = 7
    """One in this many motion steps includes hair pixels in the face's image losses, and the attention on hair in the
    attention loss; the others ignore them."""


def patch_sides(fractions: tuple[float, float], height: int) -> tuple[int, int]:
    """Smallest and largest side, in pixels, of random patches in a frame of ``height`` pixels.

    Args:
        fractions: both sides as fractions of the height.
        height: of the frame, pixels.

    Returns:
        At least :data:`~degstalk_ns.metrics.lpips.LPIPS_MINIMUM` each: a smaller patch would be mostly padding.
    """
    smallest, largest = (whole_pixels(fraction, height, LPIPS_MINIMUM) for fraction in fractions)
    return smallest, largest


def _nchw(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)[None]


SSIM_REACH = 2 * (SSIM_WINDOW // 2)
"""Distance in pixels up to which SSIM depends on a difference between two images: every window that overlaps it counts,
and each window has its own surroundings, so it is twice half a window."""


def l1_dssim(image: Tensor, target: Tensor, box: Box, area: Area | None = None) -> tuple[Tensor, Tensor]:
    """L1 and D-SSIM = 1 - SSIM of two images that differ only inside ``box`` (equation 8).

    Args:
        image, target: [H, W, 3] in 0..1, or their part inside ``area``.
        box: must hold every pixel where they differ.
        area: the part that was cut out of the images; at least ``box`` with :data:`SSIM_REACH` pixels around it.

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
    """L1 between the predicted and the tracked jaw coefficients, both [3], standardised."""
    return (predicted - tracked).abs().mean()


def alpha_loss(alpha: Tensor, mask: Tensor, area: Area | None = None) -> Tensor:
    """Mean L1 between the alpha [H, W, 1] (0..1) of a region and its mask (bool [H, W]).

    With an ``area``, both are the part inside it, and must be 0 elsewhere.
    """
    difference = (alpha[..., 0] - mask.to(alpha.dtype)).abs()
    area = area or Area.whole(mask)
    return difference.sum() / (area.height * area.width)


def spread_in_cells(values: Tensor, places: Tensor, edge: float, start: Tensor) -> Tensor:
    """How much the values of neighbours differ: their mean squared difference from the mean of their cell.

    Space is divided into cubic cells; where they begin is drawn anew in each step, so that over many steps every pair
    counts that is closer than an edge, the closer the more. Origin: chosen for this project; a penalty on the
    difference of neighbouring embeddings is that of Bae et al., "Per-Gaussian embedding-based deformation for
    deformable 3D Gaussian splatting", ECCV 2024.

    Args:
        values: [N, C]; the result is differentiable in them.
        places: [N, 3], world units.
        edge: of a cell, world units.
        start: [3] in 0..1, where the cells begin as a fraction of an edge.

    Returns:
        Scalar, 0 where all values in each cell are the same.
    """
    cells = torch.floor(places.detach() / edge + start).long()
    cells = cells - cells.amin(0)
    sides = cells.amax(0) + 1
    codes = (cells[:, 0] * sides[1] + cells[:, 1]) * sides[2] + cells[:, 2]
    _, cell, count = torch.unique(codes, return_inverse=True, return_counts=True)
    # The squares' gradient through the mean is zero: it is where their sum is smallest.
    sums = values.new_zeros(len(count), values.shape[1]).index_add(0, cell, values.detach())
    return (values - (sums / count[:, None])[cell]).square().mean()


def off_region(attention: Tensor, region: Tensor, pixels: int | None = None) -> Tensor:
    """Mean of a rendered attention map [H, W] over ``region`` (bool [H, W]); zero where the region is empty.

    ``pixels`` is the size of the whole region, for inputs that were cut to a part outside which the attention is zero.
    """
    return (attention * region).sum() / max(int(region.sum()) if pixels is None else pixels, 1)


def crop_perceptual(
    image: Tensor, target: Tensor, box: Box, perceptual: Perceptual, area: Area | None = None
) -> Tensor:
    """LPIPS of the crop ``box`` of two images [H, W, 3], or of their part inside ``area``; zero for an empty box."""
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
    drawn: float = 1.0,
) -> Tensor:
    """Mean LPIPS over the whole image, cut into square patches of one random size.

    Patches outside ``box`` are equal in both images and have LPIPS 0, so only those over the box are computed.

    Args:
        image, target: [H, W, 3] in 0..1, equal outside ``box``.
        sizes: smallest and largest side in pixels, both included.
        generator: draws size and offset of the grid, and the patches (on the CPU).
        area: the part that was cut out of the images; at least ``box`` with the largest side around it.
        drawn: fraction of the patches over the box that is computed, at least one; their mean stands for that of all.
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
    count = rows * columns
    chosen = torch.randperm(count, generator=generator)[: max(round(drawn * count), 1)] if drawn < 1 else None

    def patches(picture: Tensor) -> Tensor:
        covered = area.inside(picture, (y0, y0 + rows * size, x0, x0 + columns * size))
        grid = covered.reshape(rows, size, columns, size, 3).permute(0, 2, 4, 1, 3).reshape(count, 3, size, size)
        return padded_to(grid if chosen is None else grid[chosen.to(grid.device)], LPIPS_MINIMUM)

    share = count / max((height // size) * (width // size), 1)
    return perceptual(patches(image), patches(target)).mean() * share
