"""Steps on a Ray cluster: one that is started here for the occasion, or one that runs."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.engines.engine import StepEnd
from degstalk_ns.fleet.engines.here import unmet, work_of_unit
from degstalk_ns.fleet.manifest import Manifest, Need, missing_inputs
from degstalk_ns.fleet.steps import FleetStep
from degstalk_ns.fleet.store import Store

QUEUED: Final[int] = 4
"""Steps that are given to Ray at most, for every CPU of the cluster."""
_GB: Final[float] = 1e9
_TOKEN: Final[str] = "if it asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster"
_ANSWER: Final[float] = 10.0
"""Seconds that a cluster has for opening a connection."""
_LAST_PORT: Final[int] = 65535


def _place() -> str:
    return str(ray.get_runtime_context().get_node_id())[:8]


@ray.remote(max_retries=0)
def _work(manifest: str, step: FleetStep) -> str:
    return work_of_unit(manifest, step, _place())


@ray.remote(num_cpus=0, max_retries=0)
def _seen(manifest: str, probe: str) -> list[str]:
    """On a node: what it does not see."""
    found = Manifest.model_validate_json(manifest)
    missing = missing_inputs(found)
    if Store(found.output).read(probe) != probe:
        missing.append(f"output {found.output}: what one machine writes there, this one does not see")
    return [f"node {_place()}: {line}" for line in missing]


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens: Ray itself tries for a quarter of an hour. An address that is no host
    and port is left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"--address {address}: no Ray cluster answers there ({why})") from None


class RayCluster:
    """Engine `ray`.

    Args:
        manifest: it travels to the workers.
        address: of a cluster that runs, such as ray://head:10001 or head:6379; None starts one on this machine.

    Raises:
        UserError: no cluster answers at the address.
    """

    name = "ray"

    def __init__(self, manifest: Manifest, address: str | None = None) -> None:
        self._manifest = manifest.model_dump_json()
        self._address = address
        self._running: dict[Any, FleetStep] = {}
        self._mine = False
        self.told = ""

    def __enter__(self) -> RayCluster:
        if not ray.is_initialized():
            if self._address is not None:
                _check_answers(self._address)
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
            try:
                context: Any = ray.init(
                    address=self._address or "local",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=None if self._address is None else False,
                )
            except Exception as error:  # ConnectionError, ValueError, RuntimeError: as the address is wrong
                why = " ".join(str(error).split())[:200]
                token = "" if "RAY_AUTH_MODE" in os.environ else f"; {_TOKEN}"
                raise UserError(f"--address {self._address}: no Ray cluster answers there ({why}){token}") from None
            self._mine = True
            if context.dashboard_url:
                token = "; `ray get-auth-token` tells its token" if os.environ.get("RAY_AUTH_MODE") == "token" else ""
                self.told = f"Ray's dashboard: http://{context.dashboard_url}{token}"
        self._count_room()
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._running:
            ray.cancel(future, force=True)
        if self._mine:
            ray.shutdown()

    def _count_room(self) -> None:
        """Once a round, not once a step: a cluster grows and shrinks, and thousands of steps may wait."""
        self._room = QUEUED * max(ray.cluster_resources().get("CPU", 0.0), 1.0)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"]]

    def check(self, manifest: Manifest, needs: dict[str, Need]) -> list[str]:
        nodes = self._nodes()
        machines = [node["Resources"] for node in nodes]
        most = Need(
            cpus=max([m.get("CPU", 0.0) for m in machines] + [1e-9]),
            gpus=max([m.get("GPU", 0.0) for m in machines] + [0.0]),
            memory_gb=max([m.get("memory", 0.0) for m in machines] + [1.0]) / _GB,
        )
        found = unmet(needs, most, "the largest machine of the cluster")
        probe = f".probe-{uuid.uuid4().hex}"
        store = Store(manifest.output)
        store.write(probe, probe)
        try:
            asked = [
                _seen.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                    self._manifest, probe
                )
                for node in nodes
            ]
            found += [line for lines in ray.get(asked) for line in lines]
        finally:
            store.remove(probe)
        return found

    def has_room(self, step: FleetStep) -> bool:
        return len(self._running) < self._room

    def start(self, step: FleetStep) -> None:
        work = _work.options(
            num_cpus=step.need.cpus,
            num_gpus=step.need.gpus,
            memory=step.need.memory_gb * _GB,
            name=f"{step.subject} {step.name}",
            scheduling_strategy="SPREAD",
        )
        self._running[work.remote(self._manifest, step)] = step

    def ended(self, patience: float) -> list[StepEnd]:
        self._count_room()
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=patience)
        found = []
        for future in ready:
            step = self._running.pop(future)
            try:
                found.append(StepEnd(step.key, node=ray.get(future)))
            except RayError as error:
                found.append(StepEnd(step.key, _why(error)))
        return found


def _why(error: RayError) -> str:
    """One line of what Ray says, which is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    known = {
        "WorkerCrashedError": "the worker died",
        "NodeDiedError": "the node died",
        "OutOfMemoryError": "the node ran out of memory, and Ray ended the worker",
    }
    return known.get(type(error).__name__) or (lines[-1][:200] if lines else type(error).__name__)
