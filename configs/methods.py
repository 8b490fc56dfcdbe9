"""The methods that `ns-train` lists: `degstalk` with the paper's schedule, and `degstalk-fast` with a short one.

It assembles configs and must hold no logic. Every program of nerfstudio imports it, for any method, so importing it
changes nothing of the process but one thing: yaml learns to refuse the config of a run by an earlier version in one
line (`saved_config.refuse_earlier_runs`).
"""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from degstalk_ns.configs.optimizers import FieldRates, GaussianRates, optimizers, pose_optimizer
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModelConfig
from degstalk_ns.plugin.pipeline import DegstalkPipelineConfig
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
from degstalk_ns.training.convergence import LengthConfig
from degstalk_ns.training.curriculum import CurriculumConfig
from degstalk_ns.training.stages import ScheduleConfig


def _method(
    name: str,
    steps: int,
    model: DegstalkModelConfig,
    optimizer_groups: dict[str, Any],
    curriculum: CurriculumConfig | None = None,
    length: LengthConfig | None = None,
) -> DegstalkTrainerConfig:
    return DegstalkTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        length=length or LengthConfig(),
        steps_per_eval_batch=0,
        steps_per_eval_image=max(steps // 20, 100),
        steps_per_eval_all_images=0,
        steps_per_save=max(steps // 10, 100),
        mixed_precision=False,
        pipeline=DegstalkPipelineConfig(
            datamanager=TalkingHeadDataManagerConfig(curriculum=curriculum or CurriculumConfig()), model=model
        ),
        optimizers=optimizer_groups | pose_optimizer(),
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=1 << 15, quit_on_train_completion=True),
        vis="viewer+tensorboard",
    )


def _learn_causes(model: DegstalkModelConfig) -> None:
    """What keeps a face from learning what merely goes along in the recording, so that it follows expressions that it
    has not seen; the official DEGSTalk code has none of it.

    Every signal moves its own part of the face, and the face hears the sound in every second motion step only.
    Neighbouring Gaussians are to move alike. The expression is compressed less and moves the mouth interior too, and
    the lips count more. Regions are trained over random background colours: over the green key, the weight of the lips
    teaches the face to paint that green into an open mouth.
    """
    model.schedule.silent_every = 2
    model.losses.random_key = True
    model.losses.lips_l1 = 4.0
    model.losses.smoothness = 0.3
    model.avatar.face_field.parts = True
    model.avatar.face_field.expression_hidden = 96
    model.avatar.face_field.expression_features = 48
    model.avatar.face_field.expression_attention_hidden = 32
    model.avatar.mouth_field.expression_features = 8
    model.avatar.mouth_field.parts = True


def _paper_model() -> DegstalkModelConfig:
    """Schedule, rates and losses of the official DEGSTalk code, and :func:`_learn_causes`; with a limit on the number
    of Gaussians, so that a run on a CPU ends in hours: without it, a face had 25,000 after a quarter of the run."""
    model = DegstalkModelConfig()
    _learn_causes(model)
    model.face_growth.max_gaussians = 20_000
    model.mouth_growth.max_gaussians = 10_000
    return model


degstalk = MethodSpecification(
    config=_method("degstalk", 60_000, _paper_model(), optimizers()),
    description="DEGSTalk: hair-preserving talking portraits by deformable Gaussian splatting, paper's schedule.",
)

FAST_STEPS = 5_000
"""Number of steps of the short schedule. Chosen for this project."""

FAST_BLINK_EVERY = 5
"""Interval, in motion steps of the short schedule, at which the face trains on a frame with a blink: one step in six,
as steps for the mouth opening come first. Only one frame in twenty shows a blink, and learning it takes some hundreds
of steps however long the run. Chosen for this project."""


def _fast_model() -> DegstalkModelConfig:
    """The same stages, losses and fields, adapted to a twelfth of the steps.

    Stage boundaries lie at other fractions (the static and perceptual phases are relatively longer; densification has
    wider intervals and ends earlier). A region starts with 5,000 Gaussians and their number is limited. Pruning uses a
    lower opacity threshold. LPIPS is computed for half of the patches of a step. The blink window reaches closed eyes
    (``blink_end``) while Gaussians still move and are densified. Higher learning rates and more blinks are set in
    ``degstalk_fast``.
    """
    model = DegstalkModelConfig()
    model.schedule = ScheduleConfig(
        static_end=430 / FAST_STEPS,
        motion_end=4_280 / FAST_STEPS,
        growth_start=215 / FAST_STEPS,
        growth_end=2_860 / FAST_STEPS,
        mouth_growth_end=2_860 / FAST_STEPS,
        growth_every=70 / FAST_STEPS,
        size_prune_start=430 / FAST_STEPS,
        perceptual_start=3_860 / FAST_STEPS,
        mouth_finish_start=4_070 / FAST_STEPS,
        curriculum_end=3_210 / FAST_STEPS,
        blink_end=1_070 / FAST_STEPS,
        hair_free_end=3_710 / FAST_STEPS,
        fuse_perceptual_start=4_640 / FAST_STEPS,
        sh_degree_every=360 / FAST_STEPS,
        lr_means_end=4_280 / FAST_STEPS,
        lr_fields_half=2_860 / FAST_STEPS,
        lr_fields_drop=3_210 / FAST_STEPS,
        lr_fields_tenth=4_280 / FAST_STEPS,
    )
    _learn_causes(model)
    model.losses.patch_share = 0.5
    model.fuse_opacity_lr = 0.001
    model.avatar.face.num_points = 5_000
    model.avatar.mouth.num_points = 5_000
    for growth in (model.face_growth, model.mouth_growth):
        growth.prune_opacity_start = 0.01
        growth.prune_opacity_end = 0.1
    model.face_growth.max_gaussians = 9_000
    model.mouth_growth.max_gaussians = 8_000
    return model


FAST_MOST = 2.0
"""Maximum length of the short schedule, as a factor on its steps, for recordings whose lips are learned slowly. Chosen
for this project."""

degstalk_fast = MethodSpecification(
    config=_method(
        "degstalk-fast",
        FAST_STEPS,
        _fast_model(),
        optimizers(GaussianRates(means=3 * GaussianRates.means), FieldRates(networks=3 * FieldRates.networks)),
        CurriculumConfig(blink_every=FAST_BLINK_EVERY),
        LengthConfig(most=FAST_MOST),
    ),
    description="DEGSTalk with a short schedule, for a laptop without a GPU.",
)
