"""Reads the audio windows of a dataset, ``aud_<name>.npy``.

It must not know how windows are made, networks or nerfstudio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError

SHAPES: Final[dict[str, tuple[int, int | None]]] = {"mel": (16, None), "ds": (16, 29), "hu": (2, 1024)}
"""Window length L and width C of the features with known names; None is any width."""


def read_windows(path: Path) -> NDArray[np.float32]:
    """Read the audio windows of a dataset.

    Args:
        path: ``aud_<name>.npy``: mel [T, 16, C], ds (DeepSpeech) [T, 16, 29], hu (HuBERT) [T, 2, 1024]; another
            name may have any [T, L, C].

    Returns:
        float32 [T, L, C].

    Raises:
        UserError: the file is missing or unreadable, or of the wrong rank or width, or holds NaN.
    """
    name = path.stem.removeprefix("aud_")
    if not path.is_file():
        raise UserError(
            f"{path}: missing; expected audio windows [T, L, C], made by `degstalk process` (mel) "
            f"or by the extractor of {name!r}"
        )
    try:
        windows = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a numpy array file ({str(error).splitlines()[0]}); make it again") from None
    if not isinstance(windows, np.ndarray) or windows.ndim != 3 or not np.issubdtype(windows.dtype, np.number):
        shape = getattr(windows, "shape", type(windows).__name__)
        raise UserError(f"{path}: expected numbers [frames, vectors, channels], got {shape}; make it again")
    windows = windows.astype(np.float32, copy=False)
    length, width = SHAPES.get(name, (windows.shape[1], None))
    if windows.shape[1] != length or (width is not None and windows.shape[2] != width):
        raise UserError(
            f"{path}: windows are {windows.shape[1]} x {windows.shape[2]}, expected {length} x {width or 'C'}; "
            "is it the file of another feature extractor?"
        )
    if not np.isfinite(windows).all():
        frame = int(np.flatnonzero(~np.isfinite(windows).all((1, 2)))[0])
        raise UserError(f"{path}: holds NaN or infinity (first in frame {frame}); make it again")
    return windows
