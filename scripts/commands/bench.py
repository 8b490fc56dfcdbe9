"""`degstalk bench raster|render|train|process|look-ahead`: options in, tables, a JSON file and plots out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from degstalk_ns.bench.look_ahead import LOOK_AHEADS, bench_look_ahead
from degstalk_ns.bench.machine import Machine, choose_device, measure_machine, use_threads
from degstalk_ns.bench.timing import check_repeats
from degstalk_ns.console.report import Report, check_writable, plot_times, plot_values
from degstalk_ns.errors import UserError
from degstalk_ns.kernels.memory import keep_freed_memory
from degstalk_ns.preprocess.config import ProcessConfig

Device = Literal["auto", "cpu", "cuda"]


@dataclass(kw_only=True)
class _Common:
    output: Path | None = None
    """JSON file to which all measurements are written."""
    threads: int | None = None
    """Number of CPU threads; by default PyTorch chooses."""


@dataclass(kw_only=True)
class Raster(_Common):
    """Time the rasterizer on a standard scene: forward, forward with backward, and each phase.

    On a GPU, gsplat is timed too.
    """

    count: int = 30_000
    """Number of Gaussians in the scene."""
    size: int = 512
    """Width and height of the image, in pixels."""
    seed: int = 0
    """Random seed of the scene."""
    repeats: int = 40
    """Number of timed runs."""
    device: Device = "auto"
    """Device: auto times the CPU and, if present, the GPU; cuda fails if there is no GPU."""
    sweep: bool = False
    """Also time 5,000 to 100,000 Gaussians and 128 to 1024 pixels."""
    plot: Path | None = None
    """PNG file for a plot of the timings; it requires --sweep."""


@dataclass(kw_only=True)
class Render(_Common):
    """Frames per second of a trained avatar, and the time of each phase."""

    load_config: Path
    """Path of the config.yml of the run."""
    data: Path | None = None
    """Folder of the dataset, if it has moved since the training."""
    repeats: int = 100
    """Number of timed frames."""


@dataclass(kw_only=True)
class Train(_Common):
    """Steps per second in each training stage, and how the step time grows with Gaussians and resolution."""

    data: Path | None = None
    """Dataset for a newly initialised avatar; with --load-config, the dataset of that run if it has moved."""
    load_config: Path | None = None
    """Path of the config.yml of a run to continue from, so that steps cost as much as late in its training."""
    stages: tuple[str, ...] = ("static", "motion", "perceptual", "fuse", "fuse-perceptual")
    """Stages to time, out of: static motion perceptual fuse fuse-perceptual."""
    repeats: int = 30
    """Number of timed steps in each stage."""
    sweep: bool = False
    """Also time the motion stage with 5,000 to 100,000 Gaussians and at 128 to 1024 pixels."""
    plot: Path | None = None
    """PNG file for a plot of the timings; it requires --sweep."""


@dataclass(kw_only=True)
class Process(_Common):
    """Frames per second of each stage of degstalk process."""

    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")]
    """Video of a talking person."""
    config: Annotated[ProcessConfig, tyro.conf.arg(name="")] = field(default_factory=ProcessConfig)
    """Options of degstalk process."""


@dataclass(kw_only=True)
class LookAhead(_Common):
    """How well the lips of a trained avatar follow the held-out audio if they hear only so far ahead, as live use needs
    it.

    A quality, not a time: the opening's correlation with the recorded one, landmark distance, spread and lag, beside
    the sound of another moment and a still mouth.
    """

    load_config: Path
    """Path of the config.yml of the run."""
    data: Path | None = None
    """Folder of the dataset, if it has moved since the training."""
    look_aheads: tuple[float, ...] = LOOK_AHEADS
    """Look-aheads to measure, in seconds, 0.04 or more."""
    plot: Path | None = None
    """PNG file for a plot of the two curves."""


Benchmark = (
    Annotated[Raster, tyro.conf.subcommand("raster")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Process, tyro.conf.subcommand("process")]
    | Annotated[LookAhead, tyro.conf.subcommand("look-ahead")]
)


def command(
    what: Annotated[Benchmark, tyro.conf.arg(name="")],
) -> None:
    """Benchmark how fast this machine renders, trains and preprocesses, compared with the limits of its hardware, and
    what lips lose that hear only so far ahead."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)  # a file is as wide as the table
    for path in (what.output, getattr(what, "plot", None)):
        check_writable(path)
    if getattr(what, "plot", None) is not None and not getattr(what, "sweep", True):
        raise UserError("--plot: shows the timings of the sweep; give --sweep too")
    check_repeats(getattr(what, "repeats", 1))
    use_threads(what.threads)
    keep_freed_memory()
    if isinstance(what, Process):
        report = _process(what, console)
    else:
        ways: dict[type, Callable[[Any, Callable[[str], None]], Report]] = {
            Raster: _raster,
            Render: _render,
            Train: _train,
            LookAhead: _look_ahead,
        }
        with _progress(console) as advance:
            report = ways[type(what)](what, advance)
    report.data["threads"] = torch.get_num_threads()
    report.show(console)
    if what.output is not None:
        report.save(what.output)
        console.print(f"written: {what.output}", markup=False, soft_wrap=True)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that says what is being measured."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("", total=None)
        yield lambda text: shown.update(task, description=text)


