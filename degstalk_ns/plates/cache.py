"""A small cache of plates (background images of frames) by row of the driving track; they are read when needed.

It must not know where images lie on disk: it is given a function that reads one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray


class PlateCache:
    """Plates of a recording.

    Args:
        read: function that returns the plate [H, W, 4] uint8 of a row.
        capacity: number of plates kept in memory.

    Raises:
        ValueError: no room for one plate.
    """

    def __init__(self, read: Callable[[int], NDArray[np.uint8]], capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a plate cache needs room for one plate, got a capacity of {capacity}")
        self._read = read
        self._capacity = capacity
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = Lock()  # pages of the viewer render from threads of their own

    def at_row(self, row: int) -> NDArray[np.uint8]:
        """The plate of ``row``, [H, W, 4] uint8; not to be written to."""
        with self._lock:
            plate = self._kept.pop(row, None)
        if plate is None:
            plate = np.ascontiguousarray(self._read(row))
        with self._lock:
            self._kept[row] = plate
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return plate
