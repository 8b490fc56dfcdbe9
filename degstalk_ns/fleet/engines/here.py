"""Steps on this machine, as many at once as its cores, GPUs and memory allow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from degstalk_ns.fleet.engines.engine import StepEnd
from degstalk_ns.fleet.manifest import Manifest, Need
from degstalk_ns.fleet.steps import FleetStep
from degstalk_ns.fleet.unit import NODE, die_with_parent, node_name

_POLL = 0.1


def unit_command(manifest: Path, step: FleetStep) -> list[str]:
    """`degstalk fleet step`, by this Python."""
    cli = "from degstalk_ns.scripts.cli import main; main()"
    return [sys.executable, "-c", cli, "fleet", "step", str(manifest), step.subject, step.name]


def work_of_unit(manifest: str, step: FleetStep, node: str) -> str:
    """In a worker of an engine: the step in a process of its own, which ends with the worker.

    Args:
        manifest: its JSON. node: what the engine calls the machine; that is given back.

    Raises:
        RuntimeError: the process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="degstalk-fleet-") as folder:
        path = Path(folder) / "manifest.json"
        path.write_text(manifest, encoding="utf-8")
        done = subprocess.run(
            unit_command(path, step),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {NODE: node},
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            check=False,
        )
    if done.returncode < 0:
        raise RuntimeError(f"its process was ended by signal {-done.returncode}")
    return node


def unmet(needs: dict[str, Need], most: Need, where: str) -> list[str]:
    """Those needs that are more than the largest machine has."""
    found = []
    for kind, need in needs.items():
        for what, unit in (("cpus", "CPU threads"), ("gpus", "GPUs"), ("memory_gb", "GB of memory")):
            if getattr(need, what) > getattr(most, what):
                has = getattr(most, what)
                found.append(f"needs.{kind}.{what}: {getattr(need, what):g} {unit}, and {where} has {has:g}")
    return found


class ThisMachine:
    """Engine `local`."""

    name, told = "local", ""

    def __init__(self, manifest: Manifest) -> None:
        import torch  # not above: every worker of an engine reads this file, and needs no torch

        self._text = manifest.model_dump_json()
        self._folder = tempfile.TemporaryDirectory(prefix="degstalk-fleet-")
        self._manifest = Path(self._folder.name) / "manifest.json"
        self._running: dict[tuple[str, str], tuple[subprocess.Popen[bytes], Need]] = {}
        self._has = Need(
            cpus=float(os.cpu_count() or 1),
            gpus=float(torch.cuda.device_count()),
            memory_gb=psutil.virtual_memory().total / 1e9,
        )

    def __enter__(self) -> ThisMachine:
        self._manifest.write_text(self._text, encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        for process, _need in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process, _need in self._running.values():
            process.wait()
        self._folder.cleanup()

    def check(self, manifest: Manifest, needs: dict[str, Need]) -> list[str]:
        return unmet(needs, self._has, "this machine")

    def has_room(self, step: FleetStep) -> bool:
        return self.fits(step.need, [need for _, need in self._running.values()])

    def fits(self, need: Need, taken: list[Need]) -> bool:
        """Whether a step of this need can run beside others."""
        return all(
            sum(getattr(other, what) for other in taken) + getattr(need, what) <= getattr(self._has, what)
            for what in ("cpus", "gpus", "memory_gb")
        )

    def start(self, step: FleetStep) -> None:
        process = subprocess.Popen(
            unit_command(self._manifest, step),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C comes once, from here
        )
        self._running[step.key] = (process, step.need)

    def ended(self, patience: float) -> list[StepEnd]:
        deadline = time.monotonic() + patience
        while True:
            found = []
            for key, (process, _) in list(self._running.items()):
                code = process.poll()
                if code is not None:
                    del self._running[key]
                    killed = f"its process was ended by signal {-code}" if code < 0 else ""
                    found.append(StepEnd(key, killed, node_name()))
            if found or not self._running or time.monotonic() > deadline:
                return found
            time.sleep(_POLL)
