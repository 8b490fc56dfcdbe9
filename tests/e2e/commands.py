"""Runs console commands as often as tests need them, while what they import, which takes ten seconds, is imported once.

One Python process imports the commands' modules and then forks for each command: the child gets its folder, arguments
and files for what it prints, runs the command to its very end, and leaves nothing behind in the others.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

LONGEST = 600.0
"""Seconds that a command may take."""


class Running:
    """A command that runs, in a session of its own; like :class:`subprocess.Popen`."""

    def __init__(self, pid: int, ends: Any, printed: tuple[Path, Path], arguments: list[str]) -> None:
        self.pid, self._ends, self._printed, self._arguments = pid, ends, printed, arguments

    def ended(self) -> bool:
        """Whether it has."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def printed(self) -> str:
        """What it has printed so far."""
        return self._printed[0].read_text(encoding="utf-8", errors="replace") if self._printed[0].exists() else ""

    def stop(self) -> None:
        """Kill it and all that it started, where it still runs."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its end, within :data:`LONGEST` seconds."""
        if not select.select([self._ends], [], [], LONGEST)[0]:
            self.stop()
            raise TimeoutError(f"{self._arguments} did not end within {LONGEST:g} s")
        code = int(self._ends.readline())
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._printed)
        return subprocess.CompletedProcess(self._arguments, code, out, err)


class Commands:
    """Console commands by name, one at a time. A context manager.

    Args:
        names: console scripts that are installed beside this Python.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._running: list[Running] = []

    def __enter__(self) -> Commands:
        self._folder = tempfile.TemporaryDirectory(prefix="commands-")
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *self._names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        for running in self._running:
            running.stop()
        self._server.kill()  # it has nothing to finish
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()
        self._folder.cleanup()

    def start(self, arguments: list[str], cwd: Path, **environment: str) -> Running:
        """Start ``arguments`` (the first is the command's name) in ``cwd``; what it prints is kept."""
        printed = (Path(self._folder.name, "out"), Path(self._folder.name, "err"))
        request = [arguments, str(cwd), [str(path) for path in printed], environment]
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        running = Running(int(self._server.stdout.readline()), self._server.stdout, printed, arguments)
        self._running.append(running)
        return running

    def run(self, arguments: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """As :func:`subprocess.run`."""
        return self.start(arguments, cwd, **environment).wait()


def _load(name: str) -> Callable[[], object]:
    (script,) = entry_points(group="console_scripts", name=name)
    return script.load()


def _become(request: list[Any]) -> Callable[[], object]:
    """In the child: the place, the arguments and the outputs of a request. Gives the command."""
    arguments, cwd, printed, environment = request
    os.setsid()
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = arguments
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    return _load(arguments[0])


def _serve(names: list[str]) -> NoReturn:
    for name in names:
        _load(name)
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            command = _become(request)
            break
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    else:
        sys.exit()
    # Outside of the loop, as a console script: what is raised here ends Python as it does there.
    sys.exit(command())


if __name__ == "__main__":
    _serve(sys.argv[1:])
