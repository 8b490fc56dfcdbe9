from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.scripts import cli


def use(monkeypatch: pytest.MonkeyPatch, command: object) -> None:
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(command=command))


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


def test_every_command_has_a_module_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
        assert f"degstalk {name}" in capsys.readouterr().out


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["prosess"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "'prosess'" in message and "process" in message and message.count("\n") == 1


def test_what_cannot_be_written_is_one_line_whatever_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        (tmp_path / "a file").write_text("x")
        (tmp_path / "a file" / "report.json").write_text("{}")

    use(monkeypatch, command)
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench"])
    said = capsys.readouterr().err
    assert (
        stop.value.code == 1
        and "report.json: cannot be read or written (Not a directory)" in said
        and said.count("\n") == 1
    )


def test_user_error_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise UserError("video.mp4: not a video;\n expected one")

    use(monkeypatch, command)
    with pytest.raises(SystemExit) as stop:
        cli.main(["process"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "degstalk: video.mp4: not a video; expected one\n"


def test_interruption_is_one_line_and_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    use(monkeypatch, command)
    with pytest.raises(SystemExit) as stop:
        cli.main(["process"])
    assert stop.value.code == 130
    message = capsys.readouterr().err
    assert "interrupted" in message and message.count("\n") == 1


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise RuntimeError("a bug")

    use(monkeypatch, command)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["process"])


def test_as_a_program_on_bad_input(tmp_path: Path) -> None:
    video, output = tmp_path / "notes.mp4", tmp_path / "data" / "me"
    video.write_text("not a video")
    done = subprocess.run(
        [sys.executable, "-c", "from degstalk_ns.scripts.cli import main; main()", "process", str(video), str(output)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"degstalk: {video}: cannot be read as a video") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "data").exists()
