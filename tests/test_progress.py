"""What a long job shows on a console, and what native code may not write on it."""

from __future__ import annotations

import io
import os
import re
import sys
from time import perf_counter, sleep

import pytest
from rich.console import Console

from degstalk_ns.console.progress import Progress, quiet_native_messages
from degstalk_ns.errors import UserError


def _console() -> tuple[Console, io.StringIO]:
    shown = io.StringIO()
    return Console(file=shown, width=120), shown


def test_a_stage_ends_with_its_frames_and_their_rate_over_the_whole_stage() -> None:
    console, shown = _console()
    start = perf_counter()
    with Progress(console).stage("poses", 12) as advance:
        advance(5)
        sleep(0.05)
        advance(7)
    longest = perf_counter() - start
    text = shown.getvalue()
    assert "poses" in text and "12/12" in text
    rate = re.search(r"([\d.]+) frames/s", text)
    assert rate is not None and 12 / longest - 0.1 <= float(rate.group(1)) <= 12 / 0.05 + 0.1


def test_a_stage_of_one_item_has_no_rate() -> None:
    console, shown = _console()
    with Progress(console).stage("clean plate", 1) as advance:
        advance(1)
    assert "1/1" in shown.getvalue() and "frames/s" not in shown.getvalue()


def test_lines_are_shown_as_they_are() -> None:
    console, shown = _console()
    line = "[bold]a folder[/bold] " + "x" * 150
    Progress(console).say(line)
    assert shown.getvalue() == line + "\n"


def test_without_a_console_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None)
    progress.say("a line")
    with progress.stage("poses", 3) as advance:
        advance(3)
    assert capfd.readouterr() == ("", "")


def test_an_error_in_a_stage_gets_out() -> None:
    console, _ = _console()
    with pytest.raises(UserError, match="no face"), Progress(console).stage("poses", 3):
        raise UserError("no face")


def _noise(text: bytes = b"native noise\n") -> None:
    os.write(2, text)


def test_native_messages_are_held_back_for_the_block_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_native_messages():
        _noise()
    assert capfd.readouterr().err == ""
    _noise(b"later\n")
    assert capfd.readouterr().err == "later\n"


@pytest.mark.parametrize(("error", "shown"), [(RuntimeError, "native noise\n"), (UserError, "")])
def test_native_messages_are_shown_with_a_bug_and_not_with_a_mistake(
    error: type[Exception], shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error), quiet_native_messages():
        _noise()
        raise error("stop")
    assert capfd.readouterr().err == shown
    _noise(b"later\n")
    assert capfd.readouterr().err == "later\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open files")
def test_no_file_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with quiet_native_messages():
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_without_an_error_stream_runs_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stderr__", None)
    done = []
    with quiet_native_messages():
        done.append(1)
    assert done == [1]
