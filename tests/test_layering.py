"""Who may import whom: the contracts in pyproject.toml hold, and each is broken by what it forbids."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from degstalk_ns.scripts.check_layers import check_layers

ROOT = Path(__file__).resolve().parents[1]

FORBIDDEN = {
    "The core and the viewer know nothing of nerfstudio": ("degstalk_ns/viewer/panel.py", "nerfstudio.viewer"),
    "Only what assembles a run imports the adapters to nerfstudio": (
        "degstalk_ns/metrics/image.py",
        "degstalk_ns.plugin.runs",
    ),
    "Only what assembles a run imports the adapter to nerfstudio's dataparsers": (
        "dataparsers/recording.py",
        "degstalk_ns.dataparsers.talking_head",
    ),
    "Only the command line imports the benchmarks' adapters to nerfstudio": (
        "degstalk_ns/bench/train.py",
        "degstalk_ns.bench.adapters",
    ),
    "Only the command line imports the experiments' adapters to nerfstudio": (
        "degstalk_ns/experiment/plan.py",
        "degstalk_ns.experiment.adapters",
    ),
    "Only the command line makes runs of others' checkpoints": (
        "degstalk_ns/release/checkpoint.py",
        "degstalk_ns.release.adapters",
    ),
    "Only landmarks/ knows MediaPipe": ("degstalk_ns/preprocess/steps/parsing.py", "mediapipe.tasks"),
    "Only the viewer knows viser": ("degstalk_ns/plugin/model.py", "viser"),
    "Only the engines know Ray and submitit": ("degstalk_ns/fleet/schedule.py", "ray"),
    "Only the command line imports the method specifications": (
        "degstalk_ns/plugin/trainer.py",
        "degstalk_ns.configs.methods",
    ),
    "Nothing imports the command line": ("configs/methods.py", "degstalk_ns.scripts.cli"),
    "Making a dataset from a video and drawing the sample do not know each other": (
        "degstalk_ns/sample/write.py",
        "degstalk_ns.preprocess.config",
    ),
    "No circle of folders, nor of the modules in one": ("degstalk_ns/audio/mel.py", "degstalk_ns.avatar.avatar"),
}
"""What to import where to break each contract."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tree to be spoilt."""
    for path in ROOT.glob("*/__init__.py"):
        shutil.copytree(path.parent, tmp_path / path.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def test_imports_for_type_checkers_do_not_count_and_the_tree_keeps_every_contract(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (copy / "degstalk_ns/files.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nerfstudio.viewer\n")
    assert check_layers(copy) == 0
    said = capfd.readouterr().out
    assert [name for name in FORBIDDEN if f"{name} KEPT" not in said] == []
    assert "BROKEN" not in said


def test_each_contract_is_broken_by_what_it_forbids(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for module, name in FORBIDDEN.values():
        with (copy / module).open("a", encoding="utf-8") as file:
            file.write(f"\ndef late() -> None:\n    import {name}\n")
    assert check_layers(copy) != 0
    said = capfd.readouterr().out
    assert [name for name in FORBIDDEN if f"{name} BROKEN" not in said] == []
    assert "KEPT" not in said, "a contract that this test does not break"


# --- viser's private names --------------------------------------------------------------------------------------------

MENDERS = {"viser_patches.py"}
"""The one module of the viewer that may touch them."""


def _private_touches(source: str) -> list[str]:
    """Modules of viser's own, and names with an underscore of any object but the module's own `self`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("viser.")]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "viser":
            found += [alias.name for alias in node.names if node.module != "viser" or alias.name.startswith("_")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            base = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if not (own or base):
                found.append(ast.unparse(node))
    return found


def test_private_names_of_viser_are_touched_in_one_module_only() -> None:
    modules = [*(ROOT / "degstalk_ns/viewer").glob("*.py"), ROOT / "degstalk_ns/plugin/viewer.py"]
    touching = {path.name: touches for path in modules if (touches := _private_touches(path.read_text("utf-8")))}
    assert touching.keys() == MENDERS, touching


@pytest.mark.parametrize(
    "source",
    [
        "from viser import _messages",
        "from viser.infra import WebsockServer",
        "import viser._gui_api",
        "client._state.camera_cb.clear()",
        "self._client.gui._websock_interface",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert _private_touches(source)
    assert not _private_touches("import viser\nself._own = super()._theirs = viser.ViserServer.__init__")
