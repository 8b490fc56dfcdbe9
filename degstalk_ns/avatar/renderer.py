"""Renders frames of a trained avatar fast: what does not depend on the frame is computed once for many frames.

The mathematics is that of `avatar.py`; this module caches and skips. It must not know nerfstudio, files or training
steps.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from degstalk_ns.avatar.avatar import REGIONS, Avatar, Composition, Motion, RegionRender, rasterized
from degstalk_ns.avatar.boxes import Box, cropped
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.compositing import alpha_over, compose, inside_rim
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.fields.face import PreparedFace
from degstalk_ns.avatar.fields.mouth import PreparedMouth
from degstalk_ns.avatar.gaussians import ActivatedGaussians, joined, offset_scales

FAINTEST_REACH = 1.15
"""Factor on three standard deviations of a Gaussian; beyond this radius even an opaque one is below 1/255
(sqrt(2 ln 255) / 3 is 1.11)."""


class _Seen:
    """Recognises whether tensors are the same, unchanged, as at the last call."""

    def __init__(self) -> None:
        self._last: list[tuple[Tensor, int, int]] = []

    def unchanged(self, tensors: list[nn.Parameter]) -> bool:
        """Whether these are the tensors of the last call, and nothing has written to them since."""
        # The tensors are kept, so that no new one can come to lie where an old one was.
        now: list[tuple[Tensor, int, int]] = [(tensor, tensor._version, tensor.data_ptr()) for tensor in tensors]
        same = len(now) == len(self._last) and all(
            a is b and a_version == b_version and a_place == b_place
            for (a, a_version, a_place), (b, b_version, b_place) in zip(now, self._last, strict=True)
        )
        self._last = now
        return same


@dataclass
class RegionPair:
    """Both regions without a plate."""

    face: RegionRender
    mouth: RegionRender
    mouth_dilation: int = 0
    """Window in pixels (odd) of a max filter on the mouth's alpha; 0 for none. It is applied when they are composed."""

    @property
    def covered(self) -> Tensor:
        """Fraction of a plate that is hidden, [H, W, 1] in 0..1."""
        return alpha_over(self.face.alpha, self.dilated_mouth.alpha)

    @property
    def dilated_mouth(self) -> RegionRender:
        """The mouth as it is composed."""
        return self.mouth.dilated(self.mouth_dilation) if self.mouth_dilation else self.mouth

    def box(self) -> Box:
        """A box that holds every pixel that either region may cover; the whole image if that is not known."""
        mouth, reach = _covered_box(self.mouth), self.mouth_dilation // 2
        if reach and mouth[0] < mouth[1]:
            height, width = self.mouth.alpha.shape[:2]
            y0, y1, x0, x1 = mouth
            mouth = max(y0 - reach, 0), min(y1 + reach, height), max(x0 - reach, 0), min(x1 + reach, width)
        return _union(_covered_box(self.face), mouth)


