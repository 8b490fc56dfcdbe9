"""Checkpoints of a training: which of a folder is whole, and what it holds.

It must not know nerfstudio or models.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from degstalk_ns.errors import UserError
from degstalk_ns.reading.access import refuse_unreadable
from degstalk_ns.reading.tensors import read_plain

_NAME = re.compile(r"step-(\d{1,12})\.ckpt")


def checkpoint_step(path: Path) -> int | None:
    """The training step in a checkpoint's name; None for any other file."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end and is as it was written, by the sums that torch puts in."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Path:
    """The whole checkpoint of the highest step in ``folder``; ``say`` gets a line for each that is torn. Other files
    are passed over without a word.

    Raises:
        UserError: there is none, or one that is as new or newer cannot be opened.
    """
    try:
        steps = ((checkpoint_step(path), path) for path in folder.iterdir())
        found = {step: path for step, path in steps if step is not None and not path.is_dir()}
    except PermissionError:
        raise UserError(f"{folder}: cannot be read (Permission denied); give this user the permission") from None
    except OSError:
        found = {}
    if not found:
        raise UserError(f"{folder}: holds no checkpoint (step-*.ckpt); has the training saved one yet?")
    for step in sorted(found, reverse=True):
        refuse_unreadable(found[step])  # else the newest would be passed over as torn, and older weights be taken
        if is_whole(found[step]):
            return found[step]
        say(f"{found[step]}: is torn and passed over (the machine may have stopped while it was written)")
    raise UserError(f"{folder}: all {len(found)} checkpoints in it are torn; train again or restore one")


def read_training_state(path: Path) -> dict[str, Any]:
    """What a checkpoint of nerfstudio holds: "pipeline" (parameters), "step", and what a resumed training needs.

    Raises:
        UserError: not readable, of something else, or with parameters that are no numbers.
    """
    state = read_plain(path, "train again or restore the file")
    if not isinstance(state, dict) or not isinstance(state.get("pipeline"), dict) or type(state.get("step")) is not int:
        raise UserError(f"{path}: is no checkpoint of nerfstudio; train again or restore the file")
    broken = [name for name, tensor in _tensors(state["pipeline"], "") if not _is_sound(name, tensor)]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} of its tensors hold NaN or infinity, the first {broken[0]}; resume from an earlier "
            "checkpoint, or train again"
        )
    return state


def _is_sound(name: str, tensor: Tensor) -> bool:
    """Whether these are weights: numbers, and finite but for bounds that nothing is known of."""
    bad = torch.isnan(tensor) if _MAY_BE_INFINITE.search(name) else ~torch.isfinite(tensor)
    return not bool(bad.any())


_MAY_BE_INFINITE: Final = re.compile(r"\.standardise\w*\.(low|high)")


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def first_difference(error: RuntimeError) -> str:
    """The first of what torch lists over many lines when tensors do not fit, and how many lines there are."""
    lines = [" ".join(line.split()).rstrip(".,") for line in str(error).splitlines()[1:] if line.strip()]
    if not lines:
        return " ".join(str(error).split())
    first = lines[0] if len(lines[0]) < 200 else f"{lines[0][:200]} ..."
    return first if len(lines) == 1 else f"{first}, and {len(lines) - 1} more"
