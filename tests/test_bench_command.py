"""`degstalk bench`: a table, a JSON file that holds its numbers; mistakes are found before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from degstalk_ns.bench.machine import Machine
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import bench as bench_command

MACHINE = Machine("test", 2, 2, operations=1e11, bytes=1e10)


@pytest.fixture(autouse=True)
def _measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes seconds, and is tested elsewhere."""
    monkeypatch.setattr(bench_command, "measure_machine", lambda *_: MACHINE)


def test_frames_of_a_run_are_timed_and_written(
    trained_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "[red].json"  # no markup
    arguments = ["render", "--load-config", trained_config, "--repeats", 2, "--output", output]
    cli.main(["bench", *map(str, arguments)])
    saved = json.loads(output.read_text())
    assert saved["benchmark"] == "render" and saved["threads"] == torch.get_num_threads()
    assert saved["frames_per_second"] == pytest.approx(1 / saved["seconds"]["whole frame"]["median"])
    out = capsys.readouterr().out
    assert "whole frame" in out and out.splitlines()[-1] == f"written: {output}"


def test_a_run_of_an_earlier_version_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yml"
    config.write_text("!!python/object:degstalk_ns.trainer.DegstalkTrainerConfig\nmethod_name: degstalk\n")
    for name in ("render", "train"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["bench", name, "--load-config", str(config)])
        error = capsys.readouterr().err
        assert stop.value.code == cli.FAILED and error.count("\n") == 1
        assert str(config) in error and "earlier version of degstalk-ns" in error and "train again" in error


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
