"""How long many clips take on many machines, from what the steps of a done manifest have cost.

It must not know how steps are run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import matplotlib.pyplot as plt

from degstalk_ns.errors import UserError
from degstalk_ns.fleet.schedule import FleetSchedule


@dataclass(frozen=True)
class StepCost:
    """Means over the steps of one kind.

    Attributes:
        number: of them for each clip.
        seconds: that each takes. cpus: that it was granted. size: bytes that it leaves.
        memory: most bytes that one of them held; 0 where no one looked.
    """

    kind: str
    number: float
    seconds: float
    cpus: float
    size: float
    memory: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Machines that are alike, on one storage."""

    machines: int
    cpus: float
    storage_mb_s: float


@dataclass(frozen=True)
class Forecasted:
    """What a number of clips takes.

    Attributes:
        hours: until the last one is done. busy: share of the CPUs that work meanwhile.
        terabytes: that lie in the storage at the end. bottleneck: what it waits for.
    """

    clips: int
    cluster: Cluster
    hours: float
    busy: float
    terabytes: float
    bottleneck: str


def clip_costs(schedule: FleetSchedule) -> list[StepCost]:
    """What each kind of step has cost, of those that are done.

    Raises:
        UserError: none is.
    """
    found = defaultdict(list)
    for record in schedule.records.values():
        if record.whole and record.mark is not None:
            found[record.step.kind].append((record.step.need, record.mark))
    if not found:
        raise UserError("no step of this manifest is done; run `degstalk fleet run` first")
    subjects = len({record.step.subject for record in schedule.records.values() if record.whole})
    return [
        StepCost(
            kind,
            number=len(rows) / subjects,
            seconds=fmean(mark.seconds for _, mark in rows),
            cpus=fmean(need.cpus for need, _ in rows),
            size=fmean(mark.size for _, mark in rows),
            memory=max(mark.memory for _, mark in rows),
        )
        for kind, rows in found.items()
    ]


def forecast(costs: Sequence[StepCost], clips: int, cluster: Cluster) -> Forecasted:
    """All clips cost the same and their steps follow one another, so the slots take them in rounds. The storage takes
    what all write and read no faster than it can: each step reads what the one before has left.

    Raises:
        UserError: a step needs more than a machine has.
    """
    for cost in costs:
        if cost.cpus > cluster.cpus:
            raise UserError(f"--cpus {cluster.cpus:g}: a {cost.kind} step takes {cost.cpus:g}")
    wide = max(cost.cpus for cost in costs)
    slots = cluster.machines * int(cluster.cpus // wide)
    one = sum(cost.number * cost.seconds for cost in costs)
    end = math.ceil(clips / slots) * one
    left = sum(cost.number * cost.size for cost in costs)
    storage = 2 * left * clips / (cluster.storage_mb_s * 1e6)
    hours = max(end, storage) / 3600
    work = clips * sum(cost.number * cost.seconds * cost.cpus for cost in costs)
    busy = work / (hours * 3600 * cluster.machines * cluster.cpus)
    if storage > end:
        bottleneck = "storage"
    elif clips < slots:
        bottleneck = "one clip's steps follow one another"
    else:
        bottleneck = "machines"
    return Forecasted(clips, cluster, hours, min(busy, 1.0), left * clips / 1e12, bottleneck)


def forecast_table(costs: Sequence[StepCost], forecasts: Sequence[Sequence[Forecasted]]) -> list[str]:
    """Markdown: the costs of a clip, and every number of clips on every number of machines."""
    lines = ["| step | for each clip | seconds | CPU threads | memory, GB | MB left |", "|---|---|---|---|---|---|"]
    for cost in costs:
        held = f"{cost.memory / 1e9:.1f}" if cost.memory else ""
        lines.append(
            f"| {cost.kind} | {cost.number:g} | {cost.seconds:.1f} | {cost.cpus:g} | {held} | {cost.size / 1e6:.1f} |"
        )
    lines += ["", "| clips | machines | hours | CPUs busy | TB | waits for |", "|---|---|---|---|---|---|"]
    for row in forecasts:
        for found in row:
            lines.append(
                f"| {found.clips:,} | {found.cluster.machines:,} | {found.hours:.2f} | {found.busy:.0%} | "
                f"{found.terabytes:.3f} | {found.bottleneck} |"
            )
    return lines


_TIMES: Final[dict[int, str]] = {
    **{count: f"{count} s" for count in (1, 3, 10, 30)},
    **{count * 60: f"{count} min" for count in (1, 3, 10, 30)},
    **{count * 3600: f"{count} h" for count in (1, 3, 8)},
    **{count * 86400: f"{count} day{'s' * (count > 1)}" for count in (1, 3, 10, 30, 100)},
    **{count * 31_557_600: f"{count} year{'s' * (count > 1)}" for count in (1, 3, 10, 30, 100, 300, 1000)},
}
"""Marks of an axis of times, by their seconds."""


def plot_forecast(forecasts: Sequence[Sequence[Forecasted]], path: Path) -> None:
    """Hours against machines, a line for each number of clips."""
    figure, axes = plt.subplots(figsize=(7, 5))
    for row in forecasts:
        axes.loglog(
            [found.cluster.machines for found in row],
            [found.hours for found in row],
            "o-",
            label=f"{row[0].clips:,} clips",
        )
    machines = sorted({found.cluster.machines for row in forecasts for found in row})
    marks = machines[:: -(-len(machines) // 8)]
    axes.set_xticks(marks, [f"{count:,}" for count in marks])
    axes.set_yticks([seconds / 3600 for seconds in _TIMES], list(_TIMES.values()))
    axes.minorticks_off()
    hours = [found.hours for row in forecasts for found in row]
    axes.set_ylim(min(hours) / 2, max(hours) * 2)
    axes.set_xlabel("machines")
    axes.set_ylabel("time until all are done")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
