"""Runs one step: what is done is not done again, what was begun goes on, and the result is there whole or not at all.

It knows no engine: the same on a laptop, on a node of a cluster, and in a container.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from degstalk_ns.errors import UserError
from degstalk_ns.files import only_one
from degstalk_ns.fleet.manifest import Manifest
from degstalk_ns.fleet.steps import FleetStep, step_command, steps_of_subject
from degstalk_ns.fleet.store import INPUTS, StepMark, StepProgress, Store

LOG: Final[str] = "log.txt"
NODE: Final[str] = "DEGSTALK_FLEET_NODE"
"""Environment variable: what an engine calls the machine."""
TOLD_EVERY: Final[float] = 2.0
"""Seconds between two words on how far a step is."""
GIVEN_EVERY: Final[float] = 120.0
"""Seconds between two copies of what is made so far into a store that is not a folder."""
_PERCENT: Final[re.Pattern[str]] = re.compile(r"(\d+(?:\.\d+)?)\s?%")
_DEATH_SIGNAL: Final[int] = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBRARY: Final = ctypes.CDLL(None) if sys.platform == "linux" else None  # here: nothing is loaded after a fork


def node_name() -> str:
    """What this machine is called."""
    return os.environ.get(NODE) or socket.gethostname()


def steps_by_name(manifest: Manifest, subject: str, store: Store) -> dict[str, FleetStep]:
    """The steps of a subject, in an order in which they can be done.

    Raises:
        UserError: there is no such subject.
    """
    for entry in manifest.subjects:
        if entry.name == subject:
            return {step.name: step for step in steps_of_subject(manifest, entry, store.read(INPUTS) or {})}
    raise UserError(f"no subject {subject!r} in the manifest")


def find_step(manifest: Manifest, subject: str, name: str, store: Store) -> FleetStep:
    """A step by its names.

    Raises:
        UserError: there is none.
    """
    steps = steps_by_name(manifest, subject, store)
    if name not in steps:
        raise UserError(f"{subject} has no step {name!r}; its steps are: {', '.join(steps)}")
    return steps[name]


def run_subject(manifest: Manifest, subject: str, store: Store) -> list[tuple[FleetStep, StepMark]]:
    """All steps of a subject, one after the other; where one fails, what depends on it is left out.

    Raises:
        UserError: there is no such subject.
    """
    ended: dict[str, tuple[FleetStep, StepMark]] = {}
    for step in steps_by_name(manifest, subject, store).values():
        if all(name in ended and ended[name][1].done for name in step.after):
            ended[step.name] = (step, run_step(manifest, step, store))
    return list(ended.values())


def run_step(manifest: Manifest, step: FleetStep, store: Store) -> StepMark:
    """Does a step that is not done, in the thread that calls; says how it has ended, and marks it so.

    Raises:
        UserError: what it waits for is not done, or another process does it.
        KeyboardInterrupt: what is made so far is kept.
    """
    mark = store.mark(*step.key)
    if mark is not None and mark.done and mark.content == step.content:
        return mark
    others = steps_by_name(manifest, step.subject, store)
    for name in step.after:
        found = store.mark(step.subject, name)
        if found is None or not found.done or found.content != others[name].content:
            raise UserError(f"{step.subject}: {step.name} comes after {name}, which is not done")
    start = time.monotonic()
    with only_one(store.folder(*step.key)):
        store.begin(*step.key, step.content)
        memory = 0
        try:
            for name in step.after:
                store.take(step.subject, name)
            command = step_command(step, manifest, lambda name: store.folder(step.subject, name), store.fetched)
            code, said, memory = _run(command, step, store)
        except OSError as error:
            code, said = -1, f"{error.filename or store.address}: {error.strerror or error}"
        reason = "" if code == 0 else (said or f"ended with code {code}")
        refused = code in (1, 2) and not said.startswith("Traceback")
        size = sum(path.stat().st_size for path in store.folder(*step.key).rglob("*") if path.is_file())
        mark = StepMark(step.content, code == 0, reason, refused, time.monotonic() - start, node_name(), size, memory)
        store.give(*step.key)
        store.set_mark(*step.key, mark)
    return mark


def _run(command: list[str], step: FleetStep, store: Store) -> tuple[int, str, int]:
    """Exit code of a console command, in one line what it said of its failure, and the most bytes of memory that it
    held. Its output goes to a log, its progress into the store."""
    log = store.folder(*step.key) / LOG
    program = Path(sys.executable).with_name(command[0])
    words = [str(program) if program.exists() else command[0], *command[1:]]
    with log.open("ab") as out:
        begin = out.seek(0, 2)
        child = subprocess.Popen(
            words,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | granted(step) | {"PYTHONUNBUFFERED": "1"},
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C comes once, from here
        )
        given, memory = time.monotonic(), 0
        try:
            while True:
                try:
                    child.wait(TOLD_EVERY)
                    break
                except subprocess.TimeoutExpired:
                    memory = max(memory, _held(child.pid))
                    fraction, said = _told(log, begin)
                    store.set_progress(*step.key, StepProgress(node_name(), time.time(), fraction, said))
                if not store.local and step.kind == "train" and time.monotonic() > given + GIVEN_EVERY:
                    store.give(*step.key)
                    given = time.monotonic()
        except BaseException:
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
    return child.returncode, "" if child.returncode == 0 else _reason(log, begin), memory


def _held(pid: int) -> int:
    """Bytes of memory that a process and those that it started hold now; 0 where it is gone."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def granted(step: FleetStep) -> dict[str, str]:
    """Environment in which torch, Numba and the BLAS take the threads that the step was granted."""
    threads = str(max(round(step.need.cpus), 1))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    hidden = {} if step.need.gpus else {"CUDA_VISIBLE_DEVICES": ""}
    return dict.fromkeys(names, threads) | {"OMP_WAIT_POLICY": "PASSIVE"} | hidden


def die_with_parent() -> None:
    """For ``preexec_fn``: the system ends this process when the one that started it has ended, however (Linux)."""
    if _LIBRARY is not None:
        _LIBRARY.prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _tail(log: Path, begin: int, size: int = 1 << 16) -> str:
    with log.open("rb") as handle:
        handle.seek(max(begin, handle.seek(0, 2) - size))
        return handle.read().decode(errors="replace")


def _told(log: Path, begin: int) -> tuple[float | None, str]:
    lines = _tail(log, begin, 4096).splitlines()
    for line in reversed(lines):
        if found := _PERCENT.search(line):
            return min(float(found[1]) / 100, 1.0), ""
    return None, lines[-1].strip()[:120] if lines else ""


def _reason(log: Path, begin: int) -> str:
    """What a failed command said last, in one line; a traceback is told from a refusal by its first word."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", _tail(log, begin))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if re.match(r"(degstalk: |\[degstalk\] error: )", line)]
    if ours:
        return re.sub(r"^(degstalk: |\[degstalk\] error: )", "", ours[-1])[:500]
    prefix = "Traceback: " if "Traceback (most recent call last)" in text else ""
    return prefix + (lines[-1][:500] if lines else "nothing was said")
