"""The tables of an experiment: means over subjects, spread over seeds, by protocol, beside the paper's rows.

It must not know nerfstudio, nor how numbers were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from degstalk_ns.experiment.plan import Subject, TableName, Trial, TrialState
from degstalk_ns.experiment.published import TABLE_1, TABLE_2, WHAT_DIFFERS, PublishedRow


@dataclass(frozen=True)
class Column:
    """A number of a table: its heading, the name of the metric, its format."""

    heading: str
    metric: str
    form: str


@dataclass(frozen=True)
class Protocol:
    """A way to test, with the numbers that it gives.

    Attributes:
        title: its name. leaks: what of the test frame the avatar is given, and so cannot be judged by it.
    """

    title: str
    leaks: str
    columns: tuple[Column, ...]


PROTOCOLS: Final[tuple[Protocol, ...]] = (
    Protocol(
        "Reconstruction",
        "The paper's: each held-out frame is driven by its own expression and sound and lies over its own plate, which "
        "holds the recorded hair, torso and border of the face.",
        (
            Column("PSNR", "psnr", "{:.2f}"),
            Column("LPIPS", "lpips", "{:.4f}"),
            Column("LMD", "lmd", "{:.3f}"),
            Column("SSIM", "ssim", "{:.4f}"),
            Column("PSNR face", "psnr_face", "{:.2f}"),
            Column("PSNR hair", "psnr_hair", "{:.2f}"),
            Column("error of the lips", "lips_l1", "{:.4f}"),
            Column("crack pixels at the skin's border", "cracks", "{:.1f}"),
            Column("FPS", "fps", "{:.1f}"),
        ),
    ),
    Protocol(
        "Audio-driven",
        "The mouth of each held-out frame follows its sound alone; upper face, head pose and plate are as recorded. "
        "What is heard differs: expression values of the mouth are predicted from Whisper's vectors (log-mel bands "
        "without its model), while methods driven by action units of the upper face hear the dataset's own audio "
        "features. Where expression values have no names, a trace of the recorded mouth stays.",
        (
            Column("LMD", "spoken_lmd", "{:.3f}"),
            Column("r of the opening", "spoken_r", "{:.2f}"),
            Column("its spread", "spoken_spread", "{:.2f}"),
            Column("r, sound of another moment", "shuffled_r", "{:.2f}"),
            Column("LMD, still mouth", "still_lmd", "{:.3f}"),
            Column("bleed", "bleed", "{:.3f}"),
        ),
    ),
    Protocol(
        "Plate withheld",
        "As reconstruction, but over the plate of the training frame in which the head is held most alike: hair and "
        "seam are judged too. The head's place differs by some pixels between the two, for every variant alike.",
        (
            Column("PSNR", "other_plate_psnr", "{:.2f}"),
            Column("LPIPS", "other_plate_lpips", "{:.4f}"),
            Column("SSIM", "other_plate_ssim", "{:.4f}"),
            Column("PSNR face", "other_plate_psnr_face", "{:.2f}"),
            Column("PSNR hair", "other_plate_psnr_hair", "{:.2f}"),
            Column("crack pixels at the skin's border", "other_plate_cracks", "{:.1f}"),
        ),
    ),
)
States = Mapping[Trial, TrialState]


def markdown(
    table: TableName, methods: Sequence[str], subjects: Sequence[Subject], states: States, about: Sequence[str]
) -> str:
    """The whole page.

    Args:
        methods: in the order of the rows. subjects: whose means are told.
        states: of all trials; what is not done yet is named, and the means are over what all methods have done.
        about: lines on how it was made.
    """
    lines = [f"# {_TITLES[table]}", "", *about, "", *_missing(methods, subjects, states)]
    states = comparable(methods, subjects, states)
    for protocol in PROTOCOLS:
        lines += [f"## {protocol.title}", "", protocol.leaks, ""]
        names = [None, *(subject.name for subject in subjects)] if len(subjects) > 1 else [None]
        for name in names:
            if name is not None:
                lines += ["", f"### {protocol.title}, {name}", ""]
            lines += _rows(protocol, methods, name, states)
        lines.append("")
    rows = _PUBLISHED[table]
    lines += ["## As published", "", "Not measured here. What differs:", ""]
    lines += [f"- {what}" for what in WHAT_DIFFERS]
    lines += ["", "| | PSNR | LPIPS | LMD | SSIM | training | FPS |", "|---|---|---|---|---|---|---|"]
    lines += [_published(row) for row in rows]
    return "\n".join(lines) + "\n"


def comparable(methods: Sequence[str], subjects: Sequence[Subject], states: States) -> States:
    """The trials whose means can stand beside each other: those of the seeds that every method has done on every
    subject; before there is one, those of the first seed on the subjects that every method has done; before that, all
    that are done."""
    done = {trial: state for trial, state in states.items() if state.done}

    def all_have(seed: int, subject: str) -> bool:
        return all(Trial(method, subject, seed) in done for method in methods)

    names = [subject.name for subject in subjects]
    whole = {trial.seed for trial in done if all(all_have(trial.seed, name) for name in names)}
    if whole:
        return {trial: state for trial, state in done.items() if trial.seed in whole}
    first = {trial: state for trial, state in done.items() if trial.seed == 0 and all_have(0, trial.subject)}
    return first or done


def _missing(methods: Sequence[str], subjects: Sequence[Subject], states: States) -> list[str]:
    """Lines on what is not in the table."""
    shown = comparable(methods, subjects, states)
    lines = []
    for trial, state in states.items():
        if trial not in shown:
            why = "done, but not by all methods" if state.done else "not done"
            why = f"failed: {state.failed}" if state.failed else why
            lines.append(f"- left out: {trial.method} on {trial.subject}, seed {trial.seed} ({why})")
    return [*lines, ""] if lines else []


_TITLES: Final[dict[TableName, str]] = {
    "table1": "Table 1: DEGSTalk beside its baseline",
    "table2": "Table 2: what each part of DEGSTalk is worth",
}
_PUBLISHED: Final[dict[TableName, tuple[PublishedRow, ...]]] = {"table1": TABLE_1, "table2": TABLE_2}


def _rows(protocol: Protocol, methods: Sequence[str], subject: str | None, states: States) -> list[str]:
    headings = ["", *(column.heading for column in protocol.columns)]
    if protocol is PROTOCOLS[0]:
        headings += ["training", "steps", "Gaussians"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for method in methods:
        own = {trial: state for trial, state in states.items() if trial.method == method}
        if subject is not None:
            own = {trial: state for trial, state in own.items() if trial.subject == subject}
        cells = [_told(own, column) for column in protocol.columns]
        if protocol is PROTOCOLS[0]:
            cells += [
                _number(own, lambda state: state.seconds / 60, "{:.1f} min"),
                _number(own, lambda state: float(state.steps), "{:,.0f}"),
                _number(own, lambda state: float(sum(state.gaussians.values())), "{:,.0f}"),
            ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _number(states: States, value: Callable[[TrialState], float], form: str) -> str:
    return form.format(np.mean([value(state) for state in states.values()])) if states else ""


def _told(states: States, column: Column) -> str:
    found = summary(states, column.metric)
    if found is None:
        return ""
    mean, spread = found
    told = column.form.format(mean)
    return told if spread is None else f"{told} ± {column.form.format(spread)}"


def summary(states: States, metric: str) -> tuple[float, float | None] | None:
    """Mean over subjects and seeds, and the standard deviation over seeds of the mean over subjects (None for one
    seed); None where no trial tells the metric."""
    by_seed: dict[int, list[float]] = {}
    for trial, state in states.items():
        if metric in state.metrics:
            by_seed.setdefault(trial.seed, []).append(state.metrics[metric])
    if not by_seed:
        return None
    means = [float(np.mean(values)) for values in by_seed.values()]
    return float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None


def _published(row: PublishedRow) -> str:
    fps = "" if row.fps is None else f"{row.fps:g}"
    numbers = f"{row.psnr:.2f} | {row.lpips:.4f} | {row.lmd:.3f} | {row.ssim:.4f}"
    return f"| {row.name} | {numbers} | {row.training} | {fps} |"


def as_json(table: TableName, states: States, budget: float) -> dict[str, Any]:
    """Everything that was measured, for programs."""
    return {
        "table": table,
        "budget_minutes": budget,
        "trials": [
            {
                "method": trial.method,
                "subject": trial.subject,
                "seed": trial.seed,
                "steps": state.steps,
                "training_seconds": state.seconds,
                "gaussians": state.gaussians,
                "metrics": state.metrics,
            }
            for trial, state in states.items()
        ],
        "published": [vars(row) for row in _PUBLISHED[table]],
    }
