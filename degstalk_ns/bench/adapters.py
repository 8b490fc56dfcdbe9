"""Adapter to nerfstudio: trained avatars and training runs as the benchmarks want them. No mathematics of its own."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from torch import Tensor, nn

from degstalk_ns.animation.frames import backdrop
from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.bench.look_ahead import Measure
from degstalk_ns.bench.render import Played, Shot, scene_of
from degstalk_ns.bench.work import Work, count_work
from degstalk_ns.errors import UserError
from degstalk_ns.plugin.datamanager import Batch, TalkingHeadDataManager
from degstalk_ns.plugin.model import DegstalkModel, DegstalkModelConfig
from degstalk_ns.plugin.runs import TrainedAvatar, load_run, quiet_console
from degstalk_ns.plugin.trainer import DegstalkTrainer, DegstalkTrainerConfig
from degstalk_ns.training.objective import FrameTarget

SHOTS = 30
"""Frames that `bench render` takes in turn: no more than the cache of plates holds."""


def played(config: Path, data: Path | None = None) -> Played:
    """The avatar of a run, with frames of its validation split.

    Raises:
        UserError: as :func:`degstalk_ns.plugin.runs.load_run`.
    """
    run = load_run(config, data)
    model, manager = run.model, run.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManager)
    cameras = manager.eval_dataset.cameras
    moments = [model.moment(cameras, index) for index in range(min(len(cameras), SHOTS))]
    shots = [Shot(view, model.conditions(frame)) for view, frame in moments]

    def plate(place: int) -> Tensor:
        view, frame = moments[place]
        return backdrop(model, view, frame).float() / 255.0

    return Played(run.name, model.renderer, int(model.sh_degree), bool(model.moving), shots, plate, run.notes)


def driven_lips(config: Path, data: Path | None = None) -> tuple[TrainedAvatar, Measure]:
    """The avatar of a run, and how its lips are measured under some drivings.

    Raises:
        UserError: as :func:`degstalk_ns.plugin.runs.load_run`.
    """
    run = load_run(config, data)
    return run, run.pipeline.driven_lips


class TrainingRun:
    """A run of ``degstalk-fast`` on a dataset that is not saved anywhere; see ``bench.train.TrainingSteps``.

    Args:
        data: dataset folder; None: that of ``start``.
        start: config.yml of a run whose avatar is trained further, or None for a new one.
        method: the config of the method.
    """

    def __init__(self, data: Path | None, start: Path | None, method: DegstalkTrainerConfig) -> None:
        state: dict[str, Any] | None = None
        config = copy.deepcopy(method)
        if start is not None:
            trained = load_run(start, data)
            state = trained.pipeline.state_dict()
            config.pipeline = copy.deepcopy(trained.config.pipeline)
            data = Path(trained.config.data) if trained.config.data else data
        if data is None:
            raise UserError("nothing to train on: give a dataset with --data, or a run with --load-config")
        config.data = config.pipeline.datamanager.data = data
        config.vis = "tensorboard"
        assert isinstance(config.pipeline.model, DegstalkModelConfig)
        schedule = config.pipeline.model.schedule
        schedule.growth_start = schedule.growth_end = 1.0  # never
        self._folder = tempfile.TemporaryDirectory(prefix="degstalk-bench-")
        config.output_dir = Path(self._folder.name)
        config.set_timestamp()
        from nerfstudio.utils import writer  # at the top it would import itself, where it is the first of nerfstudio

        others = list(writer.EVENT_WRITERS)
        with quiet_console():
            self._trainer = config.setup(local_rank=0, world_size=1)
            assert isinstance(self._trainer, DegstalkTrainer)
            self._trainer.setup()
        self._writers = [own for own in writer.EVENT_WRITERS if own not in others]
        if state is not None:
            self._trainer.pipeline.load_state_dict(state)
        self.device = self.model.device
        self._step = 0
        self._side: int | None = None
        self._own = {
            name: {key: value.detach().clone() for key, value in self.model.avatar.region(name).params.items()}
            for name in REGIONS
        }
        manager = self._trainer.pipeline.datamanager
        assert isinstance(manager, TalkingHeadDataManager)
        self._manager, self._read = manager, manager.next_train
        manager.next_train = self._next_train  # type: ignore[method-assign]

    def close(self) -> None:
        """Removes what nerfstudio wrote, and the writers that would go on writing there in this process."""
        from nerfstudio.utils import writer

        for own in self._writers:
            writer.EVENT_WRITERS.remove(own)
            if isinstance(own, writer.TensorboardWriter):
                own.tb_writer.close()
        self._folder.cleanup()

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know of the dataset, one line each."""
        return self.model.recording.notes

    @property
    def model(self) -> DegstalkModel:
        model = self._trainer.pipeline.model
        assert isinstance(model, DegstalkModel)
        return model

    def enter(self, stage: str) -> None:
        schedule = self.model.schedule
        assert schedule is not None
        at = schedule.config
        bounds = {
            "static": (0.0, at.static_end),
            "motion": (at.static_end, at.hair_free_end),
            "perceptual": (at.perceptual_start, at.motion_end),
            "fuse": (at.motion_end, at.fuse_perceptual_start),
            "fuse-perceptual": (at.fuse_perceptual_start, 1.0),
        }
        first, last = bounds[stage]
        self._step = schedule.steps(0.5 * (first + last))
        self.model.sh_degree.fill_(self.model.config.avatar.face.sh_degree)

    def step(self) -> None:
        trainer = self._trainer
        trainer.pipeline.train()
        before, after = (
            TrainingCallbackLocation.BEFORE_TRAIN_ITERATION,
            TrainingCallbackLocation.AFTER_TRAIN_ITERATION,
        )
        for callback in trainer.callbacks:
            callback.run_callback_at_location(self._step, location=before)
        trainer.train_iteration(self._step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(self._step, location=after)
        self._step += 1

    def resize(self, gaussians: int | None, side: int | None) -> None:
        self._side = side
        total = sum(len(self._own[name]["means"]) for name in REGIONS)
        for name in REGIONS:
            own = self._own[name]
            count = len(own["means"])
            wanted = count if gaussians is None else max(round(gaussians * count / total), 1)
            self._replace(name, own, wanted)

    def _replace(self, name: Any, own: dict[str, Tensor], count: int) -> None:
        """The region with ``count`` of its Gaussians, repeated or left out evenly, and scaled to cover the same."""
        params = self.model.avatar.region(name).params
        chosen = torch.linspace(0, len(own["means"]) - 1e-3, count, device=self.device).long()
        shrink = 0.5 * torch.log(torch.tensor(len(own["means"]) / count))
        random = torch.Generator().manual_seed(0)
        for key, value in own.items():
            taken = value[chosen].clone()
            if key == "scales":
                taken += shrink
            if key == "means":  # repeated Gaussians lie beside each other
                noise = torch.randn(taken.shape, generator=random).to(taken)
                taken += noise * own["scales"][chosen].exp() * (count > len(own["means"]))
            parameter = nn.Parameter(taken)
            optimizer = self._trainer.optimizers.optimizers[f"{name}_{key}"]
            optimizer.state.clear()
            optimizer.param_groups[0]["params"] = [parameter]
            self._trainer.optimizers.parameters[f"{name}_{key}"] = [parameter]
            params[key] = parameter
        self.model.renderer.forget()

    def describe(self) -> dict[str, Any]:
        recording = self.model.recording
        side = self._side
        size = (recording.width, recording.height) if side is None else (side, side)
        counts: dict[str, Any] = {name: len(self.model.avatar.region(name)) for name in REGIONS}
        return {**counts, "width": size[0], "height": size[1]}

    def raster_work(self) -> list[Work]:
        model, renderer = self.model, self.model.renderer
        cameras, _ = self._next_train(self._step)
        view, frame = model.moment(cameras, 0)
        moving = bool(model.moving)
        both = renderer.deformed(renderer.motion(model.conditions(frame)) if moving else None)
        face, degree = len(model.avatar.region("face")), int(model.sh_degree)
        renderer.forget()
        return [count_work(scene_of(both, span, view, degree)) for span in (slice(0, face), slice(face, None))]

    def _next_train(self, step: int) -> tuple[Cameras, Batch]:
        cameras, batch = self._read(step)
        if self._side is None:
            return cameras, batch
        scale = self._side / batch["image"].shape[0]
        cameras = copy.deepcopy(cameras)
        cameras.rescale_output_resolution(scale)
        face, mouth = (_resized(batch[name], self._side) for name in ("face", "mouth"))
        return cameras, {"face": face, "mouth": mouth, "image": face.image}


def _resized(target: FrameTarget, side: int) -> FrameTarget:
    """A frame at another size: what a step costs there, not what it would learn."""

    def image(value: Tensor) -> Tensor:
        wide = value.permute(2, 0, 1)[None]
        return F.interpolate(wide, (side, side), mode="bilinear")[0].permute(1, 2, 0).contiguous()

    def mask(value: Tensor) -> Tensor:
        return F.interpolate(value[None, None].float(), (side, side))[0, 0] > 0.5

    scale = side / target.image.shape[0]
    y0, y1, x0, x1 = (round(value * scale) for value in target.lips)
    return FrameTarget(
        image(target.image),
        mask(target.face_region),
        mask(target.mouth_region),
        mask(target.hair),
        (y0, y1, x0, x1),
        None if target.plate is None else image(target.plate),
        None if target.under_hair is None else mask(target.under_hair),
        None if target.face_image is None else image(target.face_image),
    )
