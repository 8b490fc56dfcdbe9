"""Who may import whom (ARCHITECTURE.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ADAPTERS = {"bench/adapters.py", "export/render.py"}
MODULES = sorted((ROOT / "degstalk_ns").rglob("*.py"))
ADAPTER_PACKAGES = {"viewer", "plugin"}
CORE = [
    path
    for path in MODULES
    if path.parent.name not in ADAPTER_PACKAGES and path.relative_to(ROOT / "degstalk_ns").as_posix() not in ADAPTERS
]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_never_imports_nerfstudio_or_what_lies_outside(path: Path) -> None:
    for name in _imports(path):
        assert not name.startswith("nerfstudio"), f"{path.name} imports {name}"
        assert not name.startswith(("degstalk_ns.scripts", "degstalk_ns.configs")), f"{path.name} imports {name}"


def test_only_the_adapter_of_the_dataparsers_knows_nerfstudio() -> None:
    knowing = {
        path.name
        for path in (ROOT / "dataparsers").glob("*.py")
        if any(name.startswith("nerfstudio") for name in _imports(path))
    }
    assert knowing == {"talking_head.py"}


def test_no_circle() -> None:
    """Imports at the head of modules form no circle; `from package import module` counts as importing the module."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    for folder in ("dataparsers", "configs", "scripts"):
        for path in (ROOT / folder).glob("*.py"):
            modules[f"degstalk_ns.{folder}.{path.stem}".removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= parts & modules.keys() or {node.module}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
        outside = {other for other in graph[name] if other.startswith("degstalk_ns.scripts")}
        assert name.startswith("degstalk_ns.scripts") or not outside, f"{name} imports {outside}"
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name in done or name not in graph:
            return
        for other in graph[name]:
            visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
    assert len(done) > 40
