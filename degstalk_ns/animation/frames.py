"""FrameSource gives the view, the plate (background image) and the recorded frame of a row of the recording, and
Portrait is the interface of a trained avatar: the one path that the model's outputs, exports and the viewer all take,
so that they show the same pixels.

It must not know nerfstudio, nor who shows the frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.avatar.avatar import Composition
from degstalk_ns.avatar.camera import RecordedCamera, View
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.avatar.renderer import RegionPair
from degstalk_ns.dataparsers.frame import FrameData, read_frame
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.plates.cache import PlateCache

Image = NDArray[np.uint8]
"""RGB [H, W, 3], 0..255."""
Size = tuple[int, int]
"""Width and height, pixels."""
PLATES = ("plate", "freed_plate", "bare_plate", "bare_freed_plate")
"""The plates of a :class:`~degstalk_ns.dataparsers.frame.FrameData`."""


def resized(image: Image, size: Size) -> Image:
    """The image at another size, the one way in which plates and true frames are resized for showing: averaged over
    the pixels' areas when it shrinks, interpolated linearly when it grows, untouched at its own size."""
    width, height = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8)


class FrameSource:
    """Views, plates and true frames of a recording, by row of its driving track.

    Rows without files of their own (dropped by the dataset's maker) show the nearest row that has some.

    Args:
        recording: the dataset.
        capacity: plates kept in memory.
    """

    def __init__(self, recording: Recording, capacity: int = 32) -> None:
        self.recording = recording
        self._images = {row: image for image, row in recording.track_rows.items()}
        self._rows = np.array(sorted(self._images), np.int64)
        self._c2w = {
            int(row): torch.from_numpy(c2w.copy())
            for table in (recording.train, recording.val)
            for row, c2w in zip(table.aud_ids, table.c2w, strict=True)
        }
        self._plates = {name: PlateCache(self._reader(name), capacity) for name in PLATES}
        self.hair_in_front = True
        """Whether plates say which part of them lies in front of the face; avatars that were trained without it show
        none."""

    def _reader(self, name: str) -> Callable[[int], Image]:
        def read(row: int) -> Image:
            plate: Image = getattr(self._frame(row), name)
            return plate

        return read

    @property
    def size(self) -> Size:
        """Width and height of the recorded frames."""
        return self.recording.width, self.recording.height

    def size_within(self, longest_side: int) -> Size:
        """The recorded size, shrunk where its longer side exceeds ``longest_side`` pixels."""
        factor = min(1.0, longest_side / max(self.size))
        return round(self.size[0] * factor), round(self.size[1] * factor)

    def nearest(self, row: int) -> int:
        """The row with files that is nearest to ``row``."""
        return int(self._rows[np.argmin(np.abs(self._rows - row))])

    def c2w(self, row: int) -> Tensor:
        """Camera to world [4, 4] (not to be written to) of the row's camera, OpenGL axes."""
        return self._c2w[self.nearest(row)]

    def path(self) -> tuple[NDArray[np.int64], Tensor]:
        """Rows [n] with a recorded camera in order of time, and their cameras to world [n, 4, 4]."""
        return self._rows, torch.stack([self._c2w[int(row)] for row in self._rows])

    def alike(self, row: int) -> int:
        """The training row in which eyes and nose lie nearest in the picture to where they do in ``row``."""
        table, recording = self.recording.train, self.recording
        c2w = np.concatenate([self.c2w(row).numpy()[None], table.c2w]).astype(np.float64)
        seen = (recording.places - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]  # in front of a camera z is negative
        pixels = recording.focal * seen[..., :2] / -seen[..., 2:]
        apart = np.linalg.norm(pixels[1:] - pixels[0], axis=-1).mean(-1)
        return int(table.aud_ids[np.argmin(apart)])

    def other_plate(self, row: int) -> Image:
        """The plate of another, training frame for ``row``: that of the row :meth:`alike`, freed as for new audio.

        Raises:
            UserError: the dataset does not hold what freed plates are made of.
        """
        return self.plate(self.alike(row), freed=True)

    def view(self, row: int, size: Size | None = None) -> View:
        """The recorded camera of ``row``, for pictures of ``size``; None is the recorded size."""
        recording = self.recording
        width, height = size or self.size
        across, down = width / recording.width, height / recording.height
        focal, centre = (recording.focal * across, recording.focal * down), (recording.cx * across, recording.cy * down)
        return View.from_c2w(self.c2w(row), focal, centre, (width, height))

    def fits(self, view: View, row: int) -> bool:
        """Whether the plate of ``row`` lies behind ``view`` as it did behind the recorded camera."""
        recording = self.recording
        c2w = self.c2w(row).to(view.viewmat)
        return RecordedCamera(c2w, recording.focal, recording.width, recording.height).fits(view)

    def plate(self, row: int, size: Size | None = None, freed: bool = False) -> Image:
        """The plate behind ``row``, uint8 [H, W, 4], not to be written to. Its fourth channel is the share of a pixel
        that lies in front of the face; [H, W, 3] without ``hair_in_front``.

        Args:
            size: None is the recorded size.
            freed: without the recorded jaw, for one that moves otherwise (new audio).

        Raises:
            UserError: a file of the dataset is missing or damaged.
        """
        name = ("" if self.hair_in_front else "bare_") + ("freed_plate" if freed else "plate")
        return resized(self._plates[name].at_row(self.nearest(row)), size or self.size)

    def truth(self, row: int, size: Size | None = None) -> Image:
        """The recorded frame of ``row``; arguments and errors as of :meth:`plate`."""
        return resized(self._frame(self.nearest(row), "image").image, size or self.size)

    def _frame(self, row: int, *parts: str) -> FrameData:
        return read_frame(self.recording, self._images[row], what=parts)


class Portrait(Protocol):
    """A trained avatar with the recording it was trained on: all that exports and the viewer need of a run.

    It may be in training; nerfstudio's model is one.

    Attributes:
        recording: the dataset.
        frames: its views, plates and recorded frames.
        device: of the avatar's parameters.
        free_background: background colour, RGB in 0..1, where no plate fits.
    """

    @property
    def recording(self) -> Recording: ...
    @property
    def frames(self) -> FrameSource: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def free_background(self) -> tuple[float, float, float]: ...

    def regions(self, view: View, conditions: Conditions) -> RegionPair:
        """Face and mouth, rendered, without a plate."""
        ...

    def frame(self, view: View, conditions: Conditions, plate: Tensor) -> Tensor:
        """The composed picture alone, the fastest way: see :meth:`degstalk_ns.avatar.renderer.FrameRenderer.frame`."""
        ...

    def compose(self, view: View, conditions: Conditions, plate: Tensor) -> Composition:
        """The composed picture with all its layers; ``plate`` [H, W, 3 or 4] float32 in 0..1."""
        ...


def backdrop(portrait: Portrait, view: View, row: int, freed: bool = False) -> Tensor:
    """Background of a frame: the plate of the row if it fits the view, otherwise the portrait's plain colour.

    Returns:
        [H, W, 3 or 4] uint8 on the portrait's device, not to be written to: it may be the cached plate itself.
    """
    frames, size = portrait.frames, (view.width, view.height)
    if not frames.fits(view, row):
        colour = [math.floor(255 * value + 0.5) for value in portrait.free_background]
        return torch.tensor(colour, dtype=torch.uint8, device=portrait.device).expand(view.height, view.width, 3)
    return torch.from_numpy(frames.plate(row, size, freed)).to(portrait.device)
