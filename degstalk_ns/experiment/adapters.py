"""Adapter to nerfstudio: probes, trains and measures the trials of an experiment. No mathematics of its own."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil
import torch
import yaml

from degstalk_ns import __version__
from degstalk_ns.animation.frames import backdrop
from degstalk_ns.audio.whisper import whisper_availability
from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.avatar.renderer import over_plate
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.experiment.figure import chosen_rows, picture_path
from degstalk_ns.experiment.plan import Subject, Trial, TrialState, steps_within
from degstalk_ns.files import write_bytes, write_png
from degstalk_ns.metrics.lips_and_eyes import lmd_availability
from degstalk_ns.metrics.lpips import prepare_lpips
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig

_Advance = Callable[[str], None]
PROBED_STEPS: Final[int] = 300
"""Length of the training that tells how long a step takes."""
CHECKPOINTS: Final[int] = 8
"""How often a training is saved, so that an interruption costs an eighth of it at most."""
_TRAIN: Final[str] = "from nerfstudio.scripts.train import entrypoint; entrypoint()"
_STEP: Final[re.Pattern[str]] = re.compile(r"^(\d+) \(\d+\.\d+%\)", re.MULTILINE)


def fingerprint(config: DegstalkTrainerConfig, subject: Subject, budget: float, seed: int | None = None) -> str:
    """Hash of what a training depends on: method, dataset (sizes and times of its files), budget, seed, version, and
    whether its perceptual losses can be had."""
    layout = Layout(subject.folder)
    files = [*(layout.transforms(name) for name in ("train", "val")), layout.face_model_npz, layout.face_model_pt]
    files += [layout.action_units, layout.audio, layout.clean_plate, *sorted(subject.folder.glob("aud_*.npy"))]
    folders = {path(0).parent for path in (layout.frame, layout.parsing, layout.teeth, layout.torso, layout.plate)}
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    for folder in sorted(folders):
        there = [entry.stat() for entry in os.scandir(folder)] if folder.is_dir() else []
        stamps.append(
            (folder.name, sum(stat.st_size for stat in there), max((s.st_mtime_ns for s in there), default=0))
        )
    told = (yaml.dump(config), stamps, budget, seed, __version__, prepare_lpips() is None)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def measured_with() -> str:
    """What measures can be had here, in words: a trial that was measured with fewer is measured again."""
    reasons = {"LPIPS": prepare_lpips(), "landmarks": lmd_availability(), "Whisper": whisper_availability()}
    return ", ".join(name for name, reason in reasons.items() if reason is None)


def probed(config: DegstalkTrainerConfig, subject: Subject, folder: Path, advance: _Advance) -> float:
    """Mean seconds of a training step, from a whole training of :data:`PROBED_STEPS` steps in a process of its own: its
    stages, the growth of its Gaussians and the reading of frames are those of a long one in small.

    Raises:
        UserError: the training failed; its log tells.
    """
    method, pilot = str(config.method_name), folder / "probe"
    refuse_twice(pilot)
    shutil.rmtree(pilot, ignore_errors=True)
    ended = _train(
        method, subject, PROBED_STEPS, 0, pilot, advance, f"{method} on {subject.name}: how long a step takes"
    )
    if ended.code or not ended.stepping:
        raise UserError(f"{pilot / _LOG}: a short training of {method} on {subject.name} ended with: {ended.said}")
    shutil.rmtree(pilot)
    return ended.stepping / PROBED_STEPS


def steps_for(config: DegstalkTrainerConfig, subject: Subject, budget: float, root: Path, advance: _Advance) -> int:
    """Steps of a method's schedule on a subject that take ``budget`` minutes; probed once and kept for all seeds.

    Raises:
        UserError: too few to train anything.
    """
    method = str(config.method_name)
    path = root / subject.name / method / "probe.json"
    mark = fingerprint(config, subject, budget)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seconds = float(content["seconds_a_step"]) if content["fingerprint"] == mark else None
    except (OSError, ValueError, TypeError, KeyError):
        seconds = None
    if seconds is None:
        seconds = probed(config, subject, path.parent, advance)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"fingerprint": mark, "seconds_a_step": seconds}).encode())
    return steps_within(budget, seconds, method)


def check_frames(recording: Recording) -> None:
    """Reads what training and measuring need of the first and the last frame.

    Raises:
        UserError: something is missing.
    """
    for table in (recording.train, recording.val):
        for image in (table.img_ids[0], table.img_ids[-1]):
            frame = read_frame(recording, int(image))
            if recording.options.hair_in_head:
                frame.bare_plate  # noqa: B018 (made of the torso image and the clean plate)


def trained(trial: Trial, subject: Subject, state: TrialState, folder: Path, advance: _Advance) -> TrialState:
    """Trains a trial in a process of its own, from where its last checkpoint is; the state is saved as it goes.

    Raises:
        UserError: the training failed; its log tells.
        KeyboardInterrupt: as given by the user; what was trained is kept.
    """
    last = checkpoint_folder(trial.method, folder) / f"step-{state.steps - 1:09d}.ckpt"
    if last.exists():  # it came to its end, and nobody was there to write it down
        state = state.after(0.0, trained=True)
        state.save(folder)
        return state
    refuse_twice(folder)
    text = f"{_called(trial)}: step {{}} of {state.steps}"
    start = time.perf_counter()
    try:
        ended = _train(trial.method, subject, state.steps, trial.seed, folder, advance, text)
    except BaseException:
        state.after(time.perf_counter() - start, trained=False).save(folder)
        raise
    # A training that was interrupted on its own ends with code 0 too.
    state = state.after(time.perf_counter() - start, trained=last.exists())
    state.save(folder)
    if not state.trained:
        raise UserError(f"{folder / _LOG}: the training of {trial.method} on {trial.subject} ended with: {ended.said}")
    return state


@dataclass(frozen=True)
class _Ended:
    """How a training process ended: its exit code, the seconds from its first step on, the last line it said."""

    code: int
    stepping: float
    said: str


def _train(method: str, subject: Subject, steps: int, seed: int, folder: Path, advance: _Advance, text: str) -> _Ended:
    """Trains in a process of its own, from the last checkpoint in ``folder`` on. ``text`` says what, with the step for
    its braces. A KeyboardInterrupt ends the process too."""
    checkpoints = checkpoint_folder(method, folder)
    options = {
        "data": subject.folder.absolute(),
        "output-dir": folder.absolute(),
        "experiment-name": _RUN,
        "timestamp": _RUN,
        "max-num-iterations": steps,
        "steps-per-save": max(steps // CHECKPOINTS, 100),
        "steps-per-eval-image": 10 * steps,
        "length.most": 1.0,
        "machine.seed": seed,
        "pipeline.model.seed": seed,
        "vis": "tensorboard",
    }
    if any(checkpoints.glob("*.ckpt")):
        options["load-dir"] = checkpoints.absolute()
    command = [sys.executable, "-c", _TRAIN, method, *(f"--{name}={value}" for name, value in options.items())]
    folder.mkdir(parents=True, exist_ok=True)
    log, first = folder / _LOG, 0.0
    with log.open("ab") as handle:
        begin = handle.seek(0, 2)
        child = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        (folder / _PROCESS).write_text(str(child.pid))
        try:
            while child.poll() is None:
                step = _last_step(log, begin)
                if step is not None and not first:
                    first = time.perf_counter()
                advance(text.format(step or 0))
                time.sleep(_POLL)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    return _Ended(child.returncode, time.perf_counter() - first if first else 0.0, _last_line(log))


_RUN: Final[str] = "run"
_LOG: Final[str] = "training.log"
_PROCESS: Final[str] = "training.pid"
_POLL: Final[float] = 0.5


def refuse_twice(folder: Path) -> None:
    """Refuse to train, or to clear, a trial that another process is training.

    Raises:
        UserError: as said.
    """
    try:
        process = psutil.Process(int((folder / _PROCESS).read_text()))
        busy = process.is_running() and any(_TRAIN in word for word in process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return
    if busy:
        raise UserError(f"{folder}: is being trained by process {process.pid}; wait for it or end it")


def run_folder(method: str, folder: Path) -> Path:
    """Folder of the nerfstudio run of a trial that is kept in ``folder``."""
    return folder / _RUN / method / _RUN


def checkpoint_folder(method: str, folder: Path) -> Path:
    """Folder of its checkpoints."""
    return run_folder(method, folder) / "nerfstudio_models"


def cleared(folder: Path) -> None:
    """Removes what an earlier trial of another config left there."""
    for old in (folder / _RUN, folder / "frames"):
        try:
            shutil.rmtree(old)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{old}: cannot be removed ({error.strerror}); remove it") from None


def measured(trial: Trial, subject: Subject, state: TrialState, folder: Path, advance: _Advance) -> TrialState:
    """Evaluates a trained trial and keeps its pictures of the chosen frames; the state is saved."""
    advance(f"{_called(trial)}: measuring")
    run = load_run(run_folder(trial.method, folder) / "config.yml", subject.folder.absolute())
    run.pipeline.config.measure_driving, run.pipeline.config.measure_training_frames = False, 0
    metrics = run.pipeline.get_average_eval_image_metrics()
    _keep_pictures(run, folder)
    gaussians = {str(name): len(run.model.avatar.region(name)) for name in REGIONS}
    state = replace(state, metrics=metrics, gaussians=gaussians, measured_with=measured_with(), failed="")
    state.save(folder)
    del run
    gc.collect()
    return state


@torch.no_grad()
def _keep_pictures(run: TrainedAvatar, folder: Path) -> None:
    model = run.model
    model.eval()
    for row in chosen_rows(run.recording):
        view = model.frames.view(row).to(model.device)
        regions = model.regions(view, model.conditions(row))
        plates = {"own": backdrop(model, view, row)}
        # Where the dataset holds none, the evaluation has said so, and the figure leaves the picture grey.
        with suppress(UserError):
            plates["other"] = torch.from_numpy(model.frames.other_plate(row)).to(model.device)
        for kind, plate in plates.items():
            path = picture_path(folder, row, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, over_plate(regions, plate).cpu().numpy())


def _called(trial: Trial) -> str:
    return f"{trial.method} on {trial.subject}, seed {trial.seed}"


def _last_step(log: Path, begin: int) -> int | None:
    with log.open("rb") as handle:
        handle.seek(max(begin, handle.seek(0, 2) - 4096))
        found = _STEP.findall(handle.read().decode(errors="replace"))
    return int(found[-1]) if found else None


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said"
