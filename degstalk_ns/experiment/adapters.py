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
from dataclasses import replace
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
from degstalk_ns.bench.adapters import TrainingRun
from degstalk_ns.bench.train import STAGES, time_stage
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.experiment.figure import chosen_rows, picture_path
from degstalk_ns.experiment.plan import Subject, Trial, TrialState, steps_within
from degstalk_ns.files import write_bytes, write_png
from degstalk_ns.metrics.lips_and_eyes import lmd_availability
from degstalk_ns.metrics.lpips import prepare_lpips
from degstalk_ns.plugin.model import DegstalkModelConfig
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig

_Advance = Callable[[str], None]
MOUTH_GAUSSIANS: Final[int] = 1_000
"""Gaussians that a mouth interior ends with, about."""
PROBED_STEPS: Final[int] = 12
"""Steps of each stage that tell how long a whole run takes."""
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


def probed(config: DegstalkTrainerConfig, subject: Subject, advance: _Advance) -> float:
    """Mean seconds of a training step over a whole schedule, from some steps of each of its stages, each with as many
    Gaussians as the method has then at most."""
    model = config.pipeline.model
    assert isinstance(model, DegstalkModelConfig)
    at = model.schedule
    ends = (at.static_end, at.perceptual_start, at.motion_end, at.fuse_perceptual_start, 1.0)
    start = model.avatar.face.num_points + model.avatar.mouth.num_points
    most = max(model.face_growth.max_gaussians or start, 1) + MOUTH_GAUSSIANS
    total, before = 0.0, 0.0
    run = TrainingRun(subject.folder, None, config)
    try:
        for stage, end in zip(STAGES, ends, strict=True):
            share = max(min(end, 1.0) - before, 0.0)
            before += share
            if share > 0:
                advance(f"{config.method_name} on {subject.name}: how long a step of the {stage} stage takes")
                run.resize(start if stage == "static" else most, None)
                total += share * time_stage(run, stage, PROBED_STEPS)[0].median
    finally:
        run.close()
    return total


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
        seconds = probed(config, subject, advance)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"fingerprint": mark, "seconds_a_step": seconds}).encode())
    return steps_within(budget, seconds, method)


def check_frames(subject: Subject, recording: Recording) -> None:
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
    run = run_folder(trial, folder)
    checkpoints = run / "nerfstudio_models"
    last = checkpoints / f"step-{state.steps - 1:09d}.ckpt"
    if last.exists():  # it came to its end, and nobody was there to write it down
        state = state.after(0.0, trained=True)
        state.save(folder)
        return state
    _refuse_twice(folder)
    options = {
        "data": subject.folder.absolute(),
        "output-dir": folder.absolute(),
        "experiment-name": _RUN,
        "timestamp": _RUN,
        "max-num-iterations": state.steps,
        "steps-per-save": max(state.steps // 8, 100),
        "steps-per-eval-image": 10 * state.steps,
        "length.most": 1.0,
        "machine.seed": trial.seed,
        "pipeline.model.seed": trial.seed,
        "vis": "tensorboard",
    }
    if any(checkpoints.glob("*.ckpt")):
        options["load-dir"] = checkpoints.absolute()
    command = [sys.executable, "-c", _TRAIN, trial.method, *(f"--{name}={value}" for name, value in options.items())]
    folder.mkdir(parents=True, exist_ok=True)
    log, start = folder / "training.log", time.perf_counter()
    with log.open("ab") as handle:
        handle.seek(0, 2)
        begin = handle.tell()
        child = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        (folder / _PROCESS).write_text(str(child.pid))
        try:
            while child.poll() is None:
                advance(f"{_called(trial)}: step {_last_step(log, begin)} of {state.steps}")
                time.sleep(1.0)
        except BaseException:
            child.terminate()
            child.wait()
            state.after(time.perf_counter() - start, trained=False).save(folder)
            raise
    # A training that was interrupted on its own ends with code 0 too.
    state = state.after(time.perf_counter() - start, trained=last.exists())
    state.save(folder)
    if not state.trained:
        raise UserError(f"{log}: the training of {trial.method} on {trial.subject} ended with: {_last_line(log)}")
    return state


_RUN: Final[str] = "run"
_PROCESS: Final[str] = "training.pid"


def _refuse_twice(folder: Path) -> None:
    """Refuse to train a trial that another process is training."""
    try:
        process = psutil.Process(int((folder / _PROCESS).read_text()))
        busy = process.is_running() and any(_TRAIN in word for word in process.cmdline())
    except (OSError, ValueError, psutil.Error):
        return
    if busy:
        raise UserError(f"{folder}: is being trained by process {process.pid}; wait for it or end it")


def run_folder(trial: Trial, folder: Path) -> Path:
    """Folder of the trial's nerfstudio run."""
    return folder / _RUN / trial.method / _RUN


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
    run = load_run(run_folder(trial, folder) / "config.yml", subject.folder.absolute())
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
        other = torch.from_numpy(model.frames.plate(model.frames.alike(row), freed=True)).to(model.device)
        for kind, plate in (("own", backdrop(model, view, row)), ("other", other)):
            path = picture_path(folder, row, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, over_plate(regions, plate).cpu().numpy())


def _called(trial: Trial) -> str:
    return f"{trial.method} on {trial.subject}, seed {trial.seed}"


def _last_step(log: Path, begin: int) -> int:
    with log.open("rb") as handle:
        handle.seek(max(begin, handle.seek(0, 2) - 4096))
        found = _STEP.findall(handle.read().decode(errors="replace"))
    return int(found[-1]) if found else 0


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was said"
