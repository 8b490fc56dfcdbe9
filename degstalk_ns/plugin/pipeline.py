"""Adapter to nerfstudio's Pipeline: averages of the metrics over all evaluation frames, also if some lack a metric, and
tests of what drives the mouth. No mathematics of its own: the metrics (PSNR, LMD and others) are in `metrics/`.
"""

from __future__ import annotations

from collections.abc import Callable
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
from torch import Tensor

from degstalk_ns.animation.animation import silent_track
from degstalk_ns.animation.spoken import spoken_tracks
from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.avatar.driving import DrivingTrack
from degstalk_ns.avatar.renderer import over_plate
from degstalk_ns.errors import UserError, one_line_errors
from degstalk_ns.files import write_png
from degstalk_ns.metrics.frames import MetricTable, box_l1, lips_and_cracks, spoken_metrics
from degstalk_ns.metrics.lips_and_eyes import (
    FaceComparison,
    FaceLandmarks,
    LipMovement,
    eye_closing,
    lip_movement,
    lmd_availability,
    wide_opening,
)
from degstalk_ns.metrics.seam import is_plain, seam_errors
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager, TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModel, DegstalkModelConfig
from degstalk_ns.reading.checkpoints import first_difference
from degstalk_ns.training.stages import Schedule


@dataclass
class DegstalkPipelineConfig(VanillaPipelineConfig):
    """Data, model and evaluation of a talking portrait."""

    _target: type = field(default_factory=lambda: DegstalkPipeline)
    datamanager: DataManagerConfig = field(default_factory=TalkingHeadDataManagerConfig)
    model: ModelConfig = field(default_factory=DegstalkModelConfig)
    measure_lips: bool = True
    """During full evaluation, detect lips and eyes in rendered and recorded frames with MediaPipe, to measure the
    landmark distance (LMD) and how far mouth and eyes open."""
    measure_driving: bool = True
    """During full evaluation, also render all frames with the driving signals frozen at the first frame and with silent
    audio, to test how much the audio moves the mouth."""
    measure_spoken: bool = True
    """During full evaluation, also render all frames with a mouth that the audio alone moves, as new audio does, and
    with three controls: the sound of another moment, a still mouth, and silence."""
    measure_other_plate: bool = True
    """During full evaluation, also compose all frames over the plate of the training frame in which the head is held
    most alike, as with new audio, and not over their own, which shows the recorded hair and seam: the protocol "plate
    withheld"."""
    measure_training_frames: int = 200
    """During full evaluation, number of frames of the training part in which lips and the border of the face are
    measured too: what is wrong there was not learned at all. 0 turns it off."""


