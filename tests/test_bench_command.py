"""`degstalk bench`: mistakes are found before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from degstalk_ns.scripts import cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["raster", "--count", "0"], "at least one Gaussian"),
        (["raster", "--size", "-4"], "at least one Gaussian and one pixel"),
        (["raster", "--count", "9000000000"], "GiB are free"),
        (["raster", "--threads", "0"], "--threads must be at least 1"),
        (["raster", "--repeats", "0"], "--repeats must be at least 1"),
        (["raster", "--plot", "p.png"], "--sweep"),
        (["raster", "--output", "nowhere/r.json"], "there is no folder"),
        (["render", "--load-config", "nowhere.yml"], "no such file"),
        (["train"], "--data"),
        (["train", "--data", "nowhere"], "no such dataset folder"),
        (["train", "--data", "nowhere", "--stages", "nap"], "--stages"),
        (["process", "nowhere.mp4"], "no such file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", *arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 1 and message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "input_"), [("render", "--load-config"), ("process", "VIDEO")])
def test_what_is_needed_is_required(name: str, input_: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["bench", name])
    assert exit_.value.code == cli.MISUSED and input_ in capsys.readouterr().err
