"""Files of numpy, .npy and .npz. It must not know what any of them is for."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.reading.access import refuse_unreadable

LARGEST_BYTES: Final[int] = 4 << 30
"""Size of one array of an .npz file, unpacked."""
_BROKEN: Final = (
    *(OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
    *(KeyError, TypeError, AttributeError, OverflowError, NotImplementedError, RuntimeError, UnicodeDecodeError),
)
"""What numpy raises at files that are none of its own, or were cut short."""


def read_npy(path: Path, expected: str, remedy: str) -> NDArray[Any]:
    """The array of numbers or booleans in an .npy file; it is copied into memory.

    Args:
        path: the file.
        expected: what it should hold, for messages.
        remedy: what the user is to do if it cannot be read.

    Raises:
        UserError: missing, no .npy file, shorter than its header says, or with objects.
    """
    return np.array(_mapped(path, expected, remedy))


def npy_shape(path: Path, expected: str, remedy: str) -> tuple[int, ...]:
    """The shape of the array in an .npy file, of which only the header is read; arguments and errors of
    :func:`read_npy`."""
    return tuple(_mapped(path, expected, remedy).shape)


def _mapped(path: Path, expected: str, remedy: str) -> NDArray[Any]:
    try:
        # Mapped: a header that promises more than the file holds is refused before anything is taken up.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except _BROKEN as error:
        refuse_unreadable(path)
        raise UserError(f"{path}: not readable as {expected} ({_reason(error)}); {remedy}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise UserError(f"{path}: holds {what}, expected {expected} of numbers; {remedy}")
    return array


def read_npz(path: Path, names: Sequence[str], remedy: str) -> dict[str, NDArray[Any]]:
    """Those of the arrays ``names`` that an .npz file holds.

    Raises:
        UserError: missing, no .npz file, cut short, with objects, or larger than the file says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = {info.filename: info for info in archive.infolist()}
            for name in names:
                if f"{name}.npy" in there:
                    with archive.open(f"{name}.npy") as member:
                        _check_promise(member, there[f"{name}.npy"].file_size, name)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in names if f"{name}.npy" in there}
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except _BROKEN as error:
        refuse_unreadable(path)
        raise UserError(f"{path}: not readable as an .npz file ({_reason(error)}); {remedy}") from None


def _check_promise(member: IO[bytes], size: int, name: str) -> None:
    """ValueError if the header promises more than ``size`` bytes, or more than is accepted."""
    version = np.lib.format.read_magic(member)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(member)
    promised = math.prod(shape) * dtype.itemsize
    if promised > min(size, LARGEST_BYTES):
        raise ValueError(f"{name} promises {promised} bytes, and there are {size}")


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