class DegstalkPipeline(VanillaPipeline):
    """nerfstudio's pipeline; see the module."""

    config: DegstalkPipelineConfig
    steps: Tensor
    planned: Tensor

    @one_line_errors()
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        from degstalk_ns.plugin.viewer import TalkingHeadViewer  # here: it is much code that listing the methods spares

        super().__init__(*args, **kwargs)
        assert isinstance(self.model, DegstalkModel)
        assert isinstance(self.datamanager, TalkingHeadDataManager)
        self.model.overlaps_plate(self.datamanager.face_window // 2)
        self.model.frames.hair_in_front = self.datamanager.hair_in_front
        # Of the whole run, if it was extended; 0 if not. In the checkpoint, for a resumed run.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        # Of the schedule that was trained by; 0 before the training, and in checkpoints of version 0.1.
        self.register_buffer("planned", torch.zeros((), dtype=torch.long))
        self.talking_head = TalkingHeadViewer(self.model)  # nerfstudio's viewer looks for it among the attributes

    @one_line_errors()
    def load_pipeline(self, loaded_state: dict[str, Any], step: int) -> None:
        absent: dict[str, Any] = {"steps": torch.zeros_like(self.steps), "planned": torch.zeros_like(self.planned)}
        absent |= {f"_model.densifiers.{name}._extra_state": {} for name in REGIONS}
        self.model.update_to_step(step)
        try:
            # Strictly: nerfstudio would leave what is missing as it was drawn at random.
            self.load_state_dict(
                absent | {key.removeprefix("module."): loaded_state[key] for key in loaded_state}, True
            )
        except RuntimeError as error:
            raise UserError(
                f"the checkpoint does not fit this method and dataset ({first_difference(error)}); it was made by "
                "another version of degstalk-ns, or for another dataset: train again, or install that version"
            ) from None

    def lengthen(self, steps: int, seed: int) -> None:
        """Stretch the schedule to ``steps`` from the next step on; ``seed`` is that of the run."""
        model, manager = self.model, self.datamanager
        assert isinstance(model, DegstalkModel) and isinstance(manager, TalkingHeadDataManager)
        self.steps.fill_(steps)
        self.planned.fill_(steps)
        model.schedule = Schedule(model.config.schedule, steps)
        manager.follow(model.schedule, seed)

    def learned_lips(self, frames: int) -> LipMovement | str:
        """How far the lips move, as trained so far, in some ``frames`` of the training part; or why that cannot be
        told, in words."""
        reason = lmd_availability()
        if reason is not None:
            return reason
        self.eval()
        with FaceLandmarks() as face_landmarks:
            gaps = self._training_frames(face_landmarks, frames).columns("lip_gap", "lip_gap_true")
        self.train()
        wide = wide_opening(gaps[1])
        moved = None if wide is None else lip_movement(*gaps, wide)
        return moved or f"moving lips are found in too few of {frames} training frames"

    @torch.no_grad()
    def driven_lips(self, drivings: dict[str, DrivingTrack], advance: Callable[[str], None]) -> dict[str, float]:
        """``<name>_lmd`` and what :func:`~degstalk_ns.metrics.frames.spoken_metrics` tells of each driving, over the
        held-out frames.

        Args:
            drivings: by name. advance: is told how far it is.

        Raises:
            UserError: landmarks cannot be detected.
        """
        reason = lmd_availability()
        if reason is not None:
            raise UserError(reason)
        assert isinstance(self.datamanager, TalkingHeadDataManager)
        self.eval()
        table, loader = MetricTable(), self.datamanager.fixed_indices_eval_dataloader
        with FaceLandmarks() as face_landmarks:
            for index, (camera, batch) in enumerate(loader):
                advance(f"held-out frame {index + 1} of {len(loader)}")
                table.add(self._lips(drivings, camera, batch["target"].image, face_landmarks)[0])
        means = table.mean()
        distances = {key: means[key] for key in (f"{name}_lmd" for name in drivings) if key in means}
        return distances | spoken_metrics(table, list(drivings))

    def get_average_image_metrics(
        self,
        data_loader: Any,
        image_prefix: str,
        step: int | None = None,
        output_path: Path | None = None,
        get_std: bool = False,
    ) -> dict[str, float]:
        """Means (and standard deviations) of each metric over the frames in which it could be measured.

        Beside the model's metrics: ``fps`` (frames per second of rendering, reading the plate included), ``lmd``,
        ``lip_opening`` and ``lip_opening_true`` (pixels) with Pearson's r of the former to the recorded jaw and to the
        latter, ``eye_opening`` and ``eye_opening_true`` (height over width) with Pearson's r of the two and, where
        there are blinks, ``eye_closing_at_blinks`` (how far the eyes close then, as a share of how far the recorded
        ones do, over ``blink_frames`` frames), ``lip_slope``, ``lip_spread``, ``lips_shut`` and ``lips_closed``
        (:class:`~degstalk_ns.metrics.lips_and_eyes.LipMovement`), ``psnr_hair`` and ``psnr_face`` (of those pixels
        alone), those of :meth:`~degstalk_ns.metrics.frames.FrameMetrics.of_face` with ``crack_frames`` (frames with a
        crack that is plain to see), lips and cracks again over training frames (``train_...``), ``lips_l1``
        (mean absolute error in the lips rectangle), and with ``measure_driving`` the same when everything that drives
        is frozen at the first frame (``lips_l1_frozen``) or the sound is silence (``lips_l1_silent``), how far each
        moves the lips from the driven picture (``lips_l1_change_...``), and ``lips_l1_ratio_to_frozen``. With
        ``measure_other_plate`` the metrics of pictures over another frame's plate (``other_plate_...``), and with
        ``measure_spoken`` what :func:`~degstalk_ns.metrics.frames.spoken_metrics` tells of
        :func:`~degstalk_ns.animation.spoken.spoken_tracks`.
        """
        model = self.model
        assert isinstance(model, DegstalkModel)
        self.eval()
        if output_path is not None:
            output_path.mkdir(parents=True, exist_ok=True)
        no_lips = lmd_availability() if self.config.measure_lips else "LMD is left out: measure_lips is off"
        withheld = self.config.measure_other_plate and self._has_other_plates(data_loader[0][0])
        others = self._other_drivings() if self.config.measure_driving else {}
        spoken = self._spoken_drivings() if self.config.measure_spoken and not no_lips else {}
        # The first frame pays for compilation and caches; it is rendered once before the clock counts.
        model.get_outputs_for_camera(data_loader[0][0])["rgb"]
        table, seconds = MetricTable(), []
        progress = track(data_loader, "Evaluating all images", total=len(data_loader), console=CONSOLE, transient=True)
        # MediaPipe must be closed while Python is still whole, hence here and not at exit.
        with FaceLandmarks() as face_landmarks:
            for index, (camera, batch) in enumerate(progress):
                start = perf_counter()
                image = model.get_outputs_for_camera(camera)
                image["rgb"]  # outputs are computed when they are read
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(perf_counter() - start)
                metrics, pictures = model.get_image_metrics_and_images(image, batch)
                truth, lips = batch["target"].image, batch["target"].lips
                metrics["lips_l1"] = box_l1(image["rgb"], truth, lips)
                jaw = model.recorded_jaw(camera)
                if jaw is not None:
                    metrics["recorded_jaw"] = jaw
                if withheld:
                    over_other = model.image_metrics(self._over_other_plate(image, camera), batch)
                    metrics |= {f"other_plate_{name}": value for name, value in over_other.items()}
                found = None if no_lips else face_landmarks(image["rgb"], truth)
                if found is not None:
                    metrics["lmd"] = found.distance
                    metrics["lip_opening"] = found.opening
                    metrics["lip_opening_true"] = found.true_opening
                    metrics["lip_gap"] = found.relative
                    metrics["lip_gap_true"] = found.true_relative
                    metrics["eye_opening"] = found.eyes
                    metrics["eye_opening_true"] = found.true_eyes
                for name, driving in others.items():
                    with model.driven_by(driving):
                        other = model.get_outputs_for_camera(camera)["rgb"]
                    metrics[f"lips_l1_{name}"] = box_l1(other, truth, lips)
                    metrics[f"lips_l1_change_{name}"] = box_l1(other, image["rgb"], lips)
                if found is not None and spoken:
                    metrics |= self._spoken(spoken, camera, truth, found, face_landmarks)
                table.add(metrics)
                if output_path is not None:
                    for name, picture in pictures.items():
                        file = output_path / f"{image_prefix}_{name}_{index:04d}.png"
                        write_png(file, (picture * 255 + 0.5).clamp(0, 255).to(torch.uint8).cpu().numpy())
            trained = self._training_frames(None if no_lips else face_landmarks, self.config.measure_training_frames)
        self.train()
        for line in [no_lips] * bool(no_lips) + table.gaps():
            CONSOLE.print(f"[yellow]{line}")
        result = table.mean(with_std=get_std)
        result["fps"] = len(seconds) / sum(seconds)
        if "lips_l1_frozen" in result:
            result["lips_l1_ratio_to_frozen"] = result["lips_l1"] / max(result["lips_l1_frozen"], 1e-12)
        height = model.recording.height
        wide = wide_opening(trained.column("lip_gap_true") or table.column("lip_gap_true"))
        cracks = table.column("other_plate_cracks")
        if cracks:
            result["other_plate_crack_frames"] = float(sum(is_plain(count, height) for count in cracks))
        for prefix, measured in (("", table), ("train_", trained)):
            result |= {f"{prefix}{name}": value for name, value in lips_and_cracks(measured, wide, height).items()}
        result |= spoken_metrics(table, list(spoken))
        for name, other in (("jaw", "recorded_jaw"), ("truth", "lip_opening_true")):
            related = table.relate("lip_opening", other)
            if related is not None:
                result[f"lip_opening_r_{name}"] = related
        related = table.relate("eye_opening", "eye_opening_true")
        if related is not None:
            result["eye_opening_r_truth"] = related
        closing = eye_closing(*table.columns("eye_opening", "eye_opening_true"))
        if closing is not None:
            result["eye_closing_at_blinks"], result["blink_frames"] = closing
        elif not no_lips:
            CONSOLE.print("[yellow]eye_closing_at_blinks: nobody blinks in the evaluation frames")
        return result

    def _has_other_plates(self, camera: Any) -> bool:
        """Whether the dataset holds what plates for another jaw are made of; if not, a line says so."""
        try:
            self.model.frames.other_plate(self.model.moment(camera, 0)[1])
        except UserError as error:
            CONSOLE.print(f"[yellow]Pictures over another frame's plate are not measured: {error}")
            return False
        return True

    def _over_other_plate(self, outputs: Any, camera: Any) -> Tensor:
        """The picture over the plate of another, training frame."""
        model = self.model
        assert isinstance(model, DegstalkModel)
        plate = model.frames.other_plate(model.moment(camera, 0)[1])
        return over_plate(outputs["regions"], torch.from_numpy(plate).to(self.device).float() / 255.0)

    def _spoken(
        self,
        drivings: dict[str, DrivingTrack],
        camera: Any,
        truth: Tensor,
        found: FaceComparison,
        face_landmarks: FaceLandmarks,
    ) -> dict[str, float]:
        """Metrics of one frame with each of the drivings of :func:`spoken_tracks`."""
        metrics, images = self._lips(drivings, camera, truth, face_landmarks)
        for part, box in (("upper", found.upper_box), ("mouth", found.mouth_box)):
            metrics[f"sound_moves_{part}"] = box_l1(images["spoken"], images["hushed"], box)
        return metrics

    def _lips(
        self, drivings: dict[str, DrivingTrack], camera: Any, truth: Tensor, face_landmarks: FaceLandmarks
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Lips of one frame under each driving, for :func:`~degstalk_ns.metrics.frames.spoken_metrics`; its images."""
        model, metrics, images = self.model, dict[str, float](), dict[str, Tensor]()
        assert isinstance(model, DegstalkModel)
        for name, driving in drivings.items():
            with model.driven_by(driving):
                images[name] = model.get_outputs_for_camera(camera)["rgb"]
            seen = face_landmarks(images[name], truth)
            if seen is not None:
                metrics |= {f"{name}_lmd": seen.distance, f"{name}_gap": seen.relative}
                metrics[f"{name}_gap_true"] = seen.true_relative
        return metrics, images

    def _spoken_drivings(self) -> dict[str, DrivingTrack]:
        assert isinstance(self.model, DegstalkModel)
        try:
            drivings, notes = spoken_tracks(self.model.recording)
        except UserError as error:
            drivings, notes = {}, (f"The mouth that sound alone drives is not measured: {error}",)
        for note in notes:
            CONSOLE.print(f"[yellow]{note}")
        return drivings

    def _training_frames(self, face_landmarks: FaceLandmarks | None, count: int) -> MetricTable:
        """Lips and cracks in ``count`` frames of the training part."""
        model, manager = self.model, self.datamanager
        assert isinstance(model, DegstalkModel) and isinstance(manager, TalkingHeadDataManager)
        table = MetricTable()
        if count < 1:
            return table
        frames = manager.some_training_frames(count)
        for camera, batch in track(
            frames, "Evaluating training frames", total=len(frames), console=CONSOLE, transient=True
        ):
            image, target = model.get_outputs_for_camera(camera)["rgb"], batch["target"]
            errors = seam_errors(image, target.image, batch["head"].numpy(), target.hair.cpu().numpy())
            metrics = {} if errors is None else {"cracks": float(errors.cracks), "broken_face": errors.broken_face}
            found = face_landmarks(image, target.image) if face_landmarks is not None else None
            if found is not None:
                metrics |= {"lip_gap": found.relative, "lip_gap_true": found.true_relative}
            table.add(metrics)
        return table

    def _other_drivings(self) -> dict[str, DrivingTrack]:
        """Driving tracks to compare the recorded one with: one that does not move, and one with silent audio."""
        model = self.model
        assert isinstance(model, DegstalkModel)
        drivings = {"frozen": model.recorded_track.frozen(0)}
        silence = silent_track(model.recording)
        if silence is None:
            CONSOLE.print("[yellow]The effect of silence is not measured: these audio features have no known silence.")
        else:
            drivings["silent"] = silence
        return drivings
