"""`degstalk bench`: a table, a JSON file that holds its numbers, and one line for what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from degstalk_ns.bench.machine import Machine
from degstalk_ns.scripts import bench_command, cli

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
