"""The training objective of each stage: which pixels of which region are compared with what.

It applies the losses of `losses.py` to rendered regions and the masks of a frame. It must not know steps, files or
nerfstudio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.avatar.avatar import RegionRender
from degstalk_ns.avatar.boxes import Area, Box, box_pixels, cropped, union_box
from degstalk_ns.avatar.compositing import GREEN_KEY, compose
from degstalk_ns.avatar.fields.face import FaceOutput
from degstalk_ns.avatar.fields.mouth import MouthOutput
from degstalk_ns.avatar.gaussians import EmbeddedGaussians, Offsets
from degstalk_ns.avatar.pose_refinement import PoseRefinement
from degstalk_ns.errors import UserError
from degstalk_ns.metrics.lpips import Perceptual
from degstalk_ns.metrics.ssim import SSIM_WINDOW
from degstalk_ns.plates.build import dilate
from degstalk_ns.training.losses import (
    SSIM_REACH,
    LossConfig,
    alpha_loss,
    crop_perceptual,
    jaw_loss,
    l1_dssim,
    off_region,
    patch_perceptual,
    patch_sides,
    spread_in_cells,
)

Terms = dict[str, Tensor]


@dataclass
class FrameTarget:
    """One recorded frame with the masks that training needs; images are float32 in 0..1, masks bool [H, W].

    Attributes:
        image: [H, W, 3] the recorded frame.
        face_region: head mask dilated by the configured margin, without the mouth.
        mouth_region: mouth interior and teeth.
        hair: mask of the hair.
        lips: box ``y0, y1, x0, x1`` around the lips, pixels.
        plate: [H, W, 3 or 4] background image behind the face, or None if the stage needs none.
        under_hair: part of ``face_region`` in which the face reaches under the hair; None for nowhere.
        face_image: [H, W, 3] what the face is to show: the frame with skin under the hair; None for the frame.
    """

    image: Tensor
    face_region: Tensor
    mouth_region: Tensor
    hair: Tensor
    lips: Box
    plate: Tensor | None = None
    under_hair: Tensor | None = None
    face_image: Tensor | None = None

    def to(self, device: torch.device | str) -> FrameTarget:
        """The same on another device."""
        return FrameTarget(
            self.image.to(device),
            self.face_region.to(device),
            self.mouth_region.to(device),
            self.hair.to(device),
            self.lips,
            *(None if part is None else part.to(device) for part in (self.plate, self.under_hair, self.face_image)),
        )

    def cropped(self, area: Area) -> FrameTarget:
        """The part inside ``area``; the box of the lips is clipped to it and counted from its corner."""
        top, bottom, left, right = area.box
        y0, y1, x0, x1 = self.lips

        def clipped(value: int, low: int, high: int) -> int:
            return min(max(value, low), high) - low

        return FrameTarget(
            cropped(self.image, area.box),
            cropped(self.face_region, area.box),
            cropped(self.mouth_region, area.box),
            cropped(self.hair, area.box),
            (clipped(y0, top, bottom), clipped(y1, top, bottom), clipped(x0, left, right), clipped(x1, left, right)),
            *(
                None if part is None else cropped(part, area.box)
                for part in (self.plate, self.under_hair, self.face_image)
            ),
        )

    @property
    def free_hair(self) -> Tensor:
        """Hair under which there is to be no face, bool [H, W]."""
        return self.hair if self.under_hair is None else self.hair & ~self.under_hair

    def lips_mask(self) -> Tensor:
        mask = torch.zeros_like(self.hair)
        mask[self.lips[0] : self.lips[1], self.lips[2] : self.lips[3]] = True
        return mask


def face_region(head: NDArray[np.bool_], mouth: NDArray[np.bool_], dilation: int) -> NDArray[np.bool_]:
    """The face's target region: head and mouth together, grown by a window of ``dilation`` pixels (odd),
    without the mouth."""
    return dilate(head | mouth, dilation) & ~mouth


def background_key(random: bool, generator: torch.Generator, like: Tensor) -> Tensor:
    """Colour [3] behind a region at one training step: the green key, or one drawn evenly from the colour cube.

    Over one fixed colour, a translucent Gaussian can pass for an opaque one by taking the key's complement; over a
    colour that changes it cannot.
    """
    return torch.rand(3, generator=generator).to(like) if random else like.new_tensor(GREEN_KEY)


def painted(image: Tensor, mask: Tensor, key: Tensor) -> Tensor:
    """``image`` [H, W, 3] with the key's colour [3] where ``mask`` (bool [H, W]) is set."""
    return torch.where(mask[..., None], key, image)


