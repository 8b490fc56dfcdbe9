"""docs/paper.md: every name on it exists."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from degstalk_ns.configs.methods import degstalk
from degstalk_ns.experiment.plan import METHODS
from degstalk_ns.scripts.cli import COMMANDS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
CODE = re.findall(r"`([^`]+)`", PAGE)


def _found(name: str) -> Any:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", sorted({word for word in CODE if word.startswith("degstalk_ns")}))
def test_a_name_can_be_imported(name: str) -> None:
    assert _found(name) is not None


@pytest.mark.parametrize("option", sorted({word for word in CODE if word.startswith("--")}))
def test_an_option_is_one_of_the_method(option: str) -> None:
    value: Any = degstalk.config
    for part in option.removeprefix("--").replace("-", "_").split("."):
        assert is_dataclass(value) and part in {entry.name for entry in fields(value)}, part
        value = getattr(value, part)


def test_commands_and_methods_exist_and_nothing_else_is_named() -> None:
    methods = {entry.name for entry in entry_points(group="nerfstudio.method_configs")}
    others = {word for word in CODE if not word.startswith(("degstalk_ns", "--"))}
    for word in others:
        first, *rest = word.split()
        if word == "ns-train degstalk":
            continue
        if rest:
            assert first == "degstalk" and rest[0] in COMMANDS and set(rest[1:]) <= METHODS.keys(), word
        else:
            assert first in methods, word
    assert {word for names in METHODS.values() for word in names} <= others


def test_it_names_every_piece_that_the_ablation_leaves_out() -> None:
    for letter in "EFRH":
        assert f"({letter})" in PAGE
