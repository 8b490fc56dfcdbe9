"""The methods that `ns-train` lists: `degstalk`, the paper's schedule, and `degstalk-fast`, the same in small.

It assembles configs; it must not hold logic beyond choosing the device, and nothing is downloaded here.
"""

from __future__ import annotations

from typing import Any

import torch
from degstalk_ns.configs.optimizers import optimizers
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from degstalk_ns.checkpoints import allow_nerfstudio_checkpoints
from degstalk_ns.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.model import DegstalkModelConfig
from degstalk_ns.pipeline import DegstalkPipelineConfig
from degstalk_ns.trainer import DegstalkTrainerConfig

allow_nerfstudio_checkpoints()


def _method(
    name: str, steps: int, model: DegstalkModelConfig, optimizer_groups: dict[str, Any]
) -> DegstalkTrainerConfig:
    return DegstalkTrainerConfig(
        method_name=name,
        max_num_iterations=steps,
        steps_per_eval_batch=0,
        steps_per_eval_image=max(steps // 20, 100),
        steps_per_eval_all_images=0,
        steps_per_save=max(steps // 10, 100),
        mixed_precision=False,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        pipeline=DegstalkPipelineConfig(datamanager=TalkingHeadDataManagerConfig(), model=model),
        optimizers=optimizer_groups,
        viewer=ViewerConfig(websocket_host="127.0.0.1", num_rays_per_chunk=1 << 15, quit_on_train_completion=True),
        vis="viewer+tensorboard",
    )


degstalk = MethodSpecification(
    config=_method("degstalk", 60_000, DegstalkModelConfig(), optimizers()),
    description="DEGSTalk: talking portraits by deformable Gaussians with long hair kept, the paper's schedule.",
)

degstalk_fast = MethodSpecification(
    config=_method("degstalk-fast", 6_000, DegstalkModelConfig(), optimizers()),
    description="DEGSTalk on a short schedule, for a laptop without a GPU.",
)
