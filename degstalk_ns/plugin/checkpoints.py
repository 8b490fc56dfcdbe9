"""Lets torch read nerfstudio's own checkpoints with `weights_only=True`, the default since torch 2.6.

nerfstudio keeps numpy scalars in its optimizer state; exactly those types are allowed, and the check stays on.
"""

from __future__ import annotations

import numpy as np
import torch


def allow_nerfstudio_checkpoints() -> None:
    """Allow the numpy types that nerfstudio's checkpoints hold. Harmless when called again."""
    scalar = np.core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_))]
    torch.serialization.add_safe_globals([scalar, *kinds])