class FrameRenderer:
    """Renders frames of one avatar for display; no gradients are computed.

    Cached results are dropped automatically when a parameter is replaced or written to, for example by loading a
    checkpoint. Fused optimizers write without leaving a trace: call :meth:`forget` after their steps.
    """

    def __init__(self, avatar: Avatar) -> None:
        self.avatar = avatar
        self._fields_seen, self._gaussians_seen = _Seen(), _Seen()
        self._fields: tuple[PreparedFace, PreparedMouth] | None = None
        self._gaussians: tuple[ActivatedGaussians, Tensor] | None = None
        self._lock = threading.RLock()  # pages of the viewer render from threads of their own

    def forget(self, fields: bool = True) -> None:
        """Drops cached results because parameters have changed.

        Args:
            fields: parameters of the fields, the means or the embeddings have changed too.
        """
        with self._lock:
            self._gaussians = None
            if fields:
                self._fields = None

    @torch.no_grad()
    def motion(self, conditions: Conditions) -> Motion:
        """The deformation of both regions under ``conditions``."""
        avatar = self.avatar
        face, mouth = self._prepared_fields()
        return Motion(avatar.face_field.driven(face, conditions), avatar.mouth_field.driven(mouth, conditions))

    @torch.no_grad()
    def layers(
        self,
        view: View,
        conditions: Conditions,
        plate: Tensor,
        sh_degree: int,
        moving: bool = True,
        mouth_dilation: int = 0,
    ) -> Composition:
        """The frame with all its layers; arguments and result as of :meth:`Avatar.render`."""
        motion = self.motion(conditions) if moving else None
        return self.avatar.render(view, conditions, plate, sh_degree, moving, mouth_dilation, motion)

    @torch.no_grad()
    def regions(
        self, view: View, conditions: Conditions, sh_degree: int, moving: bool = True, mouth_dilation: int = 0
    ) -> RegionPair:
        """Both regions without a plate; arguments of :meth:`frame`."""
        pair = self.rendered(self.deformed(self.motion(conditions) if moving else None), view, sh_degree)
        pair.mouth_dilation = mouth_dilation
        return pair

    def frame(
        self,
        view: View,
        conditions: Conditions,
        plate: Tensor,
        sh_degree: int,
        moving: bool = True,
        mouth_dilation: int = 0,
    ) -> Tensor:
        """The composed frame alone, as :meth:`Avatar.render` computes it.

        Args:
            view: camera.
            conditions: driving signals of the frame.
            plate: [H, W, 3 or 4] background image behind the head, float32 in 0..1 or uint8; it is not changed.
            sh_degree: degree of the spherical harmonics in use.
            moving: False renders the canonical (undeformed) avatar.
            mouth_dilation: window of a max filter on the mouth's alpha, pixels (odd); 0 for none.

        Returns:
            [H, W, 3] of the plate's type, in 0..1 or 0..255.
        """
        return over_plate(self.regions(view, conditions, sh_degree, moving, mouth_dilation), plate)

    @torch.no_grad()
    def deformed(self, motion: Motion | None) -> ActivatedGaussians:
        """The deformed Gaussians of both regions, those of the face first."""
        gaussians, log_scales = self._canonical_gaussians()
        if motion is None:
            return gaussians
        face, mouth = motion.face.offsets, motion.mouth
        count, spaces = len(self.avatar.region("face")), [self.avatar.region(n).config.scale_offsets for n in REGIONS]
        if spaces == ["log", "log"]:
            scales = _added(log_scales, face.d_scales, mouth.d_scales).exp_()
        else:
            parts = zip((log_scales[:count], log_scales[count:]), (face.d_scales, mouth.d_scales), spaces, strict=True)
            scales = torch.cat([offset_scales(*part) for part in parts])
        return replace(
            gaussians,
            means=_added(gaussians.means, face.d_means, mouth.d_means),
            quats=_added(gaussians.quats, face.d_quats, mouth.d_quats),
            scales=scales,
        )

    @torch.no_grad()
    def rendered(self, gaussians: ActivatedGaussians, view: View, sh_degree: int) -> RegionPair:
        """Renders the Gaussians that :meth:`deformed` returned."""
        face = len(self.avatar.region("face"))
        regions = rasterized(gaussians, face, view, sh_degree, self.avatar.config.near_plane)
        pair, pixels = RegionPair(*regions), self.avatar.overlap_pixels(view)
        if pixels:
            _take_off_overlap(pair, pixels)
        return pair

    def _prepared_fields(self) -> tuple[PreparedFace, PreparedMouth]:
        avatar = self.avatar
        inputs = [part for name in REGIONS for part in (avatar.region(name).means, avatar.region(name).embeddings)]
        learned = [part for part in inputs if isinstance(part, nn.Parameter)]  # not the embeddings of an avatar without
        parameters = [*learned, *avatar.face_field.parameters(), *avatar.mouth_field.parameters()]
        with self._lock:
            if not self._fields_seen.unchanged(parameters):
                self._fields = None
            if self._fields is None:
                self._fields = avatar.face_field.prepared(*inputs[:2]), avatar.mouth_field.prepared(*inputs[2:])
            return self._fields

    def _canonical_gaussians(self) -> tuple[ActivatedGaussians, Tensor]:
        """Both regions undeformed, and the logarithms of their scales."""
        regions = [self.avatar.region(name) for name in REGIONS]
        with self._lock:
            if not self._gaussians_seen.unchanged([p for region in regions for p in region.params.values()]):
                self._gaussians = None
            if self._gaussians is None:
                log_scales = torch.cat([region.params["scales"] for region in regions])
                self._gaussians = joined([region.deformed() for region in regions]), log_scales
            return self._gaussians


