"""Memory of the kernels that is used again."""

from __future__ import annotations

import gc

import numpy as np
import torch
from rasterizer_scenes import (
    make_scene,
)

from degstalk_ns.kernels import buffers
from degstalk_ns.rasterization import rasterize


def test_memory_is_used_again_once_nothing_refers_to_it() -> None:
    first = buffers.borrow((300, 7), np.float32)
    assert first.shape == (300, 7) and first.dtype == np.float32 and first.flags.c_contiguous and first.flags.writeable
    where = first.ctypes.data
    assert where % buffers.CACHE_LINE == 0
    view = torch.from_numpy(first)[5:].view(-1)
    del first
    assert buffers.borrow((300, 7), np.float32).ctypes.data != where  # the view still needs it
    del view
    gc.collect()
    assert where in [buffers.borrow((300, 7), np.float32).ctypes.data for _ in range(2)]
    assert buffers.borrow((0, 4), np.int32).shape == (0, 4)


def test_pictures_do_not_share_memory() -> None:
    scene = make_scene(50, 40, 40, dtype=torch.float32)
    first = rasterize(**scene)[0]
    copy = first.clone()
    scene["colors"] = 1 - scene["colors"]
    second = rasterize(**scene)[0]
    assert torch.equal(first, copy) and not torch.equal(first, second)
