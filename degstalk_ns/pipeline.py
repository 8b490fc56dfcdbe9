"""Adapter to nerfstudio's Pipeline: averages over all evaluation frames, also where a metric is missing in some, and
tells what drives the mouth. No mathematics of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from nerfstudio.data.datamanagers.base_datamanager import DataManagerConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torchvision.utils import save_image

from degstalk_ns.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.evaluation import MetricTable, box_l1
from degstalk_ns.model import DegstalkModel, DegstalkModelConfig


@dataclass
class DegstalkPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's pipeline with the talking-head datamanager and the DEGSTalk model."""

    _target: type = field(default_factory=lambda: DegstalkPipeline)
    datamanager: DataManagerConfig = field(default_factory=TalkingHeadDataManagerConfig)
    model: ModelConfig = field(default_factory=DegstalkModelConfig)
    measure_driving: bool = True
    """When all evaluation frames are measured, also render them with the driving frozen at the first frame and with
    silence for sound: does the mouth move for the right reason?"""


class DegstalkPipeline(VanillaPipeline):
    """nerfstudio's pipeline; see the module."""

    config: DegstalkPipelineConfig

    def get_average_image_metrics(
        self,
        data_loader: Any,
        image_prefix: str,
        step: int | None = None,
        output_path: Path | None = None,
        get_std: bool = False,
    ) -> dict[str, float]:
        """Means (and standard deviations) of each metric over the frames in which it could be measured.

        Beside the model's metrics: ``fps`` (frames per second of rendering alone), ``lips_l1`` (mean absolute error
        in the lips rectangle), and with ``measure_driving`` the same with the driving frozen at the first frame
        (``lips_l1_frozen``), their ratio, and how much silence changes the lips (``lips_l1_silence_change``).
        """
        model = self.model
        assert isinstance(model, DegstalkModel)
        self.eval()
        if output_path is not None:
            output_path.mkdir(parents=True, exist_ok=True)
        table = MetricTable()
        frozen_track, silence = model.recorded_track.frozen(0), model.silent_track()
        if self.config.measure_driving and silence is None:
            CONSOLE.print("[yellow]The effect of silence is not measured: these audio features have no known silence.")
        # The first frame pays for compilation and caches; it is rendered once before the clock counts.
        model.get_outputs_for_camera(data_loader[0][0])
        for index, (camera, batch) in enumerate(
            track(data_loader, "Evaluating all images", total=len(data_loader), console=CONSOLE, transient=True)
        ):
            start = perf_counter()
            outputs = model.get_outputs_for_camera(camera)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = perf_counter() - start
            metrics, images = model.get_image_metrics_and_images(outputs, batch)
            target = batch["target"]
            metrics["seconds_per_frame"] = seconds
            metrics["lips_l1"] = box_l1(outputs["rgb"], target.image, target.lips)
            if self.config.measure_driving:
                with model.driven_by(frozen_track):
                    frozen = model.get_outputs_for_camera(camera)["rgb"]
                metrics["lips_l1_frozen"] = box_l1(frozen, target.image, target.lips)
                if silence is not None:
                    with model.driven_by(silence):
                        silent = model.get_outputs_for_camera(camera)["rgb"]
                    metrics["lips_l1_silence_change"] = box_l1(silent, outputs["rgb"], target.lips)
            table.add(metrics)
            if output_path is not None:
                for name, image in images.items():
                    save_image(image.permute(2, 0, 1).cpu(), output_path / f"{image_prefix}_{name}_{index:04d}.png")
        self.train()
        for line in table.gaps():
            CONSOLE.print(f"[yellow]{line}")
        result = table.mean(with_std=get_std)
        result["fps"] = 1.0 / result.pop("seconds_per_frame")
        if self.config.measure_driving:
            result["lips_l1_ratio_to_frozen"] = result["lips_l1"] / max(result["lips_l1_frozen"], 1e-12)
        return result
