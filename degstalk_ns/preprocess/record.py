"""What a step is, and what of a dataset is done: ``process.json``, stage keys, and files that are whole or not there at
all.

It must not know what any stage computes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from degstalk_ns.console.progress import Advance
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes

RECORD_NAME: Final[str] = "process.json"
IMPORTED: Final[str] = "imported"
"""Key of the facts under which the record lists the files that were brought in from elsewhere."""


def stage_key(version: int, settings: Any, needs: list[str]) -> str:
    """What a stage's products depend on, as a short hash: its code's version, its settings (anything json takes), and
    the keys of the stages it builds on."""
    text = json.dumps([version, settings, needs], sort_keys=True, default=str)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]


def formerly(**settings: Any) -> dict[str, Any]:
    """Metadata of an option that was named after datasets had been made: what stood for it in their stage keys, as long
    as it has its default. Nothing, where it was a number inside the code."""
    return {_FORMERLY: settings}


_FORMERLY: Final[str] = "formerly"


def key_settings(config: Any) -> dict[str, Any]:
    """The options of a config dataclass as a stage key takes them: a number that only got a name is no change."""
    values: dict[str, Any] = asdict(config)
    settings: dict[str, Any] = {}
    for option in fields(config):
        if _FORMERLY in option.metadata and values[option.name] == option.default:
            settings |= option.metadata[_FORMERLY]
        else:
            settings[option.name] = values[option.name]
    return settings


@dataclass(frozen=True)
class Step:
    """One step of the pipeline: what it depends on, what it writes, and how."""

    name: str
    settings: Any
    needs: tuple[str, ...]
    products: Callable[[], list[Path]]
    run: Callable[[Advance, set[int]], list[str] | None]
    """Called with a progress callback and the frames whose products are missing; returns what a user should know of
    what was made, one line each."""
    per_frame: Callable[[int], list[Path]] | None = None
    ticks: int = 1
    """Length of the progress bar of a step that is not ``per_frame``."""


class _Loose(BaseModel):
    """What may stand in the file: whoever brought the dataset here may have had an editor open."""

    model_config = ConfigDict(extra="allow", strict=True)


class _StageContent(_Loose):
    key: str
    complete: bool = False
    notes: list[str] = []
    files: dict[str, list[int | str]] = {}
    sizes: dict[str, list[int]] = {}


class _Facts(_Loose):
    frames: int = 0
    crop: dict[str, int] = {}
    crop_key: str = ""
    whisper: bool = False
    imported: list[str] = []


class _Content(_Loose):
    video: dict[str, Any]
    facts: _Facts
    stages: dict[str, _StageContent]


@dataclass
class Record:
    """The content of ``process.json``.

    Attributes:
        root: folder of the dataset.
        video: name and identity of the video it is made from.
        facts: what later stages and later runs need to know (number of frames, crop, ...).
        stages: for each stage its key, whether all its products were written, and what there is to say of them.
    """

    root: Path
    video: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def load(root: Path) -> Record | None:
        """The record of the dataset in ``root``; None where there is none, or none that can be read."""
        try:
            read = _Content.model_validate_json((root / RECORD_NAME).read_bytes())
        except (OSError, ValidationError):
            return None
        content = read.model_dump(exclude_unset=True)
        return Record(root, content["video"], content["facts"], content["stages"])

    def save(self) -> None:
        content = {"made_by": "degstalk process", "video": self.video, "facts": self.facts, "stages": self.stages}
        write_bytes(self.root / RECORD_NAME, _readable(content).encode())

    def is_current(self, stage: str, key: str) -> bool:
        """Whether what lies there of ``stage`` was made with ``key`` (all of it or, after an interruption, some)."""
        return self.stages.get(stage, {}).get("key") == key

    def is_complete(self, stage: str, key: str) -> bool:
        return self.is_current(stage, key) and bool(self.stages[stage].get("complete"))

    def begin(self, stage: str, key: str) -> None:
        self.stages[stage] = {"key": key, "complete": False, "notes": self.notes(stage, key)}
        self.save()

    def finish(self, stage: str, key: str, notes: list[str], files: dict[str, Any] | None = None) -> None:
        """``notes``: what a user should know of what was written, one line each; those of parts that were written
        before stay. ``files``: what tells whether the files are still as they were written."""
        kept = [note for note in self.notes(stage, key) if note not in notes]
        self.stages[stage] = {"key": key, "complete": True, "notes": kept + notes, **(files or {})}
        self.save()

    def notes(self, stage: str, key: str) -> list[str]:
        """What was said of the products that are there of ``stage``."""
        return list(self.stages[stage].get("notes", [])) if self.is_current(stage, key) else []


def check_dataset_folder(root: Path, overwrite: bool) -> None:
    """Refuse an output that is a file, or a folder with content that is not a dataset of ours.

    Raises:
        UserError: as said.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: is a file; expected the folder to write the dataset to")
    if overwrite or not root.is_dir() or (root / RECORD_NAME).is_file() or not any(root.iterdir()):
        return
    raise UserError(
        f"{root}: holds files but no {RECORD_NAME}, so it is not a dataset made by `degstalk process`; "
        "choose another folder, or pass --overwrite to write into it"
    )


def _readable(content: Any) -> str:
    """JSON with a line for each entry, but lists of numbers on one."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\s+(-?\d[\d,\s-]*?)\s+\]", lambda found: f"[{re.sub(chr(92) + 's+', ' ', found[1])}]", text)