def offsets_l1(offsets: Offsets) -> Tensor:
    """Sum of the mean absolute values of each kind of offset that the field predicts."""
    kinds = [value for value in (offsets.d_means, offsets.d_scales, offsets.d_quats) if value is not None]
    return torch.stack([value.abs().mean() for value in kinds]).sum()


def _covered(render: RegionRender) -> Tensor:
    return render.alpha.detach()[..., 0] > 0


def _area(box: Box, target: FrameTarget, patch: tuple[int, int] | None) -> Area:
    """The part of a frame that its losses look at: images and gradients are made for it alone.

    ``box``: where rendered and true image can differ.
    ``patch``: smallest and largest side of the patches of LPIPS, pixels, where it is on.
    """
    height, width = target.hair.shape
    margin = SSIM_REACH
    if patch is not None:
        margin = max(margin, patch[1])
        y0, y1, x0, x1 = target.lips
        if y0 < y1 and x0 < x1:
            box = min(box[0], y0), max(box[1], y1), min(box[2], x0), max(box[3], x1)
    return Area.around(box, margin, height, width, least=SSIM_WINDOW)


def face_terms(
    render: RegionRender,
    motion: FaceOutput | None,
    target: FrameTarget,
    config: LossConfig,
    ignore_hair: bool,
    key: Tensor,
    perceptual: Perceptual | None,
    generator: torch.Generator,
) -> Terms:
    """Static and motion stage, face: the frame inside the face region, the key elsewhere and in the mouth.

    Args:
        render: with audio and expression attention as extras when ``motion`` is given.
        motion: the field's output, None in the static stage.
        ignore_hair: hair pixels are painted with the key in both images.
        key: [3] colour behind the region.
        perceptual: LPIPS, or None where it is off.
    """
    box = union_box(target.face_region, _covered(render))
    lips_box, hair_pixels, lips_pixels = target.lips, int(target.free_hair.sum()), box_pixels(target.lips)
    patch = patch_sides(config.face_patch, len(target.hair))
    area = _area(box, target, None if perceptual is None else patch)
    render, target = render.cropped(*area.box), target.cropped(area)

    shown, hair = target.image if target.face_image is None else target.face_image, target.free_hair
    image, truth = render.over_key(key), painted(shown, ~target.face_region, key)
    if ignore_hair:
        image, truth = painted(image, hair, key), painted(truth, hair, key)
    l1, dssim = l1_dssim(image, truth, box, area)
    terms = {"face_l1": l1, "face_dssim": config.lambda_dssim * dssim}
    if motion is None:
        return terms
    lips = target.lips_mask()
    audio_attention, expression_attention = render.extras.unbind(-1)
    # Hair is never face, also in the steps in which its colours are ignored.
    terms["face_alpha"] = config.alpha * alpha_loss(render.alpha, target.face_region & ~hair, area=area)
    terms["face_offsets"] = config.offsets * offsets_l1(motion.offsets)
    attention = off_region(expression_attention, lips, lips_pixels)
    if not ignore_hair:
        attention = attention + off_region(expression_attention + audio_attention, hair, hair_pixels)
    terms["face_attention"] = config.attention * attention
    if config.lips_l1:
        error = (image - truth).abs().mean(-1) * lips
        terms["face_lips_l1"] = config.lips_l1 * error.sum() / (area.height * area.width)
    if perceptual is not None:
        terms["face_lips_lpips"] = config.face_lips_perceptual * crop_perceptual(
            image, truth, lips_box, perceptual, area
        )
        painted_pair = painted(image, lips, key), painted(truth, lips, key)
        terms["face_patch_lpips"] = config.face_patch_perceptual * patch_perceptual(
            *painted_pair, box, patch, perceptual, generator, area, config.patch_share
        )
    return terms


