"""What is shown while a fleet runs: on a terminal a table, elsewhere a line for each step that ends. It must not know
how steps are run."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from degstalk_ns.fleet.engines.choice import EngineName, EnginePlace, check_engine, choose_engine
from degstalk_ns.fleet.engines.engine import Engine
from degstalk_ns.fleet.manifest import Manifest
from degstalk_ns.fleet.schedule import FleetSchedule, StepRecord
from degstalk_ns.fleet.steps import steps_of
from degstalk_ns.fleet.store import INPUTS, Store

MOST_ROWS: Final[int] = 24
"""Steps that are listed: those that run, then those that have failed."""


def live_table(schedule: FleetSchedule) -> Table:
    """Subject, step, progress, time that is left, and machine of what runs; and how much is over."""
    records = list(schedule.records.values())
    count = Counter(record.state for record in records)
    table = Table(title=", ".join(f"{number} {state}" for state, number in count.items()), title_justify="left")
    for name in ("subject", "step", "progress", "left", "node"):
        table.add_column(name)
    shown = [record for record in records if record.state == "running"]
    shown += [
        record for record in records if record.state == "failed" or (record.retried and record.state != "running")
    ]
    for record in shown[:MOST_ROWS]:
        table.add_row(record.step.subject, record.step.name, _how_far(record), _left(record), _node(record))
    return table


def _how_far(record: StepRecord) -> str:
    if record.state == "failed":
        return f"failed: {record.mark.reason[:60]}" if record.mark else "failed"
    if record.progress is None:
        return record.state if record.state != "running" else "begins"
    told = record.progress
    return f"{told.fraction:.0%}" if told.fraction is not None else told.said[:40]


def _left(record: StepRecord) -> str:
    fraction = record.progress.fraction if record.progress else None
    if record.state != "running" or not fraction:
        return ""
    seconds = (time.monotonic() - record.started) * (1 - fraction) / fraction
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _node(record: StepRecord) -> str:
    if record.progress is not None:
        return record.progress.node
    return record.mark.node if record.mark is not None else ""


def carry_out(
    manifest: Manifest, store: Store, engine: EngineName, place: EnginePlace, console: Console
) -> FleetSchedule:
    """Runs what of a manifest is missing on an engine, and shows it; gives what has become of every step.

    Raises:
        UserError: an input cannot be read, or the engine cannot do what is missing; nothing was begun.
    """
    known: dict[str, Any] = store.read(INPUTS) or {}
    schedule = FleetSchedule(steps_of(manifest, known), store, manifest.retries)
    store.write(known, INPUTS)
    if schedule.missing:
        with choose_engine(engine, manifest, store, place) as begun:
            check_engine(begun, manifest, schedule.missing)
            watch(schedule, begun, console)
    return schedule


def failures(schedule: FleetSchedule) -> str:
    """Every step that has failed, with why, in one line."""
    failed = [record for record in schedule.records.values() if record.state == "failed"]
    return "; ".join(f"{r.step.subject}, {r.step.name}: {r.mark.reason if r.mark else ''}" for r in failed)


def watch(schedule: FleetSchedule, engine: Engine, console: Console) -> None:
    """Runs a schedule, and shows it."""
    told: set[str] = set()
    if engine.told:
        console.print(engine.told, markup=False, soft_wrap=True)

    def show(schedule: FleetSchedule) -> None:
        if live is not None:
            live.update(live_table(schedule))
            return
        for record in schedule.records.values():
            line = _news(record)
            if line and line not in told:
                told.add(line)
                console.print(line, markup=False, soft_wrap=True)

    with Live(console=console, refresh_per_second=2) if console.is_terminal else nullcontext() as live:
        schedule.run(engine, show)


def _news(record: StepRecord) -> str:
    called = f"{record.step.subject}, {record.step.name}"
    if not record.over and record.retried:
        return f"{called}: tried again, time {len(record.retried)} ({record.retried[-1]})"
    if record.state == "done" and record.mark is not None:
        return f"{called}: done in {record.mark.seconds:.1f} s on {record.mark.node}"
    if record.state == "failed" and record.mark is not None:
        return f"{called}: failed: {record.mark.reason}"
    return f"{called}: held up" if record.state == "held up" else ""
