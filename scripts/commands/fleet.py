"""`degstalk fleet`: every step of every subject of a manifest, on this machine, a Ray cluster or SLURM."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.engines.choice import EngineName, EnginePlace
from degstalk_ns.fleet.kubernetes import REFUSED, Volume, kubernetes_yaml
from degstalk_ns.fleet.live import carry_out, failures
from degstalk_ns.fleet.manifest import Manifest, missing_inputs, read_manifest
from degstalk_ns.fleet.report import REPORT, write_report
from degstalk_ns.fleet.schedule import FleetSchedule
from degstalk_ns.fleet.steps import steps_of
from degstalk_ns.fleet.store import INPUTS, Store
from degstalk_ns.fleet.unit import find_step, run_step, run_subject

ManifestPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MANIFEST")]


@dataclass
class RunAll:
    """Do all steps that are not done; the same command again does only what is missing or changed."""

    manifest: ManifestPath
    """YAML or JSON file that says what is wanted; `degstalk fleet schema` describes it."""
    engine: EngineName = "local"
    """Where steps run: on this machine, on a Ray cluster, or as SLURM jobs."""
    address: str | None = None
    """Address of a Ray cluster that runs; by default one is started on this machine."""
    partition: str | None = None
    """Partition of the SLURM cluster."""
    slurm_local: bool = False
    """With --engine slurm, run the jobs as processes of this machine, as submitit does without SLURM."""


@dataclass
class RunStep:
    """Do one step, as the engines do it: a done one is left alone, a begun one goes on."""

    manifest: ManifestPath
    """The manifest."""
    subject: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SUBJECT")]
    """Name of a subject."""
    step: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STEP")]
    """Name of one of its steps, such as process or train.degstalk-fast.seed0."""


@dataclass
class RunSubject:
    """Do all steps of one subject, one after the other, as a pod of a Kubernetes job does.

    Exit code 3: a step was refused for its input, so that trying again is of no use.
    """

    manifest: ManifestPath
    """The manifest."""
    index: int
    """Number of the subject in the manifest, from 0."""


@dataclass
class WriteKubernetes:
    """Print a Kubernetes job that does the manifest, a pod for each subject."""

    manifest: ManifestPath
    """The manifest; its output and inputs must be fsspec addresses, or lie below --mount."""
    image: str
    """Container image with this program, as the Dockerfile makes it."""
    claim: str | None = None
    """Name of the persistent volume claim that holds inputs and results."""
    mount: Path = Path("/data")
    """Where the claim is mounted."""
    name: str = "degstalk-fleet"
    """Name of the job."""
    parallelism: int = 50
    """Number of pods that run at the same time."""


@dataclass
class Forecast:
    """Tell how long more clips would take, from what the steps of a done manifest have cost."""

    manifest: ManifestPath
    """The manifest, done."""
    clips: tuple[int, ...] = (10, 1_000, 100_000)
    """Numbers of clips."""
    machines: tuple[int, ...] = (1, 10, 100, 1_000)
    """Numbers of machines."""
    cpus: float = 16.0
    """CPU threads of each machine."""
    storage_mb_s: float = 1_000.0
    """What the storage reads and writes in all, MB/s."""
    plot: Path | None = None
    """PNG file for a plot."""


@dataclass
class PrintSchema:
    """Print the JSON schema of a manifest."""


def command(
    action: Annotated[
        Annotated[RunAll, tyro.conf.subcommand("run", prefix_name=False)]
        | Annotated[RunStep, tyro.conf.subcommand("step", prefix_name=False)]
        | Annotated[RunSubject, tyro.conf.subcommand("subject", prefix_name=False)]
        | Annotated[WriteKubernetes, tyro.conf.subcommand("kubernetes", prefix_name=False)]
        | Annotated[Forecast, tyro.conf.subcommand("forecast", prefix_name=False)]
        | Annotated[PrintSchema, tyro.conf.subcommand("schema", prefix_name=False)],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Process, train, evaluate and render many subjects, on one machine or many.

    Args:
        action: What to do.
    """
    if isinstance(action, PrintSchema):
        print(json.dumps(Manifest.model_json_schema(), indent=1))
    elif isinstance(action, RunStep):
        _step(action)
    elif isinstance(action, RunSubject):
        _subject(action)
    elif isinstance(action, WriteKubernetes):
        manifest = read_manifest(action.manifest)
        volume = None if action.claim is None else Volume(action.claim, action.mount)
        print(kubernetes_yaml(manifest, action.name, action.image, volume, action.parallelism), end="")
    elif isinstance(action, Forecast):
        _forecast(action)
    else:
        _run(action)


