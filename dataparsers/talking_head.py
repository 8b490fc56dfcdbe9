"""Adapter: a talking-head dataset as nerfstudio's DataparserOutputs.

It holds no reading and no checking of its own (`recording.py` does), and must not know the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.rich_utils import CONSOLE

from degstalk_ns.dataparsers.layout import require_dataset_folder
from degstalk_ns.dataparsers.options import UPPER_FACE_UNITS, ReadOptions, Signals
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError, one_line_errors

SCENE_BOUND = 0.15
"""Half the side of the scene box, in scene units: the bound of the method's tri-planes."""


@dataclass
class TalkingHeadDataParserConfig(DataParserConfig):
    """Reads a dataset made by degstalk process, or by the scripts of AD-NeRF and its successors."""

    _target: type = field(default_factory=lambda: TalkingHead)
    data: Path = Path()
    """Folder of the dataset."""
    audio: str = "auto"
    """Audio features that drive the mouth, the <name> of aud_<name>.npy: mel, hu, ds or another name; auto uses the
    first of these three that exists."""
    downscale_factor: int = 1
    """Factor by which frames, masks and background images are reduced when they are loaded."""
    scene_scale: float = 1.0
    """Scale factor of the camera positions, for datasets whose unit of length is not about a metre."""
    allow_no_hair: bool = False
    """Accept masks without any hair pixel (a bald person)."""
    signals: Signals = "expression"
    """What drives the face beside the audio: the expression coefficients of a face model (3dmm), or action units
    (au.csv), which replace expression, eyelids and jaw: the paper's variant without implicit expression."""
    units: tuple[str, ...] = UPPER_FACE_UNITS
    """Columns of au.csv that drive the face where action units do; by default those of brows, lids and cheeks, so that
    the audio alone moves the mouth."""
    lid_units: tuple[str, ...] = ()
    """Columns of au.csv that stand for the eyelids where action units drive the face; TalkingGaussian has AU45_r
    here."""
    hair_in_head: bool = False
    """Count the hair as part of the head that Gaussians show, over plates of torso and background alone: the paper's
    variant without hair preservation."""

    @property
    def options(self) -> ReadOptions:
        """How the dataset is read."""
        return ReadOptions(
            scene_scale=self.scene_scale,
            downscale=int(self.downscale_factor),
            allow_no_hair=self.allow_no_hair or self.hair_in_head,
            signals=self.signals,
            units=tuple(self.units),
            lid_units=tuple(self.lid_units),
            hair_in_head=self.hair_in_head,
        )


class TalkingHead(DataParser):
    """Talking-head dataset.

    The outputs' metadata hold "recording" (:class:`~degstalk_ns.dataparsers.recording.Recording`), "split" ("train" or
    "val") and "frame_ids" (int64 tensor [n], the ``img_id`` of each camera). ``cameras.times`` [n, 1] in [0, 1] run
    over the whole driving track, training and validation frames together.

    A mistake in the data ends the program with one line on stderr and exit code 1.
    """

    config: TalkingHeadDataParserConfig
    includes_time: bool = True

    def __init__(self, config: TalkingHeadDataParserConfig) -> None:
        super().__init__(config)
        self._recording: Recording | None = None

    @property
    def recording(self) -> Recording:
        """The dataset, read at the first use.

        Raises:
            UserError: see :func:`~degstalk_ns.dataparsers.recording.read_recording`.
        """
        if self._recording is None:
            if self.config.data == Path():  # nerfstudio's word for none
                require_dataset_folder(None)
            self._recording = read_recording(Path(self.config.data), self.config.audio, self.config.options)
            for note in self._recording.notes:
                CONSOLE.print(f"[degstalk] {self.config.data}: {note}", markup=False)
        return self._recording

    @one_line_errors()
    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        """``split``: "train", or "val" and "test", which are the same frames."""
        if split not in ("train", "val", "test"):
            raise UserError(f"a talking-head dataset has the splits train, val and test, not {split!r}")
        recording = self.recording
        table = recording.train if split == "train" else recording.val
        count = len(table)
        # Tensors of the recording would share its read-only memory: copy.
        c2w = torch.tensor(table.c2w[:, :3, :4])
        cameras = Cameras(
            camera_to_worlds=c2w,
            fx=torch.full((count, 1), recording.focal),
            fy=torch.full((count, 1), recording.focal),
            cx=torch.full((count, 1), recording.cx),
            cy=torch.full((count, 1), recording.cy),
            width=recording.width,
            height=recording.height,
            camera_type=CameraType.PERSPECTIVE,
            times=torch.tensor([[recording.time_of(int(i))] for i in table.aud_ids], dtype=torch.float32),
        )
        # Poses are used as they are: no orientation, centring or scaling that a later dataset would have to share.
        return DataparserOutputs(
            image_filenames=[recording.layout.frame(int(i)) for i in table.img_ids],
            cameras=cameras,
            scene_box=SceneBox(aabb=torch.tensor([[-SCENE_BOUND] * 3, [SCENE_BOUND] * 3])),
            dataparser_scale=1.0,
            metadata={
                "recording": recording,
                "split": "train" if split == "train" else "val",
                "frame_ids": torch.tensor(table.img_ids),
            },
        )


talking_head_dataparser = DataParserSpecification(
    config=TalkingHeadDataParserConfig(),
    description="Talking-head video processed by degstalk process, or by the scripts of AD-NeRF and its successors.",
)
