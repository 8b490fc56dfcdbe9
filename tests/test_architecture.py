"""ARCHITECTURE.md matches the tree, and folders and files stay small."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("degstalk_ns", "dataparsers", "configs", "scripts")
MOST_MODULES = {"degstalk_ns": 6, "degstalk_ns/sample/body": 20}
"""Modules that a folder may hold where that is not 12, ``__init__.py`` included."""
MOST_LINES = 400
LONG = {"degstalk_ns/kernels/lanes.py", "degstalk_ns/preprocess/steps/poses.py"}
"""The two files that are one thing each, and longer."""


def _modules() -> list[str]:
    """Every module of the tree, as a path from the root; an ``__init__.py`` counts only at the very top."""
    found = [path for folder in FOLDERS for kind in ("py", "js") for path in (ROOT / folder).rglob(f"*.{kind}")]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if not name.endswith("/__init__.py") or name == "degstalk_ns/__init__.py"]


def _named(page: str) -> list[str]:
    """Every module that the page's tree names, as a path from the root."""
    named, folder = [], ""
    for line in re.search(r"```text\n(.*?)```", page, re.DOTALL).group(1).splitlines():  # type: ignore[union-attr]
        if match := re.match(r"(\S+)/(\s|$)", line):
            folder = match.group(1)
        elif match := re.match(r"  (\w+\.(?:py|js))  +\S", line):
            named.append(f"{folder}/{match.group(1)}")
        else:
            assert not line.strip(), f"neither a folder nor a module: {line!r}"
    return named


def test_the_map_names_every_module_once_and_no_other() -> None:
    named = Counter(_named((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")))
    assert sorted(named.elements()) == sorted(_modules())


def test_paths_in_the_text_exist() -> None:
    page = re.sub(r"```.*?```", "", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", page)
    assert len(paths) > 30
    places = [ROOT, ROOT / "degstalk_ns"]
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


@pytest.mark.parametrize("folder", sorted({str(Path(name).parent) for name in _modules()}))
def test_no_folder_holds_too_many_modules(folder: str) -> None:
    count = len(list((ROOT / folder).glob("*.py")))
    assert count <= MOST_MODULES.get(folder, 12)


def test_no_file_is_too_long() -> None:
    files = [path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == LONG
