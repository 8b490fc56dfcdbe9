"""Adapter to nerfstudio's Model: cameras and batches in, the avatar's renders, losses, metrics and images out.

It wires the core (`avatar/`, `training/`) to nerfstudio's trainer. It holds no mathematics of its own and reads no file
but through `animation/frames.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from degstalk_ns.animation.animation import recorded_track
from degstalk_ns.animation.frames import FrameSource
from degstalk_ns.avatar.avatar import REGIONS, SCENE_EXTENT, Avatar, AvatarConfig, Composition, Region, RegionRender
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions, DrivingTrack
from degstalk_ns.avatar.gaussians import ActivatedGaussians
from degstalk_ns.avatar.pose_refinement import PoseRefinement
from degstalk_ns.avatar.renderer import FrameRenderer, RegionPair
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError, one_line_errors
from degstalk_ns.metrics.frames import FrameMetrics
from degstalk_ns.metrics.lpips import Lpips, Perceptual, prepare_lpips
from degstalk_ns.plates.lengths import odd_window
from degstalk_ns.plugin.cameras import Moments, view_of
from degstalk_ns.plugin.outputs import evaluation_images, frame_outputs, image_metrics
from degstalk_ns.training.densification import DensificationConfig, Densifier
from degstalk_ns.training.losses import LossConfig
from degstalk_ns.training.objective import (
    Terms,
    background_key,
    face_terms,
    fuse_terms,
    mouth_terms,
    pose_terms,
    require_finite,
    smoothness_terms,
)
from degstalk_ns.training.stages import LearningRateKind, Schedule, ScheduleConfig, Stage

LARGEST_DILATION: float = 0.1
"""Maximum of ``mouth_dilation``, as a fraction of the image height; above it the mouth would cover the chin. Chosen for
this project."""
COMPUTED_AT_ONCE: ContextVar[tuple[str, ...]] = ContextVar("computed_at_once", default=())
"""Outputs that are computed before `get_outputs_for_camera` returns, for callers that hold a lock only until then."""
Outputs = MutableMapping[str, Any]


@dataclass
class DegstalkModelConfig(ModelConfig):
    """Avatar, schedule and losses of the method. The values are those of the official DEGSTalk code, unless an option
    says otherwise. Options that nerfstudio has for rays have no effect here and are not listed."""

    _target: type = field(default_factory=lambda: DegstalkModel)
    enable_collider: tyro.conf.Suppress[bool] = False
    collider_params: tyro.conf.Suppress[dict[str, float] | None] = None
    loss_coefficients: tyro.conf.Suppress[dict[str, float]] = field(default_factory=dict)
    eval_num_rays_per_chunk: tyro.conf.Suppress[int] = 4096
    prompt: tyro.conf.Suppress[str | None] = None
    avatar: AvatarConfig = field(default_factory=AvatarConfig)
    """Gaussians and deformation fields of the face and of the mouth interior."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Start and end of each training stage and phase, as fractions of the run."""
    losses: LossConfig = field(default_factory=LossConfig)
    """Weights and settings of the training losses."""
    face_growth: DensificationConfig = field(default_factory=DensificationConfig)
    """Densification and pruning of the Gaussians of the face; the schedule sets when they happen."""
    mouth_growth: DensificationConfig = field(
        default_factory=lambda: DensificationConfig(gradient_threshold=2e-4, green_key="shrink")
    )
    """Densification and pruning of the Gaussians of the mouth interior; the schedule sets when they happen."""
    extent: float = SCENE_EXTENT
    """Extent of the scene in world units (about metres), with which densification and pruning compare sizes."""
    fuse_opacity_lr: float = 0.05
    """Learning rate of the opacities of the face in the fuse stage. The official DEGSTalk code names 0.001 and brings
    0.05 back when it restores its checkpoint, so that is what acts there."""
    mouth_dilation: float = 0.0
    """Dilation of the alpha of the mouth in every rendered frame, to close gaps between lips and teeth: reach of the
    max filter as a fraction of the image height; 0 turns it off. The official DEGSTalk code offers 6/512 (a window of
    13 pixels at 512)."""
    refine_poses: bool = False
    """Learn a small correction of the head's pose in each training frame, through the rasterizer. Frames that are
    rendered keep their recorded poses. Added by this project."""
    keep_rim: bool = False
    """Also show the border by which the training mask is wider than the head (option datamanager.face-margin)."""
    plates_in_memory: int = 32
    """Number of plates (background images of the frames) kept in memory while rendering."""
    free_background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Background colour (RGB, 0 to 1) behind the head where no recorded background image fits the camera."""
    seed: int = 0
    """Random seed of the initial Gaussians, of densification, and of the losses."""


class DegstalkModel(Model):
    """DEGSTalk in nerfstudio. A training step renders the face for ``cameras[0]`` and the mouth for ``cameras[1]``;
    elsewhere one camera gives one composed frame, driven by the recording at the camera's time."""

    config: DegstalkModelConfig
    sh_degree: Tensor
    moving: Tensor

    def populate_modules(self) -> None:
        super().populate_modules()
        if not 0 <= self.config.mouth_dilation <= LARGEST_DILATION:
            expected = f"a fraction of the picture's height from 0 to {LARGEST_DILATION}"
            raise UserError(f"mouth_dilation must be {expected}, got {self.config.mouth_dilation}")
        if not all(0 <= value <= 1 for value in self.config.free_background):
            raise UserError(f"free_background must be RGB in 0..1, got {self.config.free_background}")
        recording = self.kwargs["metadata"]["recording"]
        assert isinstance(recording, Recording)
        self.recording = recording
        self.track = self.recorded_track = recorded_track(recording)
        self.frames = FrameSource(recording, self.config.plates_in_memory)
        self._moments = Moments(self.frames)
        sizes = self.track.audio_channels, self.track.audio_length, self.track.expression_dim
        lids_and_jaw = self.track.eyelids.shape[1], self.track.jaw.shape[1]
        if self.config.losses.smoothness and not self.config.avatar.face.embedding_dim:
            raise UserError("losses.smoothness makes embeddings alike, and this avatar has none; set it to 0")
        names = recording.expression_names
        self.avatar = Avatar(self.config.avatar, *sizes, self.config.seed, names, *lids_and_jaw)
        rows, places = (torch.from_numpy(part.copy()) for part in (recording.train.aud_ids, recording.places))
        self.avatar.fit_driving(self.track, rows, places)
        self.renderer = FrameRenderer(self.avatar)
        self.poses = PoseRefinement(len(self.track)) if self.config.refine_poses else None
        # What rendering needs to know of the training so far; in the checkpoint.
        self.register_buffer("sh_degree", torch.zeros((), dtype=torch.long))
        self.register_buffer("moving", torch.zeros((), dtype=torch.bool))
        self.step = 0
        self.schedule: Schedule | None = None
        growths = {"face": self.config.face_growth, "mouth": self.config.mouth_growth}
        self.densifiers = nn.ModuleDict({name: Densifier(c, self.config.extent) for name, c in growths.items()})
        self.patches = torch.Generator()
        self._metrics: FrameMetrics | None = None
        self._lpips: Perceptual | None = None
        self._optimizers: Optimizers | None = None
        self._latest: dict[Region, RegionRender] = {}

    def overlaps_plate(self, pixels: int) -> None:
        """The face is trained to overlap its plate by ``pixels`` of the recorded frames; frames do not show that band,
        unless ``keep_rim`` is set."""
        self.avatar.plate_overlap = 0.0 if self.config.keep_rim else pixels / self.recording.focal

    # --- parameters -------------------------------------------------------------------------------------------------

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        poses = {} if self.poses is None else {"poses": list(self.poses.parameters())}
        return self.avatar.parameter_groups() | poses

    def update_to_step(self, step: int) -> None:
        self.step = step

    # --- stages -----------------------------------------------------------------------------------------------------

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        assert attributes.trainer is not None and attributes.optimizers is not None
        self.schedule = Schedule(self.config.schedule, attributes.trainer.config.max_num_iterations)
        self._optimizers = attributes.optimizers
        self._base_rates = {
            name: config["optimizer"].lr for name, config in attributes.trainer.config.optimizers.items()
        }
        reason = prepare_lpips()
        if reason is None:
            self._lpips = Lpips()
        else:
            CONSOLE.print(f"[yellow]Training without its perceptual losses, evaluating without LPIPS: {reason}")
        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.enter_step),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.grow),
        ]

    def enter_step(self, step: int) -> None:
        """Before each step: its stage decides what is trainable, the learning rates and the SH degree."""
        assert self.schedule is not None and self._optimizers is not None
        self.step = step
        stage = self.schedule.stage(step)
        self.sh_degree.fill_(self.schedule.sh_degree(step, self.config.avatar.face.sh_degree))
        self.moving.fill_(stage is not Stage.STATIC)
        for name, parameters in self.get_param_groups().items():
            trainable = self.schedule.trains(step, name)
            rate = self._base_rates[name] * self.schedule.rate_factor(step, LearningRateKind.of(name))
            if stage is Stage.FUSE and name == "face_opacities":
                rate = self.config.fuse_opacity_lr
            for parameter in parameters:
                parameter.requires_grad_(trainable)
            for group in self._optimizers.optimizers[name].param_groups:
                group["lr"] = rate

    def grow(self, step: int) -> None:
        """After each step of the first two stages: accumulate screen-space gradients, and densify and prune if the
        schedule says so."""
        assert self.schedule is not None and self._optimizers is not None
        # In the fuse stage only colours and opacities are trained.
        self.renderer.forget(fields=self.schedule.stage(step) is not Stage.FUSE)
        if not self._latest:
            return
        for name, render in self._latest.items():
            cast(Densifier, self.densifiers[name]).observe(render.meta)
        for name in list(self._latest):
            gaussians = self.avatar.region(name)
            optimizers = {key: self._optimizers.optimizers[f"{name}_{key}"] for key in gaussians.params}
            # Splitting draws random places: of the step, so that a resumed run draws the same.
            with torch.random.fork_rng():
                torch.manual_seed(self.config.seed * 1_000_003 + step)
                growth, densifier = self.schedule.growth(name), cast(Densifier, self.densifiers[name])
                report = densifier.step(step, gaussians.params, optimizers, growth)
            if report.changed:
                for key, parameter in gaussians.params.items():
                    self._optimizers.parameters[f"{name}_{key}"] = [parameter]
        self._latest = {}

    # --- rendering --------------------------------------------------------------------------------------------------

    def moment(self, cameras: Cameras, index: int) -> tuple[View, int]:
        """Camera ``index`` as a view, and the row of the track that it shows."""
        camera = cameras.flatten()[index]
        return view_of(camera, self.device), self._moments.row(camera, self.track)

    @contextmanager
    def driven_by(self, track: DrivingTrack) -> Iterator[None]:
        """Inside the block, the avatar is driven by another track of the same length."""
        previous, self.track = self.track, track
        try:
            yield
        finally:
            self.track = previous

    def conditions(self, frame: int, silent: bool = False) -> Conditions:
        """Driving signals of ``frame`` of the track, without its sound if ``silent``."""
        conditions = self.track.at_frame(frame).to(self.device)
        return conditions.without_sound() if silent else conditions

    def get_outputs(self, ray_bundle: Cameras) -> Outputs:  # type: ignore[override]
        if not self.training:
            return self._frame_outputs(ray_bundle)
        assert self.schedule is not None, "training has not been set up"
        stage, degree = self.schedule.stage(self.step), int(self.sh_degree)
        face_view, face_frame = self.moment(ray_bundle, 0)
        mouth_view, mouth_frame = self.moment(ray_bundle, 1)
        if self.poses is not None:
            face_view, mouth_view = self.poses(face_view, face_frame), self.poses(mouth_view, mouth_frame)
        if stage is Stage.FUSE:  # nothing that moves them is trained, so the deformation is cached
            motion = self.renderer.motion(self.conditions(face_frame))
            face, mouth = self.avatar.render_both(face_view, motion.face.offsets, motion.mouth, degree)
            return {"stage": stage, "face": face, "mouth": mouth}
        face_motion = mouth_motion = None
        mouth_conditions = self.conditions(mouth_frame)
        if stage is Stage.MOTION:
            face_motion = self.avatar.face_motion(self.conditions(face_frame, self.schedule.silent(self.step)))
            mouth_motion = self.avatar.mouth_motion(mouth_conditions)
        attention = [face_motion.audio_attention, face_motion.expression_attention] if face_motion is not None else []
        offsets = face_motion.offsets if face_motion else None
        face = self.avatar.render_region("face", face_view, offsets, degree, attention)
        mouth = self.avatar.render_region("mouth", mouth_view, mouth_motion.offsets if mouth_motion else None, degree)
        self._latest = {}
        renders: dict[Region, RegionRender] = {"face": face, "mouth": mouth}
        for name, render in renders.items():
            means2d = render.meta["means2d"]
            if means2d.requires_grad:  # not while only the colours of the mouth are trained
                means2d.retain_grad()
                self._latest[name] = render
        return {
            "stage": stage,
            "face": face,
            "mouth": mouth,
            "face_motion": face_motion,
            "mouth_motion": mouth_motion,
            "jaw": self.avatar.mouth_field.standardise_jaw(mouth_conditions.jaw),
            "frames": (face_frame, mouth_frame),
        }

    def _frame_outputs(self, camera: Cameras) -> Outputs:
        view, row = self.moment(camera, 0)
        return frame_outputs(self, view, row, self.conditions(row))

    def _shown(self, view: View) -> tuple[int, bool, int]:
        """Degree of the spherical harmonics and whether the fields move the Gaussians, as trained so far, and the
        window of the mouth's dilation in pixels (0 for none)."""
        window = odd_window(self.config.mouth_dilation, view.height) if self.config.mouth_dilation else 0
        return int(self.sh_degree), bool(self.moving), window

    @property
    def free_background(self) -> tuple[float, float, float]:
        """Background colour, RGB in 0..1, where no plate fits."""
        return self.config.free_background

    def frame(self, view: View, conditions: Conditions, plate: Tensor) -> Tensor:
        """The composed frame alone, as trained so far; the fastest way to render.

        Args:
            view: camera.
            conditions: driving signals of the frame.
            plate: [H, W, 3 or 4] background image, float32 in 0..1 or uint8.

        Returns:
            [H, W, 3] of the plate's type, in 0..1 or 0..255.
        """
        return self.renderer.frame(view, conditions, plate, *self._shown(view))

    def regions(self, view: View, conditions: Conditions) -> RegionPair:
        """Both regions without a plate."""
        return self.renderer.regions(view, conditions, *self._shown(view))

    def compose(self, view: View, conditions: Conditions, plate: Tensor) -> Composition:
        """A composed frame with all its layers; ``plate`` float32 in 0..1."""
        return self.renderer.layers(view, conditions, plate, *self._shown(view))

    def recorded_jaw(self, camera: Cameras) -> float | None:
        """Opening of the recorded jaw at the camera's time: the first jaw coefficient, if there are any."""
        return next(iter(self.recorded_track.at_frame(self.moment(camera, 0)[1]).jaw.tolist()), None)

    @torch.no_grad()
    def gaussians_at(self, region: Region, conditions: Conditions | None) -> ActivatedGaussians:
        """The Gaussians of one region, deformed by ``conditions``; undeformed for None and before the motion stage."""
        if conditions is None or not bool(self.moving):
            return self.avatar.region(region).deformed()
        motion = self.avatar.face_motion if region == "face" else self.avatar.mouth_motion
        return self.avatar.region(region).deformed(motion(conditions.to(self.device)).offsets)

    def get_rgba_image(self, outputs: Outputs, output_name: str = "rgb") -> Tensor:
        """The frame with its coverage as alpha, [H, W, 4] in 0..1; a frame with a plate is opaque everywhere."""
        return torch.cat([outputs[output_name], outputs["accumulation"]], -1)

    @torch.no_grad()
    def get_outputs_for_camera(  # type: ignore[override]
        self, camera: Cameras, obb_box: OrientedBox | None = None
    ) -> Outputs:
        with one_line_errors():
            outputs = self._frame_outputs(camera)
            for name in outputs.keys() & COMPUTED_AT_ONCE.get():
                outputs[name]
            return outputs

    # --- losses -----------------------------------------------------------------------------------------------------

    def get_loss_dict(self, outputs: Outputs, batch: dict[str, Any], metrics_dict: Any = None) -> Terms:
        if "stage" not in outputs:  # an evaluation batch
            return {"rgb_l1": (outputs["rgb"] - batch["image"]).abs().mean()}
        assert self.schedule is not None
        step, losses = self.step, self.config.losses
        self.patches.manual_seed(self.config.seed * 1_000_003 + step)
        face_target, mouth_target = batch["face"], batch["mouth"]
        lpips = self._lpips if self.schedule.perceptual(step) or self.schedule.fuse_perceptual(step) else None
        if outputs["stage"] is Stage.FUSE:
            terms = fuse_terms(outputs["face"], outputs["mouth"], face_target, losses, lpips, self.patches)
        else:
            key = background_key(losses.random_key, self.patches, face_target.image)
            finishes = self.schedule.finishes_mouth(step)
            ignore_hair = self.schedule.ignores_hair(step, losses.hair_every)
            terms = face_terms(
                outputs["face"], outputs["face_motion"], face_target, losses, ignore_hair, key, lpips, self.patches
            ) | mouth_terms(
                outputs["mouth"],
                outputs["mouth_motion"],
                mouth_target,
                outputs["jaw"],
                losses,
                torch.zeros_like(key) if finishes else key,
                self._lpips if finishes else None,
                self.patches,
            )
            if outputs["stage"] is Stage.MOTION:
                terms |= smoothness_terms(self.avatar.region("face"), losses, self.patches)
                terms |= pose_terms(self.poses, outputs["frames"], losses)
        with one_line_errors():
            require_finite(terms, f"at step {step} ({outputs['stage'].value} stage)")
        return terms

    def get_metrics_dict(self, outputs: Outputs, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {
            f"{name}_gaussians": torch.tensor(float(len(self.avatar.region(name).params["means"]))) for name in REGIONS
        }

    # --- evaluation -------------------------------------------------------------------------------------------------

    def get_image_metrics_and_images(
        self, outputs: Outputs, batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        return self.image_metrics(outputs["rgb"], batch), evaluation_images(outputs, batch["target"])

    def image_metrics(self, image: Tensor, batch: dict[str, Any]) -> dict[str, float]:
        """Metrics of a picture [H, W, 3] against the frame of an evaluation batch."""
        if self._metrics is None:
            self._metrics = FrameMetrics()
            if self._metrics.left_out:
                CONSOLE.print(f"[yellow]{self._metrics.left_out}")
        return image_metrics(self._metrics, image, batch["target"], batch["head"])