def _added(value: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
    """``value`` with offsets added to its first and its last rows."""
    result = value.clone()
    if first is not None:
        result[: len(first)] += first
    if second is not None:
        result[len(result) - len(second) :] += second
    return result


@torch.no_grad()
def over_plate(pair: RegionPair, plate: Tensor) -> Tensor:
    """Composes both regions over a plate [H, W, 3 or 4] (:func:`~degstalk_ns.avatar.compositing.compose`), float32 in
    0..1 or uint8; only the box that they may cover is computed.

    Returns:
        [H, W, 3] of the plate's type, in 0..1 or 0..255.
    """
    rgb = plate[..., :3].clone(memory_format=torch.contiguous_format)
    box = pair.box()
    if box[0] == box[1]:
        return rgb
    part, behind = cropped(rgb, box), cropped(plate, box)
    if plate.dtype == torch.uint8:
        behind = behind.float() / 255.0
    face, mouth = pair.face.cropped(*box), pair.mouth.cropped(*box)
    if pair.mouth_dilation:
        mouth = mouth.dilated(pair.mouth_dilation)
    image = compose(face.colour, face.alpha, mouth.colour, mouth.alpha, behind)
    if plate.dtype == torch.uint8:
        image = image.mul_(255.0).add_(0.5)
        part.copy_(image.clamp_(0.0, 255.0).to(torch.uint8))
    else:
        part.copy_(image.clamp_(0.0, 1.0))
    return rgb


def _take_off_overlap(pair: RegionPair, pixels: int) -> None:
    """As :func:`degstalk_ns.avatar.avatar.without_overlap`, in place and only where the regions are."""
    height, width = pair.face.alpha.shape[:2]
    y0, y1, x0, x1 = _union(_covered_box(pair.face), _covered_box(pair.mouth))
    margin = pixels + 1  # what is empty around them counts too
    box = max(y0 - margin, 0), min(y1 + margin, height), max(x0 - margin, 0), min(x1 + margin, width)
    regions = pair.face.cropped(*box), pair.mouth.cropped(*box)
    left = inside_rim(alpha_over(regions[0].alpha, regions[1].alpha), pixels)
    for region in regions:
        region.channels.mul_(left)
        region.alpha.mul_(left)


def _union(a: Box, b: Box) -> Box:
    """The box around two boxes, of which empty ones do not count."""
    boxes = [box for box in (a, b) if box[0] < box[1] and box[2] < box[3]] or [(0, 0, 0, 0)]
    low, high = (
        zip(*((box[0], box[2]) for box in boxes), strict=True),
        zip(*((box[1], box[3]) for box in boxes), strict=True),
    )
    (y0, x0), (y1, x1) = (min(values) for values in low), (max(values) for values in high)
    return y0, y1, x0, x1


def _covered_box(render: RegionRender) -> Box:
    """A box that holds all pixels that the visible Gaussians can touch; the whole image where that is not known."""
    height, width = render.alpha.shape[:2]
    if "radii" not in render.meta:
        return 0, height, 0, width
    radii = render.meta["radii"][0]
    seen = radii > 0
    if not bool(seen.any()):
        return 0, 0, 0, 0
    # Radii are three standard deviations, and whole tiles are blended: what is fainter may reach further.
    centres, reach = render.meta["means2d"][0][seen], radii[seen][:, None] * FAINTEST_REACH
    tile = render.meta["tile_size"]
    low = ((centres - reach).amin(0) / tile).floor().mul(tile).tolist()
    high = ((centres + reach).amax(0) / tile).ceil().mul(tile).tolist()

    def within(value: float, limit: int) -> int:
        return int(min(max(value, 0), limit))

    return within(low[1], height), within(high[1], height), within(low[0], width), within(high[0], width)
