"""`degstalk experiment table1|table2`: options in, every variant trained and measured on every subject, tables out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.experiment.figure import save_figure, shown_frames
from degstalk_ns.experiment.plan import (
    METHODS,
    Subject,
    TableName,
    Trial,
    TrialState,
    steps_within,
    subjects_of,
    trials_folder,
    trials_of,
)
from degstalk_ns.experiment.tables import as_json, markdown
from degstalk_ns.files import write_bytes
from degstalk_ns.fleet.engines.choice import EngineName, EnginePlace
from degstalk_ns.fleet.live import carry_out, failures
from degstalk_ns.fleet.manifest import Trials, manifest_of
from degstalk_ns.fleet.schedule import FleetSchedule
from degstalk_ns.fleet.store import Store
from degstalk_ns.kernels.memory import keep_freed_memory
from degstalk_ns.metrics.lips_and_eyes import lmd_availability
from degstalk_ns.metrics.lpips import prepare_lpips

if TYPE_CHECKING:
    from degstalk_ns.plugin.trainer import DegstalkTrainerConfig


def command(
    table: Annotated[tyro.conf.Positional[TableName], tyro.conf.arg(metavar="table1|table2")],
    data: tuple[Path, ...],
    budget: float,
    seeds: int = 1,
    output: Path = Path("experiments"),
    schedule: Annotated[str, tyro.conf.arg(metavar="fast|paper")] = "fast",
    engine: EngineName | None = None,
    address: str | None = None,
    partition: str | None = None,
    only: str | None = None,
) -> None:
    """Train and measure the methods of one of the paper's tables, each with the same time, and write the table.

    table1 compares DEGSTalk with its baseline TalkingGaussian; table2 leaves out one part of DEGSTalk at a time. The
    tables are written anew after each trial. If it is interrupted, the same command goes on; a changed option, dataset
    or version redoes only what depends on it.

    Args:
        table: Table of the paper.
        data: Folders of the datasets, one for each subject.
        budget: Minutes of training for each method on each subject. The length of each schedule is chosen to take that
            long, from the time of some steps of each stage.
        seeds: Number of trainings of each, with different random seeds; the tables tell the spread.
        output: Folder of the trials and tables: `trials`, which both tables share where their budgets are the
            same, and a folder for each table.
        schedule: Schedule whose stages are stretched or compressed to the budget: of degstalk-fast, or of the paper.
        engine: Where the trials run, several at the same time: as processes of this machine (local), on a Ray cluster,
            or as SLURM jobs; by default one after the other in this process. All machines must see the folders.
        address: Address of a Ray cluster that runs; by default one is started on this machine.
        partition: Partition of the SLURM cluster.
        only: One trial, METHOD:SEED; it is trained and measured, and no table is written. Engines start trials so.
    """
    console = Console(highlight=False)
    if schedule not in ("fast", "paper"):
        raise UserError(f"--schedule: expected fast or paper, got {schedule}")
    ending = "-fast" if schedule == "fast" else ""
    names = [f"{name}{ending}" for name in METHODS[table]]
    subjects = subjects_of(data)
    trials = trials_of(names, subjects, seeds)
    configs = {name: _config(name) for name in names}
    # Everything that can be refused is refused before anything is trained.
    steps_within(budget, 1e-9, names[0])
    recordings = {subject.name: _readable(subject, list(configs.values())) for subject in subjects}
    for reason in (prepare_lpips(), lmd_availability()):
        if reason is not None:
            console.print(f"[yellow]note: {reason}", soft_wrap=True)
    keep_freed_memory()
    if only is not None:
        trials = [trial for trial in trials if f"{trial.method}:{trial.seed}" == only]
        if not trials:
            raise UserError(
                f"--only {only}: no such trial; the methods are: {', '.join(names)}, the seeds 0 to {seeds - 1}"
            )
        configs = {trials[0].method: configs[trials[0].method]}
        _run(None, trials, subjects, configs, recordings, budget, output, console)
        return
    (output / table).mkdir(parents=True, exist_ok=True)
    if engine is not None:
        asked = Trials(
            table=table, methods=tuple(names), budget=budget, seeds=seeds, schedule=schedule, folder=_whole(output)
        )
        ended = _elsewhere(asked, subjects, engine, EnginePlace(address, partition), console)
        # What failed there is not trained here instead; the tables have the others.
        trials = [t for t in trials if ended.records[t.subject, f"trial.{t.method}.seed{t.seed}"].whole]
        if trials:
            _run(table, trials, subjects, configs, recordings, budget, output, console)
        if not ended.complete:
            raise UserError(failures(ended))
        return
    _run(table, trials, subjects, configs, recordings, budget, output, console)


def _whole(path: Path) -> str:
    return str(path.expanduser().resolve())


def _elsewhere(
    trials: Trials, subjects: Sequence[Subject], engine: EngineName, place: EnginePlace, console: Console
) -> FleetSchedule:
    """All trials on an engine."""
    named = [{"name": subject.name, "dataset": _whole(subject.folder)} for subject in subjects]
    content = {"output": str(Path(trials.folder) / "fleet"), "subjects": named, "training": None, "trials": trials}
    manifest = manifest_of(content, "--data")
    store = Store(manifest.output)
    store.check_writable()
    return carry_out(manifest, store, engine, place, console)


def _config(name: str) -> DegstalkTrainerConfig:
    from degstalk_ns.configs import methods, variants  # nerfstudio is imported late: it takes seconds

    attribute = name.replace("-", "_")
    found: DegstalkTrainerConfig = getattr(variants if hasattr(variants, attribute) else methods, attribute).config
    return found


def _readable(subject: Subject, configs: Sequence[DegstalkTrainerConfig]) -> Recording:
    """The dataset as the last method reads it, after each has found what it needs."""
    from degstalk_ns.configs.variants import dataparser_of
    from degstalk_ns.experiment.adapters import check_frames

    found = [read_recording(subject.folder, options=dataparser_of(config).options) for config in configs]
    for recording in found:
        check_frames(recording)
    return found[-1]


def _run(
    table: TableName | None,
    trials: Sequence[Trial],
    subjects: Sequence[Subject],
    configs: dict[str, DegstalkTrainerConfig],
    recordings: dict[str, Recording],
    budget: float,
    output: Path,
    console: Console,
) -> None:
    from degstalk_ns.experiment import adapters

    folders = {subject.name: subject for subject in subjects}
    root = trials_folder(output, budget)
    states: dict[Trial, TrialState] = {}
    names, last = ", ".join(subject.name for subject in subjects), max(trial.seed for trial in trials)
    about = [
        f"Subjects: {names}. Training: {budget:g} minutes a trial; seeds: {last + 1}. Means over subjects; ± is the "
        "standard deviation of that mean over seeds. The training time includes starting, and after an interruption "
        "the steps since the last checkpoint once more.",
        *(f"Note on {name}: {note}" for name, recording in recordings.items() for note in recording.notes),
    ]
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=len(trials))

        def advance(text: str) -> None:
            shown.update(task, description=text)

        # How long each schedule is to be is known before anything is trained, the same for all seeds.
        steps = {
            (method, name): adapters.steps_for(config, subject, budget, root, advance)
            for name, subject in folders.items()
            for method, config in configs.items()
        }
        for trial in trials:
            folder, subject = trial.folder(root), folders[trial.subject]
            mark = adapters.fingerprint(configs[trial.method], subject, budget, trial.seed)
            found = TrialState.read(folder, mark)
            states[trial] = found or TrialState(mark, steps[trial.method, trial.subject])
            if found is None:
                adapters.refuse_twice(folder)
                adapters.cleared(folder)
                states[trial].save(folder)
        for trial in trials:
            folder, subject, state = trial.folder(root), folders[trial.subject], states[trial]
            try:
                if not state.trained:
                    state = adapters.trained(trial, subject, state, folder, advance)
                if not state.done or state.measured_with != adapters.measured_with():
                    state = adapters.measured(trial, subject, state, folder, advance)
                    console.print(_line(trial, state), markup=False, soft_wrap=True)
            except UserError as error:  # the others go on; the next call tries it again
                state = replace(
                    TrialState.read(folder, state.fingerprint) or state, failed=" ".join(str(error).split())
                )
                state.save(folder)
                console.print(f"[red]failed: {escape(state.failed)}", soft_wrap=True)
            states[trial] = state
            shown.advance(task)
            if table is not None:
                _write(table, subjects, configs, recordings, states, budget, output, about)
    failed = [trial for trial, state in states.items() if state.failed]
    if table is None:
        if failed:
            raise UserError(states[failed[0]].failed)
        return
    page = output / table / "table.md"
    console.print(f"written: {page}", markup=False, soft_wrap=True)
    if failed:
        raise UserError(f"{len(failed)} of {len(trials)} trials failed; {page} names them")


def _line(trial: Trial, state: TrialState) -> str:
    numbers = {"PSNR": "psnr", "LPIPS": "lpips", "LMD": "lmd", "SSIM": "ssim"}
    told = ", ".join(f"{name} {state.metrics[key]:.4g}" for name, key in numbers.items() if key in state.metrics)
    made = f"{state.steps} steps, {state.seconds / 60:.1f} min"
    return f"{trial.method} on {trial.subject}, seed {trial.seed}: {made}, {told}"


def _write(
    table: TableName,
    subjects: Sequence[Subject],
    configs: dict[str, DegstalkTrainerConfig],
    recordings: dict[str, Recording],
    states: dict[Trial, TrialState],
    budget: float,
    output: Path,
    about: Sequence[str],
) -> None:
    root, trials = output / table, trials_folder(output, budget)
    for subject in subjects:
        shown = {trial: state for trial, state in states.items() if state.done and trial.seed == 0}
        own = {trial.method: trial.folder(trials) for trial in shown if trial.subject == subject.name}
        if own:
            save_figure(root / f"{subject.name}.png", shown_frames(recordings[subject.name]), own)
    pictures = [f"![{subject.name}]({subject.name}.png)" for subject in subjects]
    page = markdown(table, list(configs), subjects, states, about)
    write_bytes(root / "table.md", "\n".join([page, "## Frames", "", *pictures, ""]).encode())
    content: dict[str, Any] = as_json(table, states, budget)
    write_bytes(root / "table.json", (json.dumps(content, indent=1) + "\n").encode())
