"""Adapter to nerfstudio's DataManager: each step delivers one face frame and one mouth frame, read lazily.

It chooses frames and reads them; `training/objective.py` compares them with the render. No mathematics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils.rich_utils import CONSOLE
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.dataparsers.frame import FrameData, read_frame
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.dataparsers.transforms import FrameTable
from degstalk_ns.errors import UserError, one_line_errors
from degstalk_ns.parallel import in_order
from degstalk_ns.plates.hair import skin_under_hair
from degstalk_ns.plates.lengths import odd_window
from degstalk_ns.training.curriculum import Curriculum, CurriculumConfig
from degstalk_ns.training.objective import FrameTarget, face_region
from degstalk_ns.training.stages import Schedule, Stage

Batch = dict[str, Any]

WIDEST_MARGIN: Final[float] = 0.1
"""Maximum of ``face_margin``, as a fraction of the frame height; a larger value was most likely meant in pixels. Chosen
for this project."""


@dataclass
class TalkingHeadDataManagerConfig(FullImageDatamanagerConfig):
    """Chooses and loads the frames of each training step. Frames are read when they are needed, so memory does not grow
    with the length of the video."""

    _target: type = field(default_factory=lambda: TalkingHeadDataManager)
    dataparser: AnnotatedDataParserUnion = field(default_factory=TalkingHeadDataParserConfig)
    """Reader of the dataset."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """Sampling curriculum of the motion stage: which frames each step trains on. During the stage one window slides
    from wide open to closed mouths and another from open to closed eyes. The values are those of the official DEGSTalk
    code, unless an option says otherwise."""
    face_margin: float = 3 / 512
    """Distance by which the head mask is dilated on every side for training the face, as a fraction of the frame height
    (3 pixels at 512), so that the rendered face overlaps the background image, in which the face is cut out 6 pixels
    inside the mask. With a downscale factor the height is that of the reduced frames. Chosen for this project; the
    paper dilates the mask too but does not say by how much."""
    hair_in_front: bool = True
    """Train the face to reach under the hair at its border, where it shows the nearest skin, and put the recorded hair
    in front of it. The official DEGSTalk code has no such layer: there hair lies behind the face."""
    prefetch_steps: int = 4
    """Number of training steps whose frames are loaded in advance, in one thread."""
    # nerfstudio's options for caching and sampling frames have no effect here and are not listed in the help.
    masks_on_gpu: tyro.conf.Suppress[bool] = False
    images_on_gpu: tyro.conf.Suppress[bool] = False
    camera_res_scale_factor: tyro.conf.Suppress[float] = 1.0
    eval_num_images_to_sample_from: tyro.conf.Suppress[int] = -1
    eval_num_times_to_repeat_images: tyro.conf.Suppress[int] = -1
    eval_image_indices: tyro.conf.Suppress[tuple[int, ...] | None] = (0,)
    cache_images: tyro.conf.Suppress[Literal["cpu", "gpu"]] = "cpu"
    cache_images_type: tyro.conf.Suppress[Literal["uint8", "float32"]] = "uint8"
    max_thread_workers: tyro.conf.Suppress[int | None] = None
    train_cameras_sampling_strategy: tyro.conf.Suppress[Literal["random", "fps"]] = "random"
    train_cameras_sampling_seed: tyro.conf.Suppress[int] = 42
    fps_reset_every: tyro.conf.Suppress[int] = 100


class EvalFrames:
    """Frames of a split as (camera, batch) pairs, read one at a time."""

    def __init__(self, read: Callable[[int], tuple[Cameras, Batch]], indices: Sequence[int]) -> None:
        """
        Args:
            read: gives the pair of a frame by its index in the split.
            indices: of the frames.
        """
        self._read = read
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[Cameras, Batch]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._read(self._indices[index])

    def __iter__(self) -> Iterator[tuple[Cameras, Batch]]:
        return (self[index] for index in range(len(self)))


class TalkingHeadDataset(InputDataset):
    """nerfstudio's dataset with the frames at the size the dataparser asks for."""

    def get_numpy_image(self, image_idx: int) -> NDArray[np.uint8]:
        outputs = self._dataparser_outputs
        image_id = int(outputs.metadata["frame_ids"][image_idx])
        return read_frame(outputs.metadata["recording"], image_id, what=()).image


