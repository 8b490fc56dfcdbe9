"""Lets torch read nerfstudio's own checkpoints with `weights_only=True`, the default since torch 2.6.

nerfstudio keeps numpy scalars in its optimizer state; exactly those types are allowed, and the check stays on. It must
not know what else a checkpoint holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def checkpoint_types() -> list[Any]:
    """The numpy types that nerfstudio's checkpoints hold, for `torch.serialization.safe_globals`."""
    scalar = np.float64(0.0).__reduce__()[0]
    kinds = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_))]
    return [scalar, *kinds]


def allow_nerfstudio_checkpoints() -> None:
    """Allow these types for the rest of the process: nerfstudio calls `torch.load` where no block can be put around it.

    Harmless when called again.
    """
    torch.serialization.add_safe_globals(checkpoint_types())
