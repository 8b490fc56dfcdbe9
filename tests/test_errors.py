"""UserError ends a program with one line; everything else keeps its traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from degstalk_ns.errors import UserError, errors_caught_outside, one_line_errors


@one_line_errors()
def divide(a: int, b: int) -> float:
    if b == 1:
        raise UserError("give a\n  larger   number")
    return a / b


def test_results_and_other_exceptions_pass_through() -> None:
    assert divide(4, b=2) == 2 and divide(9, b=3) == 3
    with pytest.raises(ZeroDivisionError):
        divide(1, b=0)


def test_a_mistake_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # a decorated function can be called again
        with pytest.raises(SystemExit) as stop:
            divide(2, b=1)
        assert stop.value.code == 1 and stop.value.__suppress_context__
        assert capsys.readouterr() == ("", "[degstalk] error: give a larger number\n")


def test_in_a_program() -> None:
    program = (
        "from degstalk_ns.errors import UserError, one_line_errors\n"
        "with one_line_errors():\n"
        "    raise UserError('a file:\\n  is gone')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "[degstalk] error: a file: is gone\n"


def test_whoever_catches_it_outside_gets_it_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with errors_caught_outside():
        with errors_caught_outside():
            pass
        with pytest.raises(UserError, match="larger"):  # still inside the outer block
            divide(2, b=1)
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        divide(2, b=1)


def test_leaving_the_block_by_an_error_ends_it_too() -> None:
    with pytest.raises(KeyError), errors_caught_outside():
        raise KeyError
    with pytest.raises(SystemExit):
        divide(2, b=1)
