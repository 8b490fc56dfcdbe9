"""Where steps read and leave what they make: any place that fsspec knows and every machine sees.

Of a step that is done, a mark tells so; it is written last. It must not know what a step does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from degstalk_ns.errors import UserError
from degstalk_ns.files import own_temporary_folder, write_bytes

MARK: Final[str] = "step.json"
BEGUN: Final[str] = "begun.json"
PROGRESS: Final[str] = "progress.json"
INPUTS: Final[str] = "inputs.json"
_BLOCK: Final[int] = 1 << 20


@dataclass(frozen=True)
class StepMark:
    """What is known of a step that has ended.

    Attributes:
        content: hash of what it was made of; another one makes it again.
        done: whether it came to its end.
        reason: one line, why not.
        refused: whether its input is to blame, so that no other machine could do better.
        seconds: of this sitting. node: which machine. size: bytes that its folder holds.
        memory: most bytes that its processes held at once, looked at every two seconds.
    """

    content: str
    done: bool
    reason: str = ""
    refused: bool = False
    seconds: float = 0.0
    node: str = ""
    size: int = 0
    memory: int = 0


@dataclass(frozen=True)
class StepProgress:
    """How far a step is: a fraction in [0, 1], or None where it does not say."""

    node: str
    at: float
    fraction: float | None = None
    said: str = ""


@dataclass
class Store:
    """The output of a fleet.

    Args:
        address: a folder, or an fsspec address such as s3://bucket/results.

    Raises:
        UserError: fsspec does not know such an address.
    """

    address: str

    def __post_init__(self) -> None:
        try:
            self._system, self._root = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(f"output {self.address}: cannot be reached ({' '.join(str(error).split())})") from None
        self.local = isinstance(self._system, LocalFileSystem)
        if self.local:
            self._here = Path(self._root)
        else:  # the same on every machine, for a trained run remembers where its data lay
            name = hashlib.sha256(self.address.encode()).hexdigest()[:16]
            self._here = own_temporary_folder("degstalk-fleet") / name

    def folder(self, subject: str, step: str) -> Path:
        """Where the step works, on this machine."""
        return self._here / subject / step

    def _there(self, *parts: str) -> str:
        return "/".join((self._root.rstrip("/"), *parts))

    def check_writable(self) -> None:
        """Raises UserError where nothing can be written."""
        probe = self._there(".probe")
        try:
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(probe, b"degstalk")
            self._system.rm_file(probe)
        except Exception as error:  # every system has its own errors
            why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"output {self.address}: cannot be written ({why})") from None

    def read(self, *parts: str) -> Any:
        """A JSON file; None where there is none."""
        try:
            return json.loads(self._system.cat_file(self._there(*parts)))
        except (OSError, ValueError):
            return None

    def write(self, content: Any, *parts: str) -> None:
        """A JSON file, whole or not at all."""
        if self.local:
            self._here.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        self.write_text(json.dumps(content, indent=1) + "\n", *parts)

    def write_text(self, content: str, *parts: str) -> None:
        """A text file, whole or not at all."""
        if self.local:
            write_bytes(self._here.joinpath(*parts), content.encode())
        else:
            self._system.pipe_file(self._there(*parts), content.encode())

    def remove(self, *parts: str) -> None:
        """A file that is there."""
        self._system.rm_file(self._there(*parts))

    def mark(self, subject: str, step: str) -> StepMark | None:
        """What is known of a step; None before it has ended for the first time."""
        try:
            return StepMark(**self.read(subject, step, MARK))
        except TypeError:
            return None

    def set_mark(self, subject: str, step: str, mark: StepMark) -> None:
        """Say how a step has ended: the last that is written of it."""
        self.write(asdict(mark), subject, step, MARK)

    def progress(self, subject: str, step: str) -> StepProgress | None:
        """How far a step has said that it is."""
        try:
            return StepProgress(**self.read(subject, step, PROGRESS))
        except TypeError:
            return None

    def set_progress(self, subject: str, step: str, progress: StepProgress) -> None:
        self.write(asdict(progress), subject, step, PROGRESS)

    def begin(self, subject: str, step: str, content: str) -> None:
        """Keep what an earlier sitting has made of the same content, and clear away what is of another.

        Raises:
            UserError: something is there that no step has begun.
        """
        folder = self.folder(subject, step)
        begun = self.read(subject, step, BEGUN)
        if begun is None and self._system.exists(self._there(subject, step)):
            if any(not path.endswith(PROGRESS) for path in self._system.find(self._there(subject, step))):
                place = self._there(subject, step)
                raise UserError(
                    f"{place}: holds files that are not of a fleet; move them away, or choose another output"
                )
        if begun == content:
            self.take(subject, step)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            if not self.local and self._system.exists(self._there(subject, step)):
                self._system.rm(self._there(subject, step), recursive=True)
        folder.mkdir(parents=True, exist_ok=True)
        if self.read(subject, step, MARK) is not None:
            self._system.rm_file(self._there(subject, step, MARK))
        self.write(content, subject, step, BEGUN)

    def take(self, subject: str, step: str) -> Path:
        """The step's folder on this machine, with what the store has of it."""
        folder = self.folder(subject, step)
        there = self._there(subject, step)
        if not self.local and self._system.exists(there):
            for path in self._system.find(there):
                place = folder / path[len(there) :].lstrip("/")
                if not place.exists() or place.stat().st_size != self._system.size(path):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    self._system.get_file(path, str(place))
        return folder

    def give(self, subject: str, step: str) -> None:
        """Everything of the step's folder into the store; before its mark."""
        if self.local:
            return
        folder = self.folder(subject, step)
        there = set(self._system.find(self._there(subject, step)))
        for path in sorted(folder.rglob("*")):
            name = self._there(subject, step, *path.relative_to(folder).parts)
            there.discard(name)
            if path.is_file() and path.name not in (MARK, BEGUN, PROGRESS):
                self._system.put_file(str(path), name)
        for name in there:  # what is not here any more: the checkpoint before the newest
            if name.rsplit("/", 1)[-1] not in (MARK, BEGUN, PROGRESS):
                self._system.rm_file(name)

    def fetched(self, address: str) -> Path:
        """An input as a path of this machine."""
        system, place = fsspec.core.url_to_fs(address)
        if isinstance(system, LocalFileSystem):
            return Path(place)
        name = hashlib.sha256(f"{address} {system.ukey(place)}".encode()).hexdigest()[:16]
        path = self._here / ".inputs" / name / place.rstrip("/").rsplit("/", 1)[-1]
        if not path.exists():
            part = path.with_name(f".{path.name}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            system.get(place, str(part), recursive=system.isdir(place))
            part.rename(path)
        return path


def input_content(address: str, known: dict[str, Any]) -> str:
    """Hash of what a file, or each file of a folder, holds. ``known`` spares reading what has not changed since: it
    maps an address to its stamps and its hash, and is brought up to date.

    Raises:
        UserError: not to be read.
    """
    try:
        system, place = fsspec.core.url_to_fs(address)
        files = system.find(place, detail=True)
        if not files:
            raise UserError(f"{address}: no such file, or an empty folder")
        stamps = hashlib.sha256(
            repr(
                sorted((n, i.get("size"), str(i.get("mtime") or i.get("ETag") or "")) for n, i in files.items())
            ).encode()
        ).hexdigest()
        before = known.get(address)
        if isinstance(before, list) and before[:1] == [stamps]:
            return str(before[1])
        total = hashlib.sha256()
        for name in sorted(files):
            total.update(name[len(place) :].encode() + b"\0")
            with system.open(name, "rb") as handle:
                while block := handle.read(_BLOCK):
                    total.update(block)
    except OSError as error:
        raise UserError(f"{address}: cannot be read ({error.strerror or error})") from None
    known[address] = [stamps, total.hexdigest()]
    return total.hexdigest()
