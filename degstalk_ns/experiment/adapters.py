"""Adapter to nerfstudio: probes, trains and measures the trials of an experiment. No mathematics of its own."""

from __future__ import annotations

import gc
import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
import yaml

from degstalk_ns import __version__
from degstalk_ns.animation.frames import backdrop
from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.avatar.renderer import over_plate
from degstalk_ns.bench.adapters import TrainingRun
from degstalk_ns.bench.train import STAGES, time_stage
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.errors import UserError
from degstalk_ns.experiment.figure import chosen_rows, picture_path
from degstalk_ns.experiment.plan import Subject, Trial, TrialState
from degstalk_ns.files import write_png
from degstalk_ns.plugin.model import DegstalkModelConfig
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig

_Advance = Callable[[str], None]
PROBED_STEPS: Final[int] = 12
"""Steps of each stage that tell how long a whole run takes."""
_TRAIN: Final[str] = "from nerfstudio.scripts.train import entrypoint; entrypoint()"
_STEP: Final[re.Pattern[str]] = re.compile(r"^(\d+) \(\d+\.\d+%\)", re.MULTILINE)


def fingerprint(config: DegstalkTrainerConfig, subject: Subject, budget: float, trial: Trial) -> str:
    """Hash of everything that a trial's result depends on: method, dataset, budget, seed and version."""
    layout = Layout(subject.folder)
    files = [*(layout.transforms(name) for name in ("train", "val")), layout.face_model_npz, layout.face_model_pt]
    files += [layout.action_units, layout.audio, *sorted(subject.folder.glob("aud_*.npy"))]
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    told = (yaml.dump(config), stamps, budget, trial.method, trial.seed, __version__)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def probed(config: DegstalkTrainerConfig, subject: Subject, advance: _Advance) -> float:
    """Mean seconds of a training step over a whole schedule, from some steps of each of its stages."""
    assert isinstance(config.pipeline.model, DegstalkModelConfig)
    at = config.pipeline.model.schedule
    ends = (at.static_end, at.perceptual_start, at.motion_end, at.fuse_perceptual_start, 1.0)
    total, before = 0.0, 0.0
    run = TrainingRun(subject.folder, None, config)
    try:
        for stage, end in zip(STAGES, ends, strict=True):
            share = max(min(end, 1.0) - before, 0.0)
            before += share
            if share > 0:
                advance(f"{config.method_name} on {subject.name}: how long a step of the {stage} stage takes")
                total += share * time_stage(run, stage, PROBED_STEPS)[0].median
    finally:
        run.close()
    return total


def trained(trial: Trial, subject: Subject, state: TrialState, folder: Path, advance: _Advance) -> TrialState:
    """Trains a trial in a process of its own, from where its last checkpoint is; the state is saved as it goes.

    Raises:
        UserError: the training failed; its log tells.
        KeyboardInterrupt: as given by the user; what was trained is kept.
    """
    run = run_folder(trial, folder)
    checkpoints = run / "nerfstudio_models"
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
        try:
            while child.poll() is None:
                advance(f"{_called(trial)}: step {_last_step(log, begin)} of {state.steps}")
                time.sleep(1.0)
        except BaseException:
            child.terminate()
            child.wait()
            state.after(time.perf_counter() - start, trained=False).save(folder)
            raise
    state = state.after(time.perf_counter() - start, trained=child.returncode == 0)
    state.save(folder)
    if child.returncode:
        raise UserError(f"{log}: the training of {trial.method} on {trial.subject} ended with: {_last_line(log)}")
    return state


_RUN: Final[str] = "run"


def run_folder(trial: Trial, folder: Path) -> Path:
    """Folder of the trial's nerfstudio run."""
    return folder / _RUN / trial.method / _RUN


def cleared(folder: Path) -> None:
    """Removes what an earlier trial of another config left there."""
    for old in (folder / _RUN, folder / "frames"):
        shutil.rmtree(old, ignore_errors=True)


def measured(trial: Trial, state: TrialState, folder: Path, advance: _Advance) -> TrialState:
    """Evaluates a trained trial and keeps its pictures of the chosen frames; the state is saved."""
    advance(f"{_called(trial)}: measuring")
    run = load_run(run_folder(trial, folder) / "config.yml")
    run.pipeline.config.measure_driving, run.pipeline.config.measure_training_frames = False, 0
    metrics = run.pipeline.get_average_eval_image_metrics()
    _keep_pictures(run, folder)
    gaussians = {str(name): len(run.model.avatar.region(name)) for name in REGIONS}
    state = TrialState(state.fingerprint, state.steps, state.seconds, True, metrics, gaussians)
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
