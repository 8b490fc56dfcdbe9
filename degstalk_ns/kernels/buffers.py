"""Scratch memory that is used again: fresh pages from the system cost as much as a kernel's arithmetic.

It must not know what is kept in it. Safe to use from any thread, and from a destructor.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

AnyArray = NDArray[Any]

CACHE_LINE = 64
KEPT_PER_SIZE = 4
"""Free buffers of one size that wait for their next use; more are given back to the system."""
LARGE = 1 << 28
"""Bytes: buffers below are not worth asking the system how much memory it has."""

# Appending to and taking from a deque is atomic, so that no lock can be held when a destructor comes in between.
# What waits is the memory and the address of its first whole cache line.
_free: defaultdict[int, deque[tuple[AnyArray, int]]] = defaultdict(lambda: deque(maxlen=KEPT_PER_SIZE))


class _Owner:
    """The memory under one array and all that are made of it; goes back to the free ones when the last is gone."""

    def __init__(self, raw: AnyArray, address: int, shape: tuple[int, ...], dtype: str) -> None:
        self._raw, self._address = raw, address
        self._home = _free[len(raw)]  # when the interpreter ends, this module's names are gone before the arrays
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": dtype, "version": 3}

    def __del__(self) -> None:
        self._home.append((self._raw, self._address))


def borrow(shape: tuple[int, ...], dtype: Any) -> AnyArray:
    """An uninitialised contiguous array on its own cache lines; its memory is used again once nothing refers to it.

    Views count, and tensors made of it by `torch.from_numpy`: nobody has to give it back.

    Raises:
        MemoryError: the machine has not that much memory left.
    """
    kind = np.dtype(dtype)
    needed = math.prod(shape) * kind.itemsize
    size = 1 << max(needed + CACHE_LINE - 1, 4095).bit_length()
    try:
        raw, address = _free[size].pop()
    except IndexError:
        if needed >= LARGE and needed > psutil.virtual_memory().available:
            for kept in list(_free.values()):  # memory of other sizes that waits to be used again
                kept.clear()
        if needed >= LARGE and needed > psutil.virtual_memory().available:
            raise MemoryError(
                f"rasterization: {needed / 2**30:.1f} GiB are needed at once, more than this machine has free; "
                "render fewer or smaller Gaussians, or a smaller image"
            ) from None
        raw = np.empty(size, np.uint8)
        address = raw.ctypes.data + -raw.ctypes.data % CACHE_LINE
    return np.asarray(_Owner(raw, address, shape, kind.str))