def _raster(options: Raster, advance: Callable[[str], None]) -> Report:
    from degstalk_ns.bench.raster import bench_raster, make_scene, sweep_raster

    device = choose_device(options.device)
    names = ["cuda"] if options.device == "cuda" else ["cpu"]
    if options.device == "auto" and device.type == "cuda":
        names.append("cuda")
    make_scene(options.count, options.size, options.seed)
    advance("measuring the machine")
    machines: dict[str, Machine] = {name: measure_machine(torch.device(name)) for name in names}
    report = bench_raster(machines, options.count, options.size, options.seed, options.repeats, advance)
    if options.sweep:
        table, panels, entries = sweep_raster(names, options.seed, max(options.repeats // 4, 5), advance)
        report.tables.append(table)
        report.data["sweep"] = entries
        if options.plot is not None:
            plot_times(options.plot, "Rasterizer on the standard scene", panels)
            report.notes.append(f"plot: {options.plot}")
    return report


def _render(options: Render, advance: Callable[[str], None]) -> Report:
    advance("loading")
    from degstalk_ns.bench.adapters import played
    from degstalk_ns.bench.render import bench_render

    avatar = played(options.load_config, options.data)
    advance("measuring the machine")
    machine = measure_machine(avatar.shots[0].view.viewmat.device)
    report = bench_render(avatar, machine, options.repeats, advance)
    report.notes += [f"note: {note}" for note in avatar.notes]
    return report


def _train(options: Train, advance: Callable[[str], None]) -> Report:
    from degstalk_ns.bench.train import bench_train, check_stages, sweep_train

    check_stages(options.stages)
    advance("loading")
    from degstalk_ns.bench.adapters import TrainingRun
    from degstalk_ns.configs.methods import degstalk_fast

    run = TrainingRun(options.data, options.load_config, degstalk_fast.config)
    try:
        advance("measuring the machine")
        machine = measure_machine(run.device)
        report = bench_train(run, machine, options.stages, options.repeats, advance)
        report.notes += [f"note: {note}" for note in run.notes]
        if options.sweep:
            table, panels, entries = sweep_train(run, "motion", max(options.repeats // 3, 5), advance)
            report.tables.append(table)
            report.data["sweep"] = entries
            if options.plot is not None:
                plot_times(options.plot, "A training step", panels)
                report.notes.append(f"plot: {options.plot}")
    finally:
        run.close()
    return report


def _look_ahead(options: LookAhead, advance: Callable[[str], None]) -> Report:
    advance("loading")
    from degstalk_ns.bench.adapters import driven_lips

    run, measure = driven_lips(options.load_config, options.data)
    report, panels = bench_look_ahead(run.recording, measure, options.look_aheads, advance)
    report.data["name"] = run.name
    report.notes += [f"note: {note}" for note in run.notes]
    if options.plot is not None:
        plot_values(options.plot, "Lips that hear only so far ahead", "look-ahead, milliseconds", panels)
        report.notes.append(f"plot: {options.plot}")
    return report


def _process(options: Process, console: Console) -> Report:
    from degstalk_ns.bench.process import bench_process
    from degstalk_ns.console.progress import Progress as Bars

    return bench_process(options.video, options.config, measure_machine(), Bars(console))