class TalkingHeadDataManager(FullImageDatamanager[TalkingHeadDataset]):
    """Delivers ``cameras`` of shape [2] (the face frame's, the mouth frame's) and their
    :class:`~degstalk_ns.training.objective.FrameTarget` for training; single cameras and images for evaluation."""

    config: TalkingHeadDataManagerConfig

    def __init__(self, config: TalkingHeadDataManagerConfig, *args: Any, **kwargs: Any) -> None:
        with one_line_errors():
            if not 0.0 < config.face_margin <= WIDEST_MARGIN:
                raise UserError(
                    f"face_margin must be a fraction of the frame's height above 0 and at most {WIDEST_MARGIN}, got "
                    f"{config.face_margin:g}; 3 pixels at a height of 512 are {3 / 512:.4f}"
                )
            if config.camera_res_scale_factor != 1.0:
                raise UserError("camera_res_scale_factor is not offered here; use the dataparser's downscale_factor")
            super().__init__(config, *args, **kwargs)
        self._curriculum: Curriculum | None = None
        self._schedule: Schedule | None = None
        self._told_of_small_mouths = False
        self._counted_mouths: dict[int, int] = {}
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames")
        self._batches: Iterator[tuple[list[int], FrameTarget, FrameTarget]] = iter(())
        self._upcoming = -1  # the step whose frames come next from _batches
        self.train_cameras = self.train_dataset.cameras

    @property
    def recording(self) -> Recording:
        recording = self.train_dataparser_outputs.metadata["recording"]
        assert isinstance(recording, Recording)
        return recording

    @property
    def hair_in_front(self) -> bool:
        """Whether recorded hair lies in front of the face: not where it is part of the head."""
        return self.config.hair_in_front and not self.recording.options.hair_in_head

    @property
    def face_window(self) -> int:
        """Side of the window (odd) by which the head mask is dilated for training the face, pixels: 7 at 512."""
        return odd_window(self.config.face_margin, self.recording.height)

    # nerfstudio's own manager would cache every image at once. Cached properties still: its viewer reads all others.
    @cached_property
    def cached_train(self) -> list[Batch]:  # type: ignore[override]
        raise RuntimeError("frames are read lazily; there is no cache of all training images")

    @cached_property
    def cached_eval(self) -> list[Batch]:  # type: ignore[override]
        raise RuntimeError("frames are read lazily; there is no cache of all evaluation images")

    def get_train_rays_per_batch(self) -> int:
        return 2 * self.recording.width * self.recording.height

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """No callback, but this is where the length of the run and its stages become known."""
        pipeline, trainer = attributes.pipeline, attributes.trainer
        assert pipeline is not None and trainer is not None
        self.follow(
            Schedule(pipeline.model.config.schedule, trainer.config.max_num_iterations), trainer.config.machine.seed
        )
        return []

    def follow(self, schedule: Schedule, seed: int) -> None:
        """Choose the frames of every step from the next one on by ``schedule``."""
        rows, recording = self.recording.train.aud_ids, self.recording
        self._schedule, self._upcoming = schedule, -1
        self._curriculum = Curriculum(
            schedule, recording.mouth_opening[rows], recording.blink[rows], self.config.curriculum, seed=seed
        )

    def next_train(self, step: int) -> tuple[Cameras, Batch]:
        """Cameras [2] and targets of the step's face and mouth frame."""
        with one_line_errors():
            if step != self._upcoming:  # the first one, a resumed run, or another try after an error
                steps = range(step, max(self._total_steps(), step + 1))
                self._batches = in_order(self._reader, self._read_step, steps, 1 + self.config.prefetch_steps)
            self._upcoming = -1
            frames, face, mouth = next(self._batches)
            self._upcoming = step + 1
        cameras = self.train_cameras[torch.tensor(frames)].to(self.device)
        face, mouth = face.to(self.device), mouth.to(self.device)
        return cameras, {"face": face, "mouth": mouth, "image": face.image}

    def _total_steps(self) -> int:
        assert self._schedule is not None, "training has not been set up"
        return self._schedule.total

    def _read_step(self, step: int) -> tuple[list[int], FrameTarget, FrameTarget]:
        """Indices of the step's face and mouth frame in the training split, and their targets."""
        assert self._schedule is not None and self._curriculum is not None, "training has not been set up"
        fused = self._schedule.stage(step) is Stage.FUSE
        face_index = self._curriculum.face_frame(step)
        face = self._target(self._open(self.recording.train, face_index), plate=fused)
        if fused:
            return [face_index, face_index], face, face
        enough = self.config.curriculum.min_mouth_pixels(self.recording.height, self.recording.width)
        candidates = self._curriculum.mouth_frames(step)
        mouth_index = next((index for index in candidates if self._mouth_pixels(index) >= enough), None)
        if mouth_index is None:
            mouth_index = max(candidates, key=self._mouth_pixels)
            self._tell_of_small_mouths(step, self._mouth_pixels(mouth_index))
        mouth = self._target(self._open(self.recording.train, mouth_index), plate=False, face=False)
        return [face_index, mouth_index], face, mouth

    def _mouth_pixels(self, index: int) -> int:
        """Pixels of the mouth interior in a training frame; each mask is read for it once in a run."""
        if index not in self._counted_mouths:
            self._counted_mouths[index] = int(np.count_nonzero(self._open(self.recording.train, index).mouth))
        return self._counted_mouths[index]

    def _tell_of_small_mouths(self, step: int, pixels: int) -> None:
        """Once a run: what the mouth learns from shows less of it than it should."""
        if not self._told_of_small_mouths:
            self._told_of_small_mouths = True
            CONSOLE.print(
                f"note: none of the frames tried for the mouth at step {step} shows enough of its inside; the best of "
                f"them shows {pixels} pixels and is trained on, and likewise in later steps",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _open(self, table: FrameTable, index: int) -> FrameData:
        return read_frame(self.recording, int(table.img_ids[index]), what=())

    def _target(self, frame: FrameData, plate: bool, face: bool = True, recorded: bool = False) -> FrameTarget:
        """Image and masks of a frame; ``plate`` and what the ``face`` is to show under the hair only if asked for.
        ``recorded``: masks as recorded, for measuring, also where hair counts as head."""
        mouth = frame.mouth | (frame.teeth & frame.head)
        head = frame.head if recorded else frame.shown_head
        row = self.recording.track_rows[frame.img_id]
        y0, y1, x0, x1 = (int(value) for value in self.recording.lips_rect[row])
        shown, under = frame.image, None
        region = face_region(head, mouth, self.face_window)
        if face and self.hair_in_front:
            shown, under = skin_under_hair(frame.image, frame.head | mouth, frame.hair)
            region |= under & ~mouth
        return FrameTarget(
            image=_unit(frame.image),
            face_region=torch.from_numpy(region),
            mouth_region=torch.from_numpy(mouth),
            hair=torch.from_numpy(frame.hair if recorded else frame.hair_behind),
            lips=(y0, y1, x0, x1),
            plate=_unit(frame.plate if self.hair_in_front else frame.bare_plate) if plate else None,
            under_hair=None if under is None else torch.from_numpy(under),
            face_image=None if under is None else _unit(shown),
        )

    @property
    def fixed_indices_eval_dataloader(self) -> EvalFrames:  # type: ignore[override]
        return EvalFrames(self.eval_pair, range(len(self.eval_dataset)))

    def some_training_frames(self, count: int) -> EvalFrames:
        """At most ``count`` frames of the training split, evenly spread, as pairs like those of the evaluation
        split."""
        total = len(self.train_dataset)
        indices = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
        return EvalFrames(
            lambda index: self._pair(self.recording.train, self.train_cameras, index), [int(i) for i in indices]
        )

    def eval_pair(self, index: int) -> tuple[Cameras, Batch]:
        """Camera [1] and batch of frame ``index`` of the evaluation split: ``image``, ``target``, and ``head``, the
        mask of face and mouth as recorded (bool [H, W])."""
        return self._pair(self.recording.val, self.eval_dataset.cameras, index)

    def _pair(self, table: FrameTable, cameras: Cameras, index: int) -> tuple[Cameras, Batch]:
        with one_line_errors():
            frame = self._open(table, index)
            target = self._target(frame, plate=False, recorded=True).to(self.device)
            head = torch.from_numpy(frame.head | frame.mouth)
        return cameras[index : index + 1].to(self.device), {"image": target.image, "target": target, "head": head}

    def next_eval_image(self, step: int) -> tuple[Cameras, Batch]:
        """A frame of the evaluation split, another one at each call."""
        index = int(np.random.default_rng([step, len(self.eval_dataset)]).integers(len(self.eval_dataset)))
        return self.eval_pair(index)


def _unit(image: np.ndarray) -> Tensor:
    """uint8 0..255 to float32 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).float() / 255.0
