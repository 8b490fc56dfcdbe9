"""The methods that `ns-train` lists: `degstalk`, the paper's schedule, and `degstalk-fast`, the same in small.

It assembles configs and must hold no logic. Every program of nerfstudio imports it, for any method, so importing it
changes nothing of the process but one thing: yaml learns to refuse the config of a run by an earlier version in one
line (`saved_config.refuse_earlier_runs`).
"""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from degstalk_ns.configs.optimizers import FieldRates, GaussianRates, optimizers
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModelConfig
from degstalk_ns.plugin.pipeline import DegstalkPipelineConfig
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
from degstalk_ns.training.curriculum import CurriculumConfig
from degstalk_ns.training.schedule import ScheduleConfig


def _method(
    name: str,
    steps: int,
    model: DegstalkModelConfig,
    optimizer_groups: dict[str, Any],
    curriculum: CurriculumConfig | None = None,
) -> DegstalkTrainerConfig:
    return DegstalkTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_eval_batch=0,
        steps_per_eval_image=max(steps // 20, 100),
        steps_per_eval_all_images=0,
        steps_per_save=max(steps // 10, 100),
        mixed_precision=False,
        pipeline=DegstalkPipelineConfig(
            datamanager=TalkingHeadDataManagerConfig(curriculum=curriculum or CurriculumConfig()), model=model
        ),
        optimizers=optimizer_groups,
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=1 << 15, quit_on_train_completion=True),
        vis="viewer+tensorboard",
    )


degstalk = MethodSpecification(
    config=_method("degstalk", 60_000, DegstalkModelConfig(), optimizers()),
    description="DEGSTalk: talking portraits by deformable Gaussians with long hair kept, the paper's schedule.",
)

FAST_STEPS = 7_000
"""Steps of the short schedule."""

FAST_BLINK_EVERY = 5
"""Of the short schedule's motion steps, one in six (every fifth, but for those of mouth opening) takes a blink. One
frame in twenty shows one, and to learn it takes some hundreds of steps, however long the run. Origin: ours."""


def _fast_model() -> DegstalkModelConfig:
    """The same stages, losses and fields, with what a tenth of the steps needs.

    Stage boundaries at other fractions (relatively longer static and perceptual phases, growth at wider intervals that
    ends earlier), 5,000 Gaussians a region at the start and a limit on their number, a lower bar for pruning and none
    by size on screen, and a random colour behind the regions. Eyes close (``blink_end``) while Gaussians still move and
    grow, and their input is as large as the features beside it. Faster rates and more blinks: see ``degstalk_fast``.
    """
    model = DegstalkModelConfig()
    model.schedule = ScheduleConfig(
        static_end=600 / FAST_STEPS,
        motion_end=6_000 / FAST_STEPS,
        growth_start=300 / FAST_STEPS,
        growth_end=4_000 / FAST_STEPS,
        growth_every=100 / FAST_STEPS,
        size_prune_start=600 / FAST_STEPS,
        perceptual_start=5_400 / FAST_STEPS,
        curriculum_end=4_500 / FAST_STEPS,
        blink_end=1_500 / FAST_STEPS,
        hair_free_end=5_200 / FAST_STEPS,
        fuse_perceptual_start=6_500 / FAST_STEPS,
        sh_degree_every=500 / FAST_STEPS,
        lr_means_end=6_000 / FAST_STEPS,
        lr_fields_half=4_000 / FAST_STEPS,
    )
    model.losses.random_key = True
    model.avatar.face_field.eyelid_gain = 4.0
    model.avatar.face.num_points = 5_000
    model.avatar.mouth.num_points = 5_000
    for growth in (model.face_growth, model.mouth_growth):
        growth.prune_opacity_start = 0.01
        growth.prune_opacity_end = 0.1
        growth.prune_radius = None
    model.face_growth.max_gaussians = 20_000
    model.mouth_growth.max_gaussians = 8_000
    return model


degstalk_fast = MethodSpecification(
    config=_method(
        "degstalk-fast",
        FAST_STEPS,
        _fast_model(),
        optimizers(GaussianRates(means=3 * GaussianRates.means), FieldRates(networks=3 * FieldRates.networks)),
        CurriculumConfig(blink_every=FAST_BLINK_EVERY),
    ),
    description="DEGSTalk on a short schedule, for a laptop without a GPU.",
)