def mouth_terms(
    render: RegionRender,
    motion: MouthOutput | None,
    target: FrameTarget,
    jaw: Tensor,
    config: LossConfig,
    key: Tensor,
    perceptual: Perceptual | None,
    generator: torch.Generator,
) -> Terms:
    """Static and motion stage, mouth: the frame inside the mouth, the key [3] elsewhere; around the mouth, inside the
    lips' box, colours are ignored. Alpha is to fill the whole box of the lips: the mouth is an opaque backing behind
    them, so that lips that open wider than recorded uncover mouth and not the plate. ``jaw`` [3] are the tracked jaw
    coefficients, standardised; not read where the field predicts none."""
    box = union_box(target.mouth_region, target.lips_mask(), _covered(render))
    patch = patch_sides(config.mouth_patch, len(target.hair))
    area = _area(box, target, None if perceptual is None else patch)
    render, target = render.cropped(*area.box), target.cropped(area)
    lips = target.lips_mask()
    ignored = lips & ~target.mouth_region
    image = painted(render.over_key(key), ignored, key)
    truth = painted(target.image, ~target.mouth_region, key)
    l1, dssim = l1_dssim(image, truth, box, area)
    terms = {"mouth_l1": l1, "mouth_dssim": config.lambda_dssim * dssim}
    if motion is None:
        return terms
    terms["mouth_alpha"] = config.alpha * alpha_loss(render.alpha, lips | target.mouth_region, area=area)
    terms["mouth_offsets"] = config.offsets * offsets_l1(motion.offsets)
    if motion.jaw is not None:
        terms["jaw"] = config.jaw * jaw_loss(motion.jaw, jaw)
    if perceptual is not None:
        terms["mouth_patch_lpips"] = config.mouth_patch_perceptual * patch_perceptual(
            image, truth, box, patch, perceptual, generator, area, config.patch_share
        )
    return terms


def fuse_terms(
    face: RegionRender,
    mouth: RegionRender,
    target: FrameTarget,
    config: LossConfig,
    perceptual: Perceptual | None,
    generator: torch.Generator,
) -> Terms:
    """Fuse stage: the whole composed frame against the recorded one (equation 9)."""
    if target.plate is None:
        raise ValueError("the fuse stage needs the frame's plate")
    box = union_box(target.face_region, target.mouth_region, _covered(face), _covered(mouth))
    patch = patch_sides(config.mouth_patch, len(target.hair))
    area = _area(box, target, None if perceptual is None else patch)
    face, mouth, target = face.cropped(*area.box), mouth.cropped(*area.box), target.cropped(area)
    assert target.plate is not None
    image = compose(face.colour, face.alpha, mouth.colour, mouth.alpha, target.plate)
    l1, dssim = l1_dssim(image, target.image, box, area)
    terms = {"fuse_l1": l1, "fuse_dssim": config.lambda_dssim * dssim}
    if perceptual is not None:
        terms["fuse_lpips"] = config.fuse_perceptual * patch_perceptual(
            image, target.image, box, patch, perceptual, generator, area, config.patch_share
        )
    return terms


def smoothness_terms(face: EmbeddedGaussians, config: LossConfig, generator: torch.Generator) -> Terms:
    """Motion stage: the embeddings of neighbouring Gaussians of the face are to be alike.

    ``generator`` draws where the cells of neighbours begin (on the CPU).
    """
    if not config.smoothness:
        return {}
    start = torch.rand(3, generator=generator).to(face.means)
    spread = spread_in_cells(face.embeddings, face.means, config.smoothness_cell, start)
    return {"face_smoothness": config.smoothness * spread}


def pose_terms(poses: PoseRefinement | None, frames: Sequence[int], config: LossConfig) -> Terms:
    """Motion stage: corrections of the poses of the step's ``frames`` are to be small; nothing without corrections."""
    if poses is None:
        return {}
    return {"poses": config.poses * torch.stack([poses.penalty(frame) for frame in frames]).mean()}


def require_finite(terms: Terms, when: str) -> None:
    """Stops a training whose loss is not a finite number.

    Args:
        terms: the losses of one step.
        when: the step, in words, for the message.

    Raises:
        UserError: a term is infinite or not a number.
    """
    for name, value in terms.items():
        if not bool(torch.isfinite(value)):
            raise UserError(
                f"the loss term {name} is not finite {when}; training stops and the last checkpoint is kept: resume "
                "from it with --load-dir and lower learning rates, and check the frames and masks of the dataset"
            )
