"""Files that are whole or not there at all, and the pictures of a dataset: RGB in memory.

Every writer of this program ends in :func:`write_whole`. It must not know which file is which.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from degstalk_ns.errors import UnwritableError, UserError

JPEG_QUALITY: Final[int] = 97
"""Frames are the ground truth of training and metrics; above this the files grow faster than the quality."""
_PNG_BEGIN: Final[bytes] = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_FRAME: Final[int] = 12
"""Bytes of a chunk beside its content: length, kind and checksum (PNG, 5.3)."""
PNG_COMPRESSION: Final[int] = 1
"""Level of zlib: the fastest; level 9 saves a quarter of the space for ten times the time."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8.

    Raises:
        UserError: missing or damaged.
    """
    image = _decoded(path, cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path}: missing or damaged; delete it and run `degstalk process` again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def read_rgba(path: Path) -> NDArray[np.uint8]:
    """RGBA [H, W, 4] uint8; raises as :func:`read_rgb`, also for an image without alpha."""
    image = _decoded(path, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        raise UserError(f"{path}: missing, damaged or without alpha; delete it and run `degstalk process` again")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA).astype(np.uint8, copy=False)


def _decoded(path: Path, flags: int) -> cv2.typing.MatLike | None:
    try:
        encoded = path.read_bytes()
    except OSError:
        return None
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if whole_picture(encoded) else None


def whole_picture(encoded: bytes) -> bool:
    """Whether this is a JPEG or PNG that has its end. A decoder fills the missing rest of one that was cut short with
    grey, and takes as much memory as a chunk of a PNG says that it is long."""
    if encoded.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in encoded[-4096:]
    place = len(_PNG_BEGIN)
    while encoded.startswith(_PNG_BEGIN) and place + _PNG_CHUNK_FRAME <= len(encoded):
        length, kind = int.from_bytes(encoded[place : place + 4], "big"), encoded[place + 4 : place + 8]
        place += _PNG_CHUNK_FRAME + length
        if kind == b"IEND":
            return place <= len(encoded)
    return False


def write_jpeg(path: Path, image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> None:
    """RGB [H, W, 3] uint8 -> JPEG."""
    _write(path, ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """RGB [H, W, 3] or RGBA [H, W, 4] uint8 -> PNG."""
    order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    _write(path, ".png", cv2.cvtColor(image, order), [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])


def _write(path: Path, suffix: str, image: cv2.typing.MatLike, options: list[int]) -> None:
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise RuntimeError(f"{path}: could not be encoded")
    write_bytes(path, data.tobytes())


PART_PREFIX: Final[str] = ".part-"
"""Files of this prefix are unfinished; an interrupted run may leave some, the next one removes them."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then give it its name: it is whole or not there.

    The temporary name ends like the real one, since writers choose the format by it.
    """
    part = path.with_name(PART_PREFIX + path.name)
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _numbers(*names: str) -> frozenset[int]:
    """Those of the system's error numbers that there are here."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


_FULL: Final[frozenset[int]] = _numbers("ENOSPC", "EDQUOT", "EROFS", "EFBIG")
_CLOSED: Final[frozenset[int]] = _numbers("EACCES", "EPERM", "EIO", "ENOTDIR", "EISDIR")


@contextmanager
def named_write_errors(folder: Path) -> Iterator[None]:
    """Inside, what a full disk or a missing permission brings about is one line.

    Args:
        folder: what is named where the system does not say which file it was.

    Raises:
        UnwritableError: in place of such an OSError; any other passes through.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _CLOSED:
            raise
        what = "cannot be written" if error.errno in _FULL else "cannot be read or written"
        raise UnwritableError(
            f"{error.filename or folder}: {what} ({error.strerror}); make room or change the permissions, then give "
            "the same command again"
        ) from None


def own_temporary_folder(name: str) -> Path:
    """Path of a folder among the temporary files that no other user has; it need not be there."""
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()  # a container's user may have no name
    return Path(tempfile.gettempdir()) / f"{name}-{user}"


@contextmanager
def only_one(place: Path) -> Iterator[None]:
    """Inside, no other process of this machine can work on ``place``, a folder or a file to be written; the system ends
    that when the process ends, however it ends. The lock is an empty file among the temporary ones; it stays there.

    Raises:
        UserError: another one does.
    """
    locks = own_temporary_folder("degstalk-locks")
    locks.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha1(str(place.resolve()).encode(), usedforsecurity=False).hexdigest()
    lock = FileLock(locks / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{place}: another degstalk or ns-train is working in it; wait for it, or choose another place"
        ) from None
    try:
        yield
    finally:
        lock.release()


def reach_disk(path: Path) -> None:
    """Returns when a file, or what a folder lists, is on the disk and survives a machine that stops. Folders cannot be
    waited for everywhere; then it returns at once."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # Windows
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """:func:`write_whole` for bytes at hand."""
    write_whole(path, lambda part: part.write_bytes(data))
