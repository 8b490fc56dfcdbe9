"""The public Python API: its names, what importing it costs, and the examples of docs/python.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import degstalk_ns

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "python.md"
EXAMPLES = re.findall(r"^## (\d\. [^\n]+)\n\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("name", degstalk_ns.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(degstalk_ns, name)
    assert name in dir(degstalk_ns)
    if name != "__version__":
        assert value.__doc__ and value.__module__.startswith("degstalk_ns")


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        degstalk_ns.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, degstalk_ns; heavy = {'torch', 'numpy', 'nerfstudio', 'viser', 'mediapipe'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "from degstalk_ns import Animation, Avatar, rasterize, read_recording, render_video, load_sound, UserError;"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('nerfstudio', 'mediapipe', 'viser')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def workplace(trained_config: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name: a run, its dataset, an audio file."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(trained_config.parent, folder / "outputs/me/degstalk-fast/2026-01-31_120000")
    shutil.copytree(dataset, folder / "data/me")
    noise = 0.2 * np.random.default_rng(0).normal(size=16_000)
    soundfile.write(folder / "speech.wav", noise, 16_000)
    return folder


def test_there_are_five_examples() -> None:
    assert [title[0] for title, _ in EXAMPLES] == list("12345")


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_the_examples_run(
    title: str, code: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    exec(compile(code, f"docs/python.md, {title}", "exec"), names)
    printed = capsys.readouterr().out
    if title.startswith("1"):
        assert "True" in printed
    if title.startswith("2"):
        assert np.asarray(names["picture"]).dtype == np.uint8 and "step 39" in printed
    if title.startswith("3"):
        assert (workplace / "speaking.mp4").stat().st_size > 1000 and printed.startswith("25 ")
    if title.startswith("4"):
        assert printed.startswith("10 frames")
    if title.startswith("5"):
        assert "(64, 64, 3)" in printed
