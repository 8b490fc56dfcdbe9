"""The wheel holds every module of the tree in its place, and the files beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "degstalk_ns"
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel built from a copy, as pip builds it, but with the setuptools that is here."""
    tree = tmp_path_factory.mktemp("tree")
    for path in ROOT.glob("*/__init__.py"):
        shutil.copytree(path.parent, tree / path.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tree / name)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.Path(tree / "dist" / done.stdout.splitlines()[-1])


def _files(folder: Path) -> set[str]:
    """What lies under ``folder`` and is no rubbish, relative to it."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def _names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.Path) -> None:
    wanted = {f"{PACKAGE}/{name}" for name in _files(ROOT / PACKAGE)}
    assert {f"{PACKAGE}/{name}" for name in ("py.typed", "viewer/page.js", "viewer/scene.js")} <= wanted
    assert wanted - _names(wheel) == set()


def test_folders_beside_the_package_are_in_their_places_within(wheel: zipfile.Path) -> None:
    beside = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != PACKAGE]
    assert {folder.name for folder in beside} == {"dataparsers", "configs", "scripts"}
    wanted = {f"{PACKAGE}/{path.relative_to(ROOT)}" for folder in beside for path in folder.rglob("*.py")}
    assert wanted - _names(wheel) == set()
    assert {name.split("/")[0] for name in _names(wheel) if ".dist-info/" not in name} == {PACKAGE}


def test_what_it_offers_to_nerfstudio_and_the_shell_is_in_it(wheel: zipfile.Path) -> None:
    (text,) = [(wheel.root.read(name)).decode() for name in _names(wheel) if name.endswith("/entry_points.txt")]
    offered = [line.partition(" = ")[2] for line in text.splitlines() if " = " in line]
    assert len(offered) == 14  # twelve methods, the dataparser, the command
    for value in offered:
        module = value.partition(":")[0].replace(".", "/")
        assert f"{module}.py" in _names(wheel)


def test_a_module_is_imported_from_the_wheel_alone(wheel: zipfile.Path, tmp_path: Path) -> None:
    wheel.root.extractall(tmp_path)
    code = f"import {PACKAGE}.dataparsers.layout as m; print(m.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / PACKAGE / "dataparsers" / "layout.py"), done.stderr
