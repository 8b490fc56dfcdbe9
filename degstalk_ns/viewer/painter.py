"""Renders one frame of an animation as a page requests it: camera, conditions, layers. No mathematics of its own.

It must not know pages, panels or clocks, nor nerfstudio. Several pages may render from one avatar; each takes the
training's lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.frames import Portrait
from degstalk_ns.avatar.camera import View
from degstalk_ns.viewer.display import Display, DisplayOptions, bytes_of, with_truth
from degstalk_ns.viewer.sliders import Control, overridden

SMALLEST_SIDE: int = 16
"""Minimum side of a frame from a free camera, in pixels, however narrow the page."""


MOST_SIDE: int = 2048
"""Maximum of the longer side of a frame, in pixels, whatever a page asks for."""


def bounded_side(asked: float) -> int:
    """The longer side of a frame, pixels, for what a page asks for: a number between the bounds, also for no number."""
    return int(min(max(asked, SMALLEST_SIDE), MOST_SIDE)) if math.isfinite(asked) else MOST_SIDE


@dataclass(frozen=True)
class FreeCamera:
    """A camera that the user moves.

    Attributes:
        c2w: [3, 4] camera to world, OpenGL axes, metres.
        fov: vertical field of view, radians.
        aspect: width divided by height.
    """

    c2w: Tensor
    fov: float
    aspect: float


@dataclass
class PaintRequest:
    """What a page wants to see of a frame."""

    longest_side: int
    """Longer side of the frame, pixels."""
    options: DisplayOptions = field(default_factory=DisplayOptions)
    camera: FreeCamera | None = None
    """Camera of the page; None for the recorded camera, with its plate."""
    colour: tuple[int, int, int] = (255, 255, 255)
    """Background colour, RGB 0..255, where there is no plate."""
    overrides: Mapping[Control, float] = field(default_factory=dict)


class Painter:
    """Renders for one page.

    Args:
        portrait: the avatar; it may be in training.
        lock: gives a context in which training stands still.
    """

    def __init__(self, portrait: Portrait, lock: Callable[[], AbstractContextManager[object]]) -> None:
        self._portrait = portrait
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="degstalk-plates")
        self._lock = lock
        self._display = Display()
        self._closed = False

    def paint(self, animation: Animation, frame: int, request: PaintRequest) -> NDArray[np.uint8]:
        """One frame, RGB uint8 [H, W, 3]; twice as wide with the recorded frame side by side."""
        portrait, options, free = self._portrait, request.options, request.camera
        row = int(animation.recorded[frame])
        if free is None:
            view = portrait.frames.view(row, portrait.frames.size_within(request.longest_side))
        else:
            view = self._free_view(free, request.longest_side)
        view, size = view.to(portrait.device), (view.width, view.height)
        if free is None and options.plate:
            plate = portrait.frames.plate(row, size, animation.freed)
            behind = torch.from_numpy(plate).to(portrait.device).float() / 255
        else:
            colour = torch.tensor(request.colour, device=portrait.device) / 255
            behind = colour.expand(view.height, view.width, 3)
        truth: Tensor | None = None
        if free is None and options.needs_truth and not animation.freed:
            image = portrait.frames.truth(row, size)
            truth = torch.from_numpy(np.ascontiguousarray(image)).to(portrait.device).float() / 255
        conditions = overridden(animation.conditions(frame), request.overrides).to(portrait.device)
        with torch.no_grad(), self._lock():
            if options.plain:
                return with_truth(bytes_of(portrait.frame(view, conditions, behind)), truth, options)
            composition = portrait.compose(view, conditions, behind)
        distance = float(torch.linalg.norm(view.viewmat[:3, 3]))
        return self._display.picture(composition, behind, options, distance, truth)

    def prepare(self, animation: Animation, numbers: Sequence[int]) -> None:
        """Reads the plates of frames that will probably be rendered soon, in a thread."""
        frames = self._portrait.frames
        for number in numbers:
            if number < len(animation) and not self._closed:
                with suppress(RuntimeError):  # closed just now
                    self._reader.submit(frames.plate, int(animation.recorded[number]), None, animation.freed)

    def close(self) -> None:
        """Ends the thread that reads plates."""
        self._closed = True
        self._reader.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _free_view(camera: FreeCamera, side: int) -> View:
        width, height = (side, side / camera.aspect) if camera.aspect >= 1 else (side * camera.aspect, side)
        size = (max(round(width), SMALLEST_SIDE), max(round(height), SMALLEST_SIDE))
        focal = size[1] / 2 / float(np.tan(camera.fov / 2))
        return View.from_c2w(camera.c2w.float(), (focal, focal), (size[0] / 2, size[1] / 2), size)


STREAM_JPEG_QUALITY: int = 88
"""JPEG quality (0 to 100) of the frames sent to a page: no visible blocks on skin, and small enough for 25 frames per
second. Chosen for this project."""


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """An RGB picture as a JPEG file."""
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, STREAM_JPEG_QUALITY])
    if not done:
        raise RuntimeError("the picture could not be encoded")
    return data.tobytes()
