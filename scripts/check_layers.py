"""Checks who imports whom, by the contracts in pyproject.toml: `python scripts/check_layers.py [ROOT]`.

`dataparsers/`, `configs/` and `scripts/` lie beside `degstalk_ns/`, while their modules are `degstalk_ns.dataparsers`
and so on. import-linter looks for a package where its name says, so it is shown a copy that is laid out as a wheel is.
A tool for developers; it must not know the contracts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "degstalk_ns"
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lay_out_as_wheel(root: Path, folder: Path) -> None:
    """Copy the package under ``root`` into ``folder``, every package that lies beside it in its place within."""
    for package in sorted(path.parent for path in root.glob("*/__init__.py")):
        target = folder / PACKAGE if package.name == PACKAGE else folder / PACKAGE / package.name
        for path in package.rglob("*.py"):
            copy = target / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.copyfile(root / "pyproject.toml", folder / "pyproject.toml")


def check_layers(root: Path) -> int:
    """Say which contracts are kept and which imports break them.

    Returns:
        0 if all are kept, another number if not.
    """
    with tempfile.TemporaryDirectory(prefix="degstalk-layers-") as folder:
        lay_out_as_wheel(root, Path(folder))
        command = [sys.executable, "-c", LINTER, "--no-cache"]
        return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, check=False).returncode


if __name__ == "__main__":
    sys.exit(check_layers(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
