"""No public name stands twice: whoever searches for a name finds the one thing that it means."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("degstalk_ns", "dataparsers", "configs", "scripts")
BY_DESIGN = {
    # Backends of the rasterizer: one signature each, implemented several times.
    *("rasterize", "rasterize_to_pixels", "project", "spherical_harmonics"),
    # Entry points that are found by their name.
    *("command", "main"),
}


def _public_names(module: Path) -> Iterator[str]:
    """Classes, functions and constants that ``module`` defines at its top level."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_no_public_name_stands_twice() -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            for name in _public_names(module):
                modules[name].add(module.relative_to(ROOT).as_posix())
    assert len(modules) > 500
    twice = {name: sorted(places) for name, places in modules.items() if len(places) > 1}
    assert {name: twice[name] for name in twice.keys() - BY_DESIGN} == {}
    assert twice.keys() >= BY_DESIGN
