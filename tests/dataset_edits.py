"""Damaging a dataset in one place, and reading it with the refusal that this must bring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError


def edit_transforms(root: Path, split: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = Layout(root).transforms(split)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_face_model(root: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    path = Layout(root).face_model_npz
    with np.load(path) as archive:
        arrays = dict(archive)
    edit(arrays)
    np.savez(path, **arrays)


def refuses(root: Path, *parts: str, audio: str = "auto", options: ReadOptions | None = None) -> None:
    """Reading fails with one line that holds all ``parts``."""
    with pytest.raises(UserError) as caught:
        read_recording(root, audio, options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
