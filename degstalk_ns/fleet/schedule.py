"""Runs all steps of a manifest on an engine: what is done stays, what a machine has failed is tried again, and what was
refused holds up only what depends on it.

It must not know what an engine is made of, nor how the state is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from degstalk_ns.fleet.engines.engine import Engine
from degstalk_ns.fleet.steps import FleetStep
from degstalk_ns.fleet.store import StepMark, StepProgress, Store

StepState = Literal["waiting", "running", "done", "kept", "failed", "held up"]
_PATIENCE: Final[float] = 1.0
"""Seconds between two looks at the progress of what runs."""


@dataclass
class StepRecord:
    """What has become of a step in this call.

    Attributes:
        tries: how often it was started. retried: why, each time but the last.
        stale: what an earlier try has left said.
    """

    step: FleetStep
    state: StepState = "waiting"
    tries: int = 0
    retried: list[str] = field(default_factory=list)
    mark: StepMark | None = None
    progress: StepProgress | None = None
    stale: StepProgress | None = None
    started: float = 0.0

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def whole(self) -> bool:
        return self.state in ("done", "kept")


@dataclass
class FleetSchedule:
    """All steps, and what has become of each.

    Args:
        steps: those of a subject in an order in which they can be done.
        retries: how often a step is tried again that its machine has failed.
    """

    steps: Sequence[FleetStep]
    store: Store
    retries: int
    records: dict[tuple[str, str], StepRecord] = field(init=False)

    def __post_init__(self) -> None:
        self.records = {step.key: StepRecord(step) for step in self.steps}
        for record in self.records.values():
            mark = self.store.mark(*record.step.key)
            if mark is not None and mark.done and mark.content == record.step.content:
                record.state, record.mark = "kept", mark

    @property
    def missing(self) -> list[FleetStep]:
        """What is still to be done."""
        return [record.step for record in self.records.values() if not record.over]

    @property
    def complete(self) -> bool:
        return all(record.whole for record in self.records.values())

    def run(self, engine: Engine, show: Callable[[FleetSchedule], None] = lambda _: None) -> None:
        """Until everything is over; a step begins as soon as all before it are done."""
        waiting = [record for record in self.records.values() if not record.over]
        while waiting or any(record.state == "running" for record in self.records.values()):
            still = []
            for record in waiting:
                before = [self.records[record.step.subject, name] for name in record.step.after]
                if any(other.over and not other.whole for other in before):
                    record.state = "held up"
                elif all(other.whole for other in before) and engine.has_room(record.step):
                    record.state, record.started = "running", time.monotonic()
                    record.tries += 1
                    record.stale = self.store.progress(*record.step.key)
                    engine.start(record.step)
                else:
                    still.append(record)
            waiting = still
            show(self)
            for end in engine.ended(_PATIENCE):
                record = self.records[end.key]
                self._judge(record, end.lost, end.node)
                if record.state == "waiting":
                    waiting.append(record)
            for record in self.records.values():
                if record.state == "running":
                    found = self.store.progress(*record.step.key)
                    record.progress = record.progress if found in (None, record.stale) else found
        show(self)

    def _judge(self, record: StepRecord, lost: str, node: str) -> None:
        """What to make of a step whose process has ended."""
        mark = self.store.mark(*record.step.key)
        node = node or (record.progress.node if record.progress else "")  # of a machine that is gone nothing else tells
        record.progress = None
        if mark is not None and mark.content == record.step.content and mark.done:
            record.state, record.mark = "done", mark
            return
        if mark is None:
            mark = StepMark(record.step.content, False, lost or "its process ended without a word", False, 0.0, node)
        record.mark = mark
        if mark.refused or record.tries > self.retries:
            record.state = "failed"
            return
        where = mark.node or node
        record.retried.append(f"{where}: {lost or mark.reason}" if where else lost or mark.reason)
        record.state = "waiting"