def _step(action: RunStep) -> None:
    manifest = read_manifest(action.manifest)
    store = Store(manifest.output)
    step = find_step(manifest, action.subject, action.step, store)
    before = store.mark(*step.key)
    mark = run_step(manifest, step, store)
    if not mark.done:
        raise UserError(f"{action.subject}, {action.step}: {mark.reason}")
    word = "was done before" if mark == before else "done"
    print(f"{action.subject}, {action.step}: {word}, in {mark.seconds:.1f} s on {mark.node}")


def _subject(action: RunSubject) -> None:
    manifest = read_manifest(action.manifest)
    if not 0 <= action.index < len(manifest.subjects):
        raise UserError(f"--index {action.index}: the manifest has {len(manifest.subjects)} subjects, from 0 on")
    ended = run_subject(manifest, manifest.subjects[action.index].name, Store(manifest.output))
    for step, mark in ended:
        print(f"{step.subject}, {step.name}: {'done' if mark.done else mark.reason} ({mark.seconds:.1f} s)")
    failed = [mark for _, mark in ended if not mark.done]
    if failed:
        print(f"degstalk: {failed[0].reason}", file=sys.stderr)
        sys.exit(REFUSED if all(mark.refused for mark in failed) else 1)


def _forecast(action: Forecast) -> None:
    from degstalk_ns.fleet.forecast import Cluster, clip_costs, forecast, forecast_table, plot_forecast

    console = Console(highlight=False)
    manifest = read_manifest(action.manifest)
    store = Store(manifest.output)
    schedule = FleetSchedule(steps_of(manifest, store.read(INPUTS) or {}), store, 0)
    costs = clip_costs(schedule)
    cluster = [Cluster(machines, action.cpus, action.storage_mb_s) for machines in action.machines]
    forecasts = [[forecast(costs, clips, machines) for machines in cluster] for clips in action.clips]
    for line in forecast_table(costs, forecasts):
        console.print(line, markup=False, soft_wrap=True)
    if action.plot is not None:
        plot_forecast(forecasts, action.plot)


def _run(action: RunAll) -> None:
    console = Console(highlight=False)
    start = time.monotonic()
    manifest = read_manifest(action.manifest)
    store = Store(manifest.output)
    wrong = missing_inputs(manifest) + _unknown_methods(manifest)
    try:
        store.check_writable()
    except UserError as error:
        wrong.append(str(error))
    if wrong:
        raise UserError("; ".join(wrong))
    place = EnginePlace(action.address, action.partition, action.slurm_local)
    schedule = carry_out(manifest, store, action.engine, place, console)
    seconds = time.monotonic() - start
    write_report(schedule, store, action.engine, seconds)
    records = list(schedule.records.values())
    done, kept = (sum(record.state == state for record in records) for state in ("done", "kept"))
    console.print(
        f"{done} steps done, {kept} done before, {len(records) - done - kept} not, in {seconds:.1f} s; "
        f"look at {manifest.output}/{REPORT}.html",
        markup=False,
        soft_wrap=True,
    )
    if not schedule.complete:
        raise UserError(failures(schedule))


def _unknown_methods(manifest: Manifest) -> list[str]:
    known = sorted(entry.name for entry in entry_points(group="nerfstudio.method_configs"))
    return [
        f"training.methods: there is no method {name}; the methods are: {', '.join(known)}"
        for name in (manifest.training.methods if manifest.training else ())
        if name not in known
    ]
