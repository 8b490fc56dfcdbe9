"""Files of torch: tensors, numpy arrays and plain containers. It must not know what any of them is for."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from degstalk_ns.errors import UserError
from degstalk_ns.reading.access import refuse_unreadable

_BROKEN: Final = (
    *(OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error),
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, RecursionError),
)
"""What torch raises at files that are none of its own, or were cut short."""


def read_plain(path: Path, remedy: str) -> Any:
    """What ``path`` holds, on the CPU.

    Args:
        path: a file of torch.save.
        remedy: what the user is to do if it cannot be read.

    Raises:
        UserError: missing, damaged, or with anything but plain data, which is named.
    """
    # Files written from numpy arrays and scalars need these types; nothing else is let in.
    makers: list[Any] = [np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]]  # of arrays, of scalars
    numbers = [type(np.dtype(code)) for code in "efdbhilqBHILQ?"]
    # numpy 1 and 2 call the makers' module differently, in files of either.
    renamed = [(make, f"numpy.{core}.multiarray.{make.__name__}") for make in makers for core in ("core", "_core")]
    allowed: list[Any] = [*makers, *renamed, np.ndarray, np.dtype, *numbers]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except _BROKEN as error:
        refuse_unreadable(path)
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = f"it holds code, {foreign[1]}, which is not run" if foreign else first
        raise UserError(f"{path}: not readable as plain tensors ({reason}); {remedy}") from None
