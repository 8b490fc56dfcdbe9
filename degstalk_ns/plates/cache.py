"""Plates by frame, fetched when needed and kept in a small bounded cache, so that rendering needs no batch.

It must not know where plates lie on disk: it is given a function that reads one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


class PlateCache:
    """Plates of a recording, by frame of its driving track.

    Args:
        read: gives the RGB plate [H, W, 3] uint8 of a frame number.
        frames: numbers of the frames that have a plate, any order; other frames show the nearest one's.
        capacity: plates kept in memory.
    """

    def __init__(self, read: Callable[[int], NDArray[np.uint8]], frames: NDArray[np.integer], capacity: int) -> None:
        if capacity < 1 or not len(frames):
            raise ValueError(f"a plate cache needs frames and room for one, got {len(frames)} and {capacity}")
        self._read = read
        self._frames = np.sort(np.asarray(frames, np.int64))
        self._capacity = capacity
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = Lock()  # the viewer renders from a thread of its own

    def nearest(self, frame: int) -> int:
        """The frame with a plate that is nearest to ``frame``."""
        return int(self._frames[np.argmin(np.abs(self._frames - frame))])

    def at_frame(self, frame: int, width: int, height: int, device: torch.device) -> Tensor:
        """The plate [height, width, 3] in 0..1 behind ``frame``, resized where it was recorded at another size."""
        frame = self.nearest(frame)
        with self._lock:
            plate = self._kept.pop(frame, None)
        if plate is None:
            plate = torch.from_numpy(np.ascontiguousarray(self._read(frame)))
        with self._lock:
            self._kept[frame] = plate
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        image = plate.to(device).float() / 255.0
        if image.shape[:2] != (height, width):
            image = F.interpolate(
                image.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True, align_corners=False
            )[0].permute(1, 2, 0)
        return image
