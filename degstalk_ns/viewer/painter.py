"""Draws one frame of a playback as someone wants to see it: camera, conditions, layers. No mathematics of its own.

It must not know pages, panels or clocks. Several pages may draw from one model; each takes the training's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.animation.playback import Playback
from degstalk_ns.avatar.camera import View
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.plates.cache import PlateCache
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.viewer.display import Lens, Look, bytes_of, with_truth
from degstalk_ns.viewer.sliders import Control, overridden


@dataclass(frozen=True)
class FreeCamera:
    """A camera that someone moves: camera to world [3, 4] with OpenGL axes in metres, vertical field of view in
    radians, width over height."""

    c2w: Tensor
    fov: float
    aspect: float


@dataclass
class Wishes:
    """How someone wants to see the head."""

    look: Look = field(default_factory=Look)
    camera: FreeCamera | None = None
    """None follows the recorded camera, with its plate."""
    colour: tuple[int, int, int] = (255, 255, 255)
    """RGB 0..255 behind the head where there is no plate."""
    overrides: Mapping[Control, float] = field(default_factory=dict)
    longest_side: int = 512
    """Pixels."""


class Painter:
    """Draws for one page.

    Args:
        model: may be in training. freed_plates: for new sounds. lock: what keeps training and drawing apart.
    """

    def __init__(
        self, model: DegstalkModel, freed_plates: PlateCache, lock: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._model = model
        self._freed = freed_plates
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="degstalk-plates")
        self._lock = lock
        self._lens = Lens()
        self._closed = False
        self._images = {row: image for image, row in model.recording.track_rows.items()}

    def paint(self, playback: Playback, frame: int, wishes: Wishes) -> NDArray[np.uint8]:
        """One picture, RGB uint8 [H, W, 3]."""
        model, look = self._model, wishes.look
        recorded = model.plates.nearest(int(playback.recorded[frame]))
        free = wishes.camera
        view = self._recorded_view(recorded, wishes) if free is None else self._free_view(free, wishes)
        device = model.device
        if free is None and look.plate:
            behind = self._plates(playback).at_frame(recorded, view.width, view.height, device)
        else:
            colour = torch.tensor(wishes.colour, device=device) / 255
            behind = colour.expand(view.height, view.width, 3)
        truth = None
        if free is None and look.needs_truth and playback.true:
            truth = self._truth(recorded, view)
        conditions = overridden(playback.conditions(frame), wishes.overrides).to(device)
        with torch.no_grad(), self._lock():
            if look.plain:
                return with_truth(bytes_of(model.frame(view, conditions, behind)), truth, look)
            composition = model.compose(view, conditions, behind)
        distance = float(torch.linalg.norm(view.viewmat[:3, 3]))
        return self._lens.picture(composition, behind, look, distance, truth)

    def prepare(self, playback: Playback, frames: Sequence[int]) -> None:
        """Read the plates of frames that will probably be painted soon, meanwhile, in a thread."""
        plates = self._plates(playback)
        source = self._model.recording
        for frame in frames:
            if frame < len(playback.recorded) and not self._closed:
                with suppress(RuntimeError):  # closed just now
                    row = int(playback.recorded[frame])
                    self._reader.submit(plates.at_frame, row, source.width, source.height, self._model.device)

    def close(self) -> None:
        """End the thread that reads plates."""
        self._closed = True
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _plates(self, playback: Playback) -> PlateCache:
        return self._model.plates if playback.true else self._freed

    def _truth(self, recorded: int, view: View) -> Tensor:
        image = read_frame(self._model.recording, self._images[recorded], what=()).image
        if image.shape[:2] != (view.height, view.width):
            image = np.asarray(cv2.resize(image, (view.width, view.height), interpolation=cv2.INTER_AREA), np.uint8)
        return torch.from_numpy(np.ascontiguousarray(image)).to(self._model.device).float() / 255

    def _recorded_view(self, recorded: int, wishes: Wishes) -> View:
        source = self._model.recording
        factor = min(1.0, wishes.longest_side / max(source.width, source.height))
        return View.from_c2w(
            self._model.recorded[recorded].to(self._model.device),
            (source.focal * factor, source.focal * factor),
            (source.cx * factor, source.cy * factor),
            (round(source.width * factor), round(source.height * factor)),
        )

    def _free_view(self, camera: FreeCamera, wishes: Wishes) -> View:
        side = wishes.longest_side
        width, height = (side, side / camera.aspect) if camera.aspect >= 1 else (side * camera.aspect, side)
        size = (max(round(width), 16), max(round(height), 16))
        focal = size[1] / 2 / float(np.tan(camera.fov / 2))
        return View.from_c2w(
            camera.c2w.to(self._model.device).float(), (focal, focal), (size[0] / 2, size[1] / 2), size
        )


def jpeg(picture: NDArray[np.uint8], quality: int = 88) -> bytes:
    """An RGB picture as a JPEG file; 88 of 100 shows no blocks on skin."""
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("the picture could not be encoded")
    return data.tobytes()
