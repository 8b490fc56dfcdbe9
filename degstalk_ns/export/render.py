"""Adapter between a trained head and an export: a take's frames as images, plates read ahead, in one place.

What a take shows is `takes.py`'s business, how a frame is composed the model's. No mathematics of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns import __version__
from degstalk_ns.animation.animation import Take
from degstalk_ns.avatar.camera import RecordedCamera, View
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.errors import errors_caught_outside
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import TrainedAvatar

Image = NDArray[np.uint8]
READ_AHEAD: int = 4
"""Frames whose plates are read while others are rendered."""


def picture(model: DegstalkModel, view: View, conditions: Conditions, plate: Image) -> Image:
    """One composed frame over ``plate``, both RGB [H, W, 3] uint8. The one place where exports render."""
    behind = torch.from_numpy(np.array(plate)).to(model.device)  # the reader's arrays may be views or read-only
    return model.frame(view, conditions.to(model.device), behind).cpu().numpy()


class TakeRenderer:
    """Renders the frames of a take.

    Args:
        head: what is seen. take: what it does.
        side_by_side: the recorded frame to the left of the rendered one; only for takes seen by the recorded camera.
    """

    def __init__(self, head: TrainedAvatar, take: Take, side_by_side: bool = False) -> None:
        self._model, self._recording, self._take = head.model, head.recording, take
        self._side_by_side = side_by_side
        self._images = {row: image for image, row in self._recording.track_rows.items()}
        self._free = np.round(np.array(self._model.config.free_background) * 255).astype(np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its images."""
        views, recording = self._take.views, self._recording
        width, height = (views[0].width, views[0].height) if views else (recording.width, recording.height)
        return (2 * width if self._side_by_side else width), height

    def frames(self, first: int, end: int) -> Iterator[Image]:
        """Images ``first`` to ``end`` (excluded) of the take, RGB [H, W, 3] uint8.

        Raises:
            UserError: a file of the dataset is missing or broken.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="plates") as reader, errors_caught_outside():
            ahead: dict[int, Future[tuple[View, Image, Image | None]]] = {}
            try:
                for number in range(first, end):
                    for later in range(number, min(number + 1 + READ_AHEAD, end)):
                        if later not in ahead:
                            ahead[later] = reader.submit(self._scene, later)
                    view, plate, truth = ahead.pop(number).result()
                    conditions = self._take.track.at_frame(int(self._take.rows[number]))
                    image = picture(self._model, view, conditions, plate)
                    yield image if truth is None else np.concatenate([truth, image], 1)
            finally:
                for future in ahead.values():
                    future.cancel()

    def _scene(self, number: int) -> tuple[View, Image, Image | None]:
        """View, plate and (side by side) the recorded frame of one image."""
        take, recording, device = self._take, self._recording, self._model.device
        row = int(take.recorded[number])
        frame = read_frame(recording, self._images[row], what=())
        c2w = self._model.recorded[row]
        if take.views is None:
            size = (recording.width, recording.height)
            view = View.from_c2w(c2w.to(device), (recording.focal,) * 2, (recording.cx, recording.cy), size)
        else:
            own = take.views[number]
            view = View(own.viewmat.to(device), own.K.to(device), own.width, own.height)
            camera = RecordedCamera(c2w.to(device), recording.focal, recording.width, recording.height)
            if not camera.fits(view):
                return view, np.broadcast_to(self._free, (view.height, view.width, 3)), None
        plate = frame.freed_plate if take.freed else frame.plate
        if plate.shape[:2] != (view.height, view.width):
            plate = _resized(plate, view.width, view.height)
        return view, plate, frame.image if self._side_by_side else None

    def fingerprint(self, head: TrainedAvatar) -> str:
        """Of everything that the images depend on: parts of an export with another one are not used."""
        digest = hashlib.sha256(head.checkpoint.read_bytes())
        digest.update(str((self._take.fingerprint(), self._side_by_side, self.size, self._model.config)).encode())
        layout = self._recording.layout
        made = [layout.transforms(split).stat().st_mtime_ns for split in ("train", "val")]
        digest.update(str((layout.root.resolve(), made, __version__)).encode())
        return digest.hexdigest()


def _resized(plate: Image, width: int, height: int) -> Image:
    import cv2

    shrink = height < plate.shape[0]
    return np.asarray(cv2.resize(plate, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))
