"""An engine by its name; what it needs is imported only then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.engines.engine import Engine
from degstalk_ns.fleet.manifest import Manifest
from degstalk_ns.fleet.steps import FleetStep
from degstalk_ns.fleet.store import Store

EngineName = Literal["local", "ray", "slurm"]


@dataclass(frozen=True)
class EnginePlace:
    """Where an engine is: the address of a Ray cluster; the partition of SLURM, or processes of this machine."""

    address: str | None = None
    partition: str | None = None
    slurm_local: bool = False


def choose_engine(name: EngineName, manifest: Manifest, store: Store, place: EnginePlace) -> Engine:
    """The engine ``name``, not yet begun.

    Raises:
        UserError: a package or a program that it needs is missing.
    """
    if name == "local":
        from degstalk_ns.fleet.engines.here import ThisMachine

        return ThisMachine(manifest)
    try:
        if name == "ray":
            from degstalk_ns.fleet.engines.on_ray import RayCluster

            return RayCluster(manifest, place.address)
        from degstalk_ns.fleet.engines.on_slurm import SlurmJobs
    except ImportError as error:
        raise UserError(f"--engine {name}: {error.name} is missing; pip install 'degstalk-ns[fleet]'") from None
    folder = Path(manifest.output) if store.local else Path.cwd()
    return SlurmJobs(manifest, folder / ".slurm", place.partition, "local" if place.slurm_local else None)


def check_engine(engine: Engine, manifest: Manifest, missing: Sequence[FleetStep]) -> None:
    """Before anything starts.

    Raises:
        UserError: all that makes the missing steps impossible there.
    """
    wrong = engine.check(manifest, {step.kind: step.need for step in missing})
    if wrong:
        raise UserError("; ".join(wrong))
