"""What an experiment consists of: trials, each a method on a subject with a seed, and what is known of each so far.

It must not know nerfstudio, nor how a trial is trained or measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from degstalk_ns.dataparsers.layout import require_dataset_folder
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes

TableName = Literal["table1", "table2"]
METHODS: Final[dict[TableName, tuple[str, ...]]] = {
    "table1": ("talking-gaussian", "degstalk"),
    "table2": ("degstalk-au", "degstalk-no-fuse", "degstalk-no-embedding", "degstalk-no-hair", "degstalk"),
}
"""The methods of each of the paper's tables, in its order; the whole method is the last."""
LEAST_STEPS: Final[int] = 300
"""Steps below which a run is nothing but a start: its stages would have a few dozen steps each."""
MOST_SEEDS: Final[int] = 100


@dataclass(frozen=True)
class Subject:
    """A dataset by the name of its folder."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Trial:
    """One training: ``method`` on ``subject`` with ``seed``."""

    method: str
    subject: str
    seed: int

    def folder(self, root: Path) -> Path:
        """Where it is kept."""
        return root / self.subject / self.method / f"seed{self.seed}"


@dataclass(frozen=True)
class TrialState:
    """What is known of a trial; its file is rewritten whole.

    Attributes:
        fingerprint: of the method's config, the dataset and the budget; another one starts the trial anew.
        steps: length of its schedule.
        seconds: of training so far, over all sittings.
        trained: whether the training has come to its end.
        metrics: of the evaluation; empty before.
        gaussians: of face and mouth, at the end.
        measured_with: what the metrics were measured with; anything else measures the trial again.
        failed: why the training or the evaluation failed, one line; it is tried again by the next call.
    """

    fingerprint: str
    steps: int
    seconds: float = 0.0
    trained: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    gaussians: dict[str, int] = field(default_factory=dict)
    measured_with: str = ""
    failed: str = ""

    @property
    def done(self) -> bool:
        return bool(self.metrics)

    def save(self, folder: Path) -> None:
        """Writes the state, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / _FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path, fingerprint: str) -> TrialState | None:
        """The state of a trial with this fingerprint; None where there is none, or one of another."""
        try:
            content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            state = TrialState(**content)
        except (OSError, ValueError, TypeError):
            return None
        return state if state.fingerprint == fingerprint else None

    def after(self, seconds: float, trained: bool) -> TrialState:
        """The state after another sitting of training."""
        return replace(self, seconds=self.seconds + seconds, trained=trained, failed="")


_FILE: Final[str] = "trial.json"


def subjects_of(folders: Sequence[Path]) -> list[Subject]:
    """Each dataset with its name.

    Raises:
        UserError: no dataset, one that is not there, or two of one name.
    """
    if not folders:
        raise UserError("no dataset given: say where they are with --data FOLDER [FOLDER ...]")
    found: dict[str, Path] = {}
    for folder in folders:
        require_dataset_folder(folder)
        name = folder.resolve().name
        if name in found:
            raise UserError(
                f"{found[name]} and {folder} are both called {name}; rename one, for the tables tell them apart"
            )
        found[name] = folder
    return [Subject(name, folder) for name, folder in found.items()]


def trials_of(methods: Sequence[str], subjects: Sequence[Subject], seeds: int) -> list[Trial]:
    """All trials: every subject with every method once, then the further seeds, so that a table stands early.

    Raises:
        UserError: a number of seeds that cannot be meant.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"--seeds: expected 1 to {MOST_SEEDS}, got {seeds}")
    return [Trial(method, subject.name, seed) for seed in range(seeds) for subject in subjects for method in methods]


def trials_folder(output: Path, budget_minutes: float) -> Path:
    """Folder of all trials of one budget; both tables share them."""
    return output / "trials" / f"{budget_minutes:g} minutes"


def steps_within(budget_minutes: float, seconds_a_step: float, method: str) -> int:
    """Steps of a schedule that take ``budget_minutes``.

    Raises:
        UserError: too few to train anything, or a budget that is no time.
    """
    if not 0 < budget_minutes < 1e6:
        raise UserError(f"--budget: expected minutes of training for each trial, got {budget_minutes:g}")
    steps = int(budget_minutes * 60 / seconds_a_step)
    if steps < LEAST_STEPS:
        needed = LEAST_STEPS * seconds_a_step / 60
        raise UserError(
            f"--budget {budget_minutes:g}: enough for {steps} steps of {method} at {seconds_a_step * 1e3:.0f} ms; give "
            f"at least {needed:.1f} minutes ({LEAST_STEPS} steps)"
        )
    return steps
