"""Steps as SLURM jobs, in arrays, through submitit; or, with its local executor, as processes of this machine."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import submitit

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.engines.engine import StepEnd
from degstalk_ns.fleet.engines.here import ThisMachine, unmet, work_of_unit
from degstalk_ns.fleet.manifest import Manifest, Need
from degstalk_ns.fleet.steps import FleetStep
from degstalk_ns.fleet.unit import node_name

SUBMITTED: Final[int] = 1000
"""Jobs that wait or run at most; many clusters refuse longer arrays."""
_POLL: Final[float] = 0.5


def slurm_work(manifest: str, step: FleetStep) -> str:
    """In a job. Gives the node."""
    return work_of_unit(manifest, step, node_name())


class SlurmJobs:
    """Engine `slurm`.

    Args:
        manifest: it travels with the jobs.
        folder: where submitit keeps what it sends and receives; every machine must see it.
        partition: of the cluster; None is its default.
        cluster: None for SLURM, "local" for submitit's processes on this machine.

    Raises:
        UserError: there is no SLURM here.
    """

    name, told = "slurm", ""

    def __init__(
        self, manifest: Manifest, folder: Path, partition: str | None = None, cluster: str | None = None
    ) -> None:
        if cluster is None and shutil.which("sbatch") is None:
            raise UserError(
                "--engine slurm: there is no sbatch on this machine; run it on a login node, or give --slurm-local to "
                "use submitit's processes on this one"
            )
        self._manifest = manifest.model_dump_json()
        self._local = cluster == "local"
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster or "slurm")
        self._partition = partition
        self._waiting: list[FleetStep] = []
        self._running: dict[tuple[str, str], tuple[submitit.Job[Any], Need]] = {}
        self._here = ThisMachine(manifest) if self._local else None

    def __enter__(self) -> SlurmJobs:
        return self

    def __exit__(self, *_: object) -> None:
        for job, _need in self._running.values():
            job.cancel(check=False)

    def check(self, manifest: Manifest, needs: dict[str, Need]) -> list[str]:
        if self._here is not None:
            return self._here.check(manifest, needs)
        told = subprocess.run(["sinfo", "-h", "-o", "%c %m %G"], capture_output=True, text=True, check=False).stdout
        nodes = [line.split() for line in told.splitlines() if len(line.split()) == 3]
        if not nodes:
            return ["--engine slurm: sinfo names no node"]
        gpus = [
            sum(int(part.rsplit(":", 1)[-1].split("(")[0]) for part in n[2].split(",") if ":" in part) for n in nodes
        ]
        most = Need(
            cpus=max(float(n[0].rstrip("+")) for n in nodes),
            gpus=float(max(gpus)),
            memory_gb=max(float(n[1].rstrip("+")) for n in nodes) * 2**20 / 1e9,
        )
        return unmet(needs, most, "the largest node of the cluster")

    def has_room(self, step: FleetStep) -> bool:
        if self._here is not None:  # the local executor starts everything at once
            taken = [need for _, need in self._running.values()] + [other.need for other in self._waiting]
            return self._here.fits(step.need, taken)
        return len(self._running) + len(self._waiting) < SUBMITTED

    def start(self, step: FleetStep) -> None:
        self._waiting.append(step)

    def _submit(self) -> None:
        """All that wait, an array for each kind of need."""
        for need in dict.fromkeys(step.need for step in self._waiting):
            steps = [step for step in self._waiting if step.need == need]
            wanted: dict[str, Any] = {
                "name": f"degstalk-{steps[0].kind}",
                "timeout_min": math.ceil(need.minutes),
                "cpus_per_task": math.ceil(need.cpus),
                "mem_gb": math.ceil(need.memory_gb),
                "gpus_per_node": math.ceil(need.gpus),
            }
            if not self._local:
                wanted["slurm_array_parallelism"] = SUBMITTED
                if self._partition is not None:
                    wanted["slurm_partition"] = self._partition
            self._executor.update_parameters(**wanted)
            with self._executor.batch():
                jobs = [self._executor.submit(slurm_work, self._manifest, step) for step in steps]
            for step, job in zip(steps, jobs, strict=True):
                self._running[step.key] = (job, need)
        self._waiting = []

    def ended(self, patience: float) -> list[StepEnd]:
        self._submit()
        deadline = time.monotonic() + patience
        while True:
            found = []
            for key, (job, _) in list(self._running.items()):
                if job.done():
                    del self._running[key]
                    error = job.exception()
                    lost = "" if error is None else _why(job, error)
                    found.append(StepEnd(key, lost, "" if error is not None else str(job.result())))
            if found or not self._running or time.monotonic() > deadline:
                return found
            time.sleep(_POLL)


def _why(job: submitit.Job[Any], error: Exception) -> str:
    """One line of what submitit says, which is long: how SLURM calls the job's end, and the last words of its own."""
    lines = str(error).partition("You can check full logs")[0].splitlines()
    said = [line.strip() for line in lines if re.search(r"\w", line)]
    last = said[-1][:200] if said else type(error).__name__
    return f"job {job.job_id}, {job.state}: {last}"
