"""The steps of a manifest: what each runs, what it waits for, and the hash of all that its result depends on.

The commands are those that a person would type. It must not know where or when a step runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from degstalk_ns import __version__
from degstalk_ns.fleet.manifest import FleetSubject, Manifest, Need, Trials
from degstalk_ns.fleet.store import input_content

StepKind = Literal["process", "train", "evaluate", "render", "trial"]
RUN = "run"
"""Name of the experiment and the time of every training, which is told apart by its folder."""
METRICS, PICTURES = "metrics.json", "pictures"


@dataclass(frozen=True)
class FleetStep:
    """One idempotent step of one subject.

    Attributes:
        name: unique for its subject, and the name of its folder.
        after: names of the steps of this subject that must be done before.
        content: hash of its inputs, its options and this version; with another one it is made again.
    """

    subject: str
    kind: StepKind
    name: str
    need: Need
    content: str
    after: tuple[str, ...] = ()
    method: str = ""
    seed: int = 0
    sound: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.name


def steps_of(manifest: Manifest, known: dict[str, Any] | None = None) -> list[FleetStep]:
    """All steps, those of a subject in an order in which they can be done.

    Args:
        known: hashes of inputs, as :func:`~degstalk_ns.fleet.store.input_content` keeps them.

    Raises:
        UserError: an input cannot be read.
    """
    known = {} if known is None else known
    return [step for subject in manifest.subjects for step in steps_of_subject(manifest, subject, known)]


def steps_of_subject(manifest: Manifest, subject: FleetSubject, known: dict[str, Any]) -> Iterator[FleetStep]:
    """Those of one of its subjects; see :func:`steps_of`."""
    needs, training = manifest.needs, manifest.training
    before = () if subject.dataset is not None else ("process",)
    if subject.dataset is not None:
        data = input_content(subject.dataset, known)
    else:
        source = input_content(subject.video, known) if subject.video is not None else repr(subject.drawn)
        data = _content("process", source, subject.process)
        yield FleetStep(subject.name, "process", "process", needs.process, data)
    if manifest.trials is not None:
        yield from _trials(manifest.trials, subject.name, data, before, needs.train)
    if training is None:
        return
    heard = {sound.name: input_content(sound.path, known) for sound in manifest.sounds}
    for method in training.methods:
        for seed in training.seeds:
            run = f"{method}.seed{seed}"
            trained = _content("train", data, method, seed, training.options)
            train = FleetStep(
                subject.name, "train", f"train.{run}", needs.train, trained, before, method=method, seed=seed
            )
            yield train
            after = (*before, train.name)
            if manifest.evaluate:
                content = _content("evaluate", trained)
                yield FleetStep(
                    subject.name, "evaluate", f"evaluate.{run}", needs.evaluate, content, after, method, seed
                )
            for name, sound in heard.items():
                content = _content("render", trained, sound, manifest.render)
                yield FleetStep(
                    subject.name, "render", f"render.{run}.{name}", needs.render, content, after, method, seed, name
                )


def _trials(trials: Trials, subject: str, data: str, before: tuple[str, ...], need: Need) -> Iterator[FleetStep]:
    """Each method with each seed; the first seed of a method tells the others how long a step takes."""
    for method in trials.methods:
        for seed in range(trials.seeds):
            content = _content("trial", data, method, seed, trials.budget, trials.schedule)
            after = before if seed == 0 else (*before, f"trial.{method}.seed0")
            yield FleetStep(subject, "trial", f"trial.{method}.seed{seed}", need, content, after, method, seed)


def _content(*parts: object) -> str:
    return hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()


def step_command(
    step: FleetStep, manifest: Manifest, folder: Callable[[str], Path], fetched: Callable[[str], Path]
) -> list[str]:
    """The command of a step, to be given again where it was interrupted.

    Args:
        folder: of a step of the same subject, by its name.
        fetched: an input as a path of this machine.
    """
    subject = next(subject for subject in manifest.subjects if subject.name == step.subject)
    own = folder(step.name)
    if step.kind == "process":
        return _process_command(subject, folder("process") / "dataset", fetched)
    dataset = folder("process") / "dataset" if subject.dataset is None else fetched(subject.dataset)
    if step.kind == "trial":
        assert manifest.trials is not None
        trials = manifest.trials
        return [
            *("degstalk", "experiment", trials.table, "--data", str(dataset), "--budget", f"{trials.budget:g}"),
            *("--seeds", str(trials.seeds), "--output", trials.folder, "--schedule", trials.schedule),
            *("--only", f"{step.method}:{step.seed}"),
        ]
    if step.kind == "train":
        assert manifest.training is not None
        command = [
            *("ns-train", step.method, "--data", str(dataset), "--output-dir", str(own)),
            *("--experiment-name", RUN, "--timestamp", RUN, "--vis", "tensorboard"),
            *("--machine.seed", str(step.seed), "--pipeline.model.seed", str(step.seed)),
            *manifest.training.options,
        ]
        saved = trained_config(own, step.method).parent / "nerfstudio_models"
        return [*command, "--load-dir", str(saved)] if any(saved.glob("*.ckpt")) else command
    config = trained_config(folder(f"train.{step.method}.seed{step.seed}"), step.method)
    if step.kind == "evaluate":
        return [
            *("ns-eval", "--load-config", str(config), "--output-path", str(own / METRICS)),
            *("--render-output-path", str(own / PICTURES)),
        ]
    (sound,) = (sound for sound in manifest.sounds if sound.name == step.sound)
    return [
        *("degstalk", "render", "--load-config", str(config), "--data", str(dataset)),
        *("--audio", str(fetched(sound.path)), "--output", str(own / f"{step.sound}.mp4"), "--overwrite"),
        *manifest.render,
    ]


def _process_command(subject: FleetSubject, dataset: Path, fetched: Callable[[str], Path]) -> list[str]:
    if subject.drawn is not None:
        drawn = subject.drawn
        size = ("--seed", str(drawn.seed), "--size", str(drawn.size), "--seconds", f"{drawn.seconds:g}")
        return ["degstalk", "sample", str(dataset), *size, "--overwrite", *subject.process]
    assert subject.video is not None
    return ["degstalk", "process", str(fetched(subject.video)), str(dataset), *subject.process]


def trained_config(folder: Path, method: str) -> Path:
    """config.yml of the training in the folder of its step."""
    return folder / RUN / method / RUN / "config.yml"
