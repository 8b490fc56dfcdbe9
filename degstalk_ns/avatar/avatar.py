"""The avatar: the whole method as one torch module. Face and mouth Gaussians are each deformed by their field, rendered
and composed over a plate (the background image of a frame).

It must not know nerfstudio, files, training steps or losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.compositing import alpha_over, compose, dilate_layer, inside_rim, over
from degstalk_ns.avatar.driving import Conditions, DrivingTrack
from degstalk_ns.avatar.fields.face import EYELIDS, FaceField, FaceFieldConfig, FaceOutput
from degstalk_ns.avatar.fields.mouth import JAW, MouthField, MouthFieldConfig, MouthOutput
from degstalk_ns.avatar.fields.standardise import StandardiseConfig
from degstalk_ns.avatar.gaussians import ActivatedGaussians, EmbeddedGaussians, GaussiansConfig, Offsets, joined
from degstalk_ns.errors import UserError
from degstalk_ns.rasterization import rasterize, spherical_harmonics

Region = Literal["face", "mouth"]
SCENE_EXTENT: float = 0.2
"""Edge of the cube that a head fits in, in metres. Learning rates and sizes that the official DEGSTalk code gives
relative to the extent of the scene are multiplied by it."""
REGIONS: tuple[Region, Region] = ("face", "mouth")


@dataclass
class AvatarConfig:
    """Gaussians and deformation fields of the face and of the mouth interior."""

    face: GaussiansConfig = field(default_factory=lambda: GaussiansConfig(num_points=2_000))
    """Gaussians of the face region."""
    mouth: GaussiansConfig = field(default_factory=lambda: GaussiansConfig(num_points=10_000))
    """Gaussians of the mouth interior."""
    face_field: FaceFieldConfig = field(default_factory=FaceFieldConfig)
    """Deformation field of the face. The values are those of the official DEGSTalk code, unless an option says
    otherwise."""
    mouth_field: MouthFieldConfig = field(default_factory=MouthFieldConfig)
    """Deformation field of the mouth interior. The values are those of the official DEGSTalk code, unless an option
    says otherwise."""
    standardise: StandardiseConfig = field(default_factory=StandardiseConfig)
    """How expression, eyelids, audio features and jaw are brought to one size before the fields see them. Added by this
    project."""
    near_plane: float = 0.01
    """Gaussians that are nearer to the camera than this distance, in metres, are not rendered."""


@dataclass
class RegionRender:
    """The render of one region.

    Attributes:
        channels: [H, W, 3 + E] premultiplied by alpha: colour, then further channels (attention, depth) in the order in
            which they were requested.
        alpha: [H, W, 1] in 0..1.
        meta: per-Gaussian results of the rasterizer (``means2d`` carries the screen-space gradient).
        colour: [H, W, 3] the first part of ``channels``.
        extras: [H, W, E] the second part of ``channels``.
    """

    channels: Tensor
    alpha: Tensor
    meta: dict[str, Any]
    colour: Tensor = field(init=False)
    extras: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # One split: two slices would each put zeros around their gradient, at the size of the whole image.
        self.colour, self.extras = self.channels.split([3, self.channels.shape[-1] - 3], dim=-1)

    def cropped(self, y0: int, y1: int, x0: int, x1: int) -> RegionRender:
        """The rows y0 to y1 and columns x0 to x1 of the render (ends excluded)."""
        return RegionRender(self.channels[y0:y1, x0:x1], self.alpha[y0:y1, x0:x1], self.meta)

    def dilated(self, window: int) -> RegionRender:
        """The render with its alpha dilated by a max filter of ``window`` pixels (odd), and its channels with it: see
        :func:`~degstalk_ns.avatar.compositing.dilate_layer`."""
        return RegionRender(*dilate_layer(self.channels, self.alpha, window), self.meta)

    def over_key(self, key: Tensor) -> Tensor:
        """The region composed over one plain colour [3]; [H, W, 3]."""
        return over(self.colour, self.alpha, key)


@dataclass
class Composition:
    """A whole frame and its layers; all images are [H, W, ...]."""

    rgb: Tensor
    face: RegionRender
    mouth: RegionRender
    audio_attention: Tensor
    expression_attention: Tensor
    depth: Tensor

    @property
    def covered(self) -> Tensor:
        """Fraction of the plate that is hidden, [H, W, 1] in 0..1."""
        return alpha_over(self.face.alpha, self.mouth.alpha)


@dataclass
class Motion:
    """The deformation of both regions in one frame."""

    face: FaceOutput
    mouth: Offsets


def without_overlap(face: RegionRender, mouth: RegionRender, pixels: int) -> tuple[RegionRender, RegionRender]:
    """Both regions with their common silhouette moved inwards by ``pixels``; 0 changes nothing."""
    if pixels < 1:
        return face, mouth
    left = inside_rim(alpha_over(face.alpha, mouth.alpha), pixels)
    face, mouth = (RegionRender(part.channels * left, part.alpha * left, part.meta) for part in (face, mouth))
    return face, mouth


def rasterized(
    both: ActivatedGaussians, face: int, view: View, sh_degree: int, near_plane: float
) -> tuple[RegionRender, RegionRender]:
    """Renders face and mouth, each as a layer of its own.

    Args:
        both: Gaussians of both regions, those of the face first.
        face: number of Gaussians of the face.
        view: camera.
        sh_degree: degree of the spherical harmonics in use.
        near_plane: Gaussians nearer to the camera are culled, metres.

    Returns:
        Face and mouth. The ``meta`` of each holds the radii [1, n] and ``means2d`` [1, n, 2] of its own Gaussians, and
        the tile size.
    """
    viewmats, Ks = view.viewmat[None], view.K[None]
    colours = spherical_harmonics(sh_degree, both.means, both.sh, viewmats)[0]
    spans = (slice(0, face), slice(face, len(both.means)))
    splats: dict[str, Any] = {
        "means": both.means,
        "quats": both.quats,
        "scales": both.scales,
        "opacities": both.opacities,
    }
    splats["colors"] = colours
    camera: dict[str, Any] = {
        "viewmats": viewmats,
        "Ks": Ks,
        "width": view.width,
        "height": view.height,
        "near_plane": near_plane,
    }
    if both.means.is_cuda:
        face_render, mouth_render = (
            RegionRender(renders.squeeze(0), alphas.squeeze(0), meta)
            for renders, alphas, meta in (
                rasterize(**{name: part[span] for name, part in splats.items()}, **camera) for span in spans
            )
        )
        return face_render, mouth_render
    renders, alphas, meta = rasterize(**splats, **camera, layers=[face, len(both.means) - face])
    metas = [meta | {name: meta[name][:, span] for name in ("radii", "means2d")} for span in spans]
    face_render, mouth_render = (
        RegionRender(colour, alpha, meta)
        for colour, alpha, meta in zip(renders.unbind(), alphas.unbind(), metas, strict=True)
    )
    return face_render, mouth_render


class Avatar(nn.Module):
    """Face and mouth regions with their fields.

    Args:
        config: sizes and initial values.
        audio_channels: C, features per time step of the audio windows that drive the avatar.
        audio_length: L, time steps in an audio window.
        expression_dim: E, number of expression coefficients.
        seed: random seed of the initial positions.
        expression_names: names of the expression coefficients, or none.
        eyelids: number of eyelid values. jaw: number of jaw coefficients.

    Raises:
        UserError: a region's Gaussians and its field differ in the dimension of the embedding.
    """

    def __init__(
        self,
        config: AvatarConfig,
        audio_channels: int,
        audio_length: int,
        expression_dim: int,
        seed: int = 0,
        expression_names: Sequence[str] = (),
        eyelids: int = EYELIDS,
        jaw: int = JAW,
    ) -> None:
        super().__init__()
        self.config = config
        for name, gaussians, its_field in (
            ("face", config.face, config.face_field),
            ("mouth", config.mouth, config.mouth_field),
        ):
            if gaussians.embedding_dim != its_field.embedding_dim:
                raise UserError(
                    f"the Gaussians of the {name} have embeddings of {gaussians.embedding_dim} values and its field "
                    f"expects {its_field.embedding_dim}; set avatar.{name}.embedding-dim and "
                    f"avatar.{name}-field.embedding-dim alike"
                )
        self.plate_overlap = 0.0
        """Width of the band by which the face was trained to overlap its plate, as the tangent of its visual angle. The
        band is removed from the frames that are shown."""
        self.gaussians = nn.ModuleDict(
            {"face": EmbeddedGaussians(config.face, seed=seed), "mouth": EmbeddedGaussians(config.mouth, seed=seed + 1)}
        )
        scales = config.standardise
        self.face_field = FaceField(
            config.face_field, audio_channels, audio_length, expression_dim, scales, expression_names, eyelids
        )
        self.mouth_field = MouthField(
            config.mouth_field, audio_channels, audio_length, expression_dim, scales, expression_names, jaw
        )

    def fit_driving(self, track: DrivingTrack, rows: Tensor, places: Tensor | None = None) -> None:
        """Learns the size and the range of every driving signal; called once, before the training.

        Args:
            track: of the recording.
            rows: [n] int64, its training frames.
            places: [3, 3] centre of the right eye, of the left one, and the base of the nose, world units; needed where
                the face is moved in parts.

        Raises:
            ValueError: places are needed and not given.
            UserError: they do not span a face.
        """
        if self.face_field.parts is not None:
            if places is None:
                raise ValueError("a face that is moved in parts needs the places of its eyes and its nose")
            self.face_field.parts.stand(places)
        audio = track.audio[rows].flatten(0, 1)
        self.face_field.audio.standardise.fit(audio)
        self.mouth_field.audio.standardise.fit(audio)
        self.face_field.standardise_expression.fit(track.expression[rows])
        self.face_field.standardise_eyelids.fit(track.eyelids[rows])
        self.mouth_field.standardise_jaw.fit(track.jaw[rows])
        if self.mouth_field.expression is not None:
            self.mouth_field.standardise_expression.fit(track.expression[rows])

    def region(self, name: Region) -> EmbeddedGaussians:
        gaussians = self.gaussians[name]
        assert isinstance(gaussians, EmbeddedGaussians)
        return gaussians

    def overlap_pixels(self, view: View) -> int:
        """Width of the overlap with the plate in ``view``, pixels."""
        return round(self.plate_overlap * float(view.K[0, 0])) if self.plate_overlap else 0

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All trainable parameters by name: ``face_means`` ... for Gaussians, ``face_field_grids`` ... for fields."""
        groups: dict[str, list[nn.Parameter]] = {}
        for name in REGIONS:
            for key, parameter in self.region(name).params.items():
                groups[f"{name}_{key}"] = [parameter]
        for field_name, module in (("face_field", self.face_field), ("mouth_field", self.mouth_field)):
            for key, parameters in module.parameter_groups().items():
                groups[f"{field_name}_{key}"] = list(parameters)
        return groups

    def face_motion(self, conditions: Conditions) -> FaceOutput:
        """Offsets of the face's Gaussians under ``conditions``."""
        params = self.region("face").params
        return self.face_field(params["means"], self.region("face").embeddings, conditions)

    def mouth_motion(self, conditions: Conditions) -> MouthOutput:
        """Offsets of the mouth's Gaussians under ``conditions``, and the predicted jaw."""
        params = self.region("mouth").params
        return self.mouth_field(params["means"], self.region("mouth").embeddings, conditions)

    def render_region(
        self,
        name: Region,
        view: View,
        offsets: Offsets | None,
        sh_degree: int,
        extras: list[Tensor] | None = None,
        depth: bool = False,
    ) -> RegionRender:
        """Renders one region.

        Args:
            offsets: output of its field, or None for the canonical (undeformed) region.
            extras: per-Gaussian values [N] rendered as further channels; their gradient does not reach the geometry.
            depth: appends the distance along the optical axis as the last channel, metres.
        """
        gaussians = self.region(name).deformed(offsets)
        viewmats, Ks = view.viewmat[None], view.K[None]
        colours = [spherical_harmonics(sh_degree, gaussians.means, gaussians.sh, viewmats)[0]]
        colours += [value[:, None] for value in extras or []]
        if depth:
            colours.append((gaussians.means @ view.viewmat[2, :3] + view.viewmat[2, 3])[:, None])
        renders, alphas, meta = rasterize(
            gaussians.means,
            gaussians.quats,
            gaussians.scales,
            gaussians.opacities,
            torch.cat(colours, 1) if len(colours) > 1 else colours[0],
            viewmats,
            Ks,
            view.width,
            view.height,
            near_plane=self.config.near_plane,
            passive=len(extras or []) + depth,
        )
        # Not renders[0]: its gradient would be copied into zeros of its own size.
        return RegionRender(renders.squeeze(0), alphas.squeeze(0), meta)

    def render_both(
        self, view: View, face_offsets: Offsets | None, mouth_offsets: Offsets | None, sh_degree: int
    ) -> tuple[RegionRender, RegionRender]:
        """Face and mouth from the same view; the CPU backend renders both in one call."""
        regions = [self.region("face").deformed(face_offsets), self.region("mouth").deformed(mouth_offsets)]
        return rasterized(joined(regions), len(regions[0].means), view, sh_degree, self.config.near_plane)

    def render(
        self,
        view: View,
        conditions: Conditions,
        plate: Tensor,
        sh_degree: int,
        moving: bool = True,
        mouth_dilation: int = 0,
        motion: Motion | None = None,
    ) -> Composition:
        """Renders a whole frame (equation 7: face over mouth over plate).

        Args:
            view: camera.
            conditions: audio and expression that drive the frame.
            plate: [H, W, 3 or 4] in 0..1, the background image behind the regions, and what of it is in front.
            sh_degree: degree of the spherical harmonics in use.
            moving: False renders the canonical (undeformed) avatar, as before the motion stage.
            mouth_dilation: window of a max filter on the mouth's alpha, pixels (odd); 0 for none. The mouth layer of
                the composition is the dilated one.
            motion: deformation under these conditions, if it is already known.
        """
        means = self.region("face").params["means"]
        attention = [means.new_zeros(len(means))] * 2
        face_offsets = mouth_offsets = None
        if moving:
            motion = motion or Motion(self.face_motion(conditions), self.mouth_motion(conditions).offsets)
            face_offsets, mouth_offsets = motion.face.offsets, motion.mouth
            attention = [motion.face.audio_attention, motion.face.expression_attention]
        face = self.render_region("face", view, face_offsets, sh_degree, attention, depth=True)
        mouth = self.render_region("mouth", view, mouth_offsets, sh_degree, depth=True)
        face, mouth = without_overlap(face, mouth, self.overlap_pixels(view))
        if mouth_dilation:
            mouth = mouth.dilated(mouth_dilation)
        rgb = compose(face.colour, face.alpha, mouth.colour, mouth.alpha, plate)
        covered = alpha_over(face.alpha, mouth.alpha)
        depth = (face.extras[..., 2:] + (1 - face.alpha) * mouth.extras) / covered.clamp_min(1e-6)
        return Composition(rgb, face, mouth, face.extras[..., 0:1], face.extras[..., 1:2], depth)
