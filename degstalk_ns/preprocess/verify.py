"""Whether the files of a dataset are still as they were written: what is damaged is made again, and what somebody has
changed is kept and named.

It must not know how any file is made.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from degstalk_ns.dataparsers.frame import read_picture
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.ibug68 import NUM_POINTS_68
from degstalk_ns.preprocess.record import Step
from degstalk_ns.reading.arrays import npy_shape
from degstalk_ns.reading.json_file import read_json


@dataclass
class Verdict:
    """What was found of the files of a step.

    Attributes:
        frames: frames of which a file is damaged or missing.
        whole: whether none of its other files is damaged or missing.
        changed: files that can be read but are not as they were written.
    """

    frames: set[int] = field(default_factory=set)
    whole: bool = True
    changed: list[Path] = field(default_factory=list)


def remembered(step: Step, count: int) -> dict[str, Any]:
    """What the record keeps of the files of a step that were just written: size and hash of each, for files of frames
    the size."""
    files = {path.name: [path.stat().st_size, _hash(path)] for path in step.products() if path.is_file()}
    return {"files": files, "sizes": {} if step.per_frame is None else _sizes(step.per_frame, count)}


def verified(step: Step, count: int, kept: dict[str, Any]) -> Verdict:
    """Compares the files of a step with what :func:`remembered` gave when they were written, and removes damaged ones;
    nothing is compared where the record of an earlier version keeps nothing."""
    verdict = Verdict()
    files, sizes = kept.get("files", {}), kept.get("sizes", {})
    for path in step.products():
        if not path.is_file():
            verdict.whole = False
        elif path.name in files and [path.stat().st_size, _hash(path)] != files[path.name]:
            if is_readable(path):
                verdict.changed.append(path)
            else:
                path.unlink()  # a step writes what is not there
                verdict.whole = False
    if step.per_frame is None:
        return verdict
    for place, (kind, now) in enumerate(_sizes(step.per_frame, count).items()):
        then = sizes.get(kind, [])
        for i, size in enumerate(now):
            if size < 0:
                verdict.frames.add(i)
            if size < 0 or i >= len(then) or size == then[i]:
                continue
            path = step.per_frame(i)[place]
            if is_readable(path):
                verdict.changed.append(path)
            else:
                path.unlink()
                verdict.frames.add(i)
    return verdict


def is_readable(path: Path) -> bool:
    """Whether a file of a dataset can be read as what its name says."""
    try:
        _READERS.get(path.suffix, lambda p: p.read_bytes())(path)
    except (UserError, OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        return False
    return True


def _landmarks(path: Path) -> None:
    values = [float(word) for word in path.read_text(encoding="utf-8").split()]
    if len(values) != 2 * NUM_POINTS_68:
        raise ValueError(f"{path}: {len(values)} numbers")


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(f"{path}: a part is damaged")


_READERS: dict[str, Callable[[Path], object]] = {
    ".jpg": lambda path: read_picture(path, 3, None, path.parent),
    ".png": lambda path: read_picture(path, None, None, path.parent),
    ".npy": lambda path: npy_shape(path, "an array", ""),
    ".npz": _archive,
    ".json": lambda path: read_json(path, ""),
    ".csv": lambda path: path.read_text(encoding="utf-8"),
    ".lms": _landmarks,
    ".wav": lambda path: soundfile.read(path),
}


def _sizes(per_frame: Callable[[int], list[Path]], count: int) -> dict[str, list[int]]:
    """Bytes of the file of each frame by kind, -1 where there is none."""
    sizes: dict[str, list[int]] = {}
    for example in per_frame(0):
        folder, suffix = example.parent, example.suffix
        kind = f"{folder.name}/*{suffix}"
        there = {entry.name: entry.stat().st_size for entry in os.scandir(folder)} if folder.is_dir() else {}
        sizes[kind] = [there.get(f"{i}{suffix}", -1) for i in range(count)]
    return sizes


def _hash(path: Path) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
