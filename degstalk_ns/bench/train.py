"""`bench train`: steps per second in each stage, and how a step grows with Gaussians and resolution.

It must not know nerfstudio: it is given a run whose steps it may take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from degstalk_ns.bench.machine import Machine
from degstalk_ns.bench.memory import peak_resident_memory, resident_memory
from degstalk_ns.bench.raster import curve_of
from degstalk_ns.bench.timing import MILLISECONDS, Spread, check_repeats, timed
from degstalk_ns.bench.work import Work
from degstalk_ns.console.report import Curve, Report, Table
from degstalk_ns.errors import UserError

STAGES = ("static", "motion", "perceptual", "fuse", "fuse-perceptual")
"""What a step can be like: the three stages, and the ends of motion and fuse with their perceptual losses."""
WARMUP_STEPS = 6
"""Steps that do not count: compilation, caches, the first frames read."""
TRAINED_COUNTS = (5_000, 10_000, 20_000, 50_000, 100_000)
"""Gaussians of both regions together in the sweep, at the data's resolution."""
TRAINED_SIZES = (128, 256, 512, 1024)
"""Pixels a side of the sweep."""
MEMORY_SAMPLES = 12
"""How often resident memory is noted along a run of steps."""


class TrainingSteps(Protocol):
    """A training run whose steps can be taken one by one, in any stage; it never grows or prunes."""

    device: torch.device

    def enter(self, stage: str) -> None:
        """Go to a step of ``stage``."""

    def step(self) -> None:
        """One whole step: frames, forward, losses, backward, optimizers, callbacks."""

    def resize(self, gaussians: int | None, side: int | None) -> None:
        """Sets the number of Gaussians of both regions together, and the side in pixels; None leaves it as it was."""

    def describe(self) -> dict[str, Any]:
        """``face`` and ``mouth`` Gaussians, ``width`` and ``height``."""

    def raster_work(self) -> list[Work]:
        """The rasterizer's work in the step that comes next."""


def check_stages(stages: tuple[str, ...]) -> None:
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown or not stages:
        raise UserError(f"--stages: expected some of {' '.join(STAGES)}, got {' '.join(unknown) or 'none'}")


def time_stage(run: TrainingSteps, stage: str, repeats: int) -> tuple[Spread, list[float]]:
    """Seconds of a step, and resident memory in MiB at some of them, evenly spread."""
    check_repeats(repeats)
    run.enter(stage)
    for _ in range(WARMUP_STEPS):
        run.step()
    seconds, memory = [], []
    for index in range(repeats):
        seconds.append(timed(run.step, run.device))
        if index % max(repeats // MEMORY_SAMPLES, 1) == 0:
            memory.append(round(resident_memory(), 1))
    return Spread.of(seconds), memory


def bench_train(
    run: TrainingSteps, machine: Machine, stages: tuple[str, ...], repeats: int, advance: Callable[[str], None]
) -> Report:
    """Each of ``stages`` for ``repeats`` steps."""
    about = run.describe()
    report = Report("train", data={**about, "machine": machine.to_json(), "stages": {}})
    gaussians = f"{about['face']:,} + {about['mouth']:,} Gaussians"
    table = Table(
        f"Training steps: {gaussians}, {about['width']} x {about['height']} pixels",
        ("", *MILLISECONDS, "steps/s", "GFLOP", "floor ms", "times floor"),
    )
    resident = []
    for stage in stages:
        advance(stage)
        spread, memory = time_stage(run, stage, repeats)
        works = run.raster_work()
        with FlopCounterMode(display=False) as counter:
            run.step()
        trained = stage != "fuse"
        operations = counter.get_total_flops() + sum(
            work.forward_operations + trained * work.backward_operations for work in works
        )
        moved = sum(work.forward_bytes + work.backward_bytes for work in works)
        floor = max(operations / machine.operations, moved / machine.bytes)
        report.data["stages"][stage] = {
            **spread.to_json(),
            "steps_per_second": 1 / spread.median,
            "gflop": operations / 1e9,
            "floor_ms": floor * 1e3,
            "times_floor": spread.median / floor,
            "raster": [dataclasses.asdict(work) for work in works],
            "resident_mib": memory,
        }
        table.add(
            stage,
            *spread.milliseconds(),
            f"{1 / spread.median:.1f}",
            f"{operations / 1e9:.2f}",
            f"{floor * 1e3:.1f}",
            f"{spread.median / floor:.1f}",
        )
        resident.append(f"{stage} {memory[0]:.0f} .. {memory[-1]:.0f}")
    peak = peak_resident_memory()
    report.data["peak_resident_mib"] = peak
    report.tables.append(table)
    report.notes += [
        machine.describe(),
        f"resident memory from a stage's first step to its last, MiB: {', '.join(resident)}",
        f"peak resident memory of this process: {peak:.0f} MiB",
        "floor: the theoretical minimum time of this hardware for the matrix products and convolutions of the step and "
        "the counted work of the rasterizer; image losses, optimizers and reading frames are not included",
    ]
    return report


def sweep_train(
    run: TrainingSteps, stage: str, repeats: int, advance: Callable[[str], None]
) -> tuple[Table, dict[str, list[Curve]], list[dict[str, Any]]]:
    """Steps of ``stage`` over the number of Gaussians and over resolution."""
    table = Table(
        f"Step time of the {stage} stage by number of Gaussians and image size",
        ("Gaussians", "pixels", *MILLISECONDS, "steps/s"),
    )
    panels: dict[str, list[Curve]] = {}
    entries: list[dict[str, Any]] = []
    own = run.describe()
    total = own["face"] + own["mouth"]
    ways: dict[str, list[tuple[int | None, int | None]]] = {
        f"Gaussians ({own['width']} x {own['height']} pixels)": [(count, None) for count in TRAINED_COUNTS],
        f"pixels a side ({total:,} Gaussians)": [(None, side) for side in TRAINED_SIZES],
    }
    for label, cases in ways.items():
        spreads, x = [], []
        for count, side in cases:
            run.resize(count, side)
            about = run.describe()
            advance(f"{about['face'] + about['mouth']:,} Gaussians, {about['width']} x {about['height']}")
            spread, memory = time_stage(run, stage, repeats)
            spreads.append(spread)
            x.append(side or about["face"] + about["mouth"])
            table.add(
                f"{about['face'] + about['mouth']:,}",
                f"{about['width']} x {about['height']}",
                *spread.milliseconds(),
                f"{1 / spread.median:.1f}",
            )
            entries.append({**about, "stage": stage, **spread.to_json(), "resident_mib": memory})
        panels[label] = [curve_of(f"{stage} step", x, spreads)]
    run.resize(None, None)
    return table, panels, entries
