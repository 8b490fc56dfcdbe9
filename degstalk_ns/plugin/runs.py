"""Adapter to nerfstudio's runs: loads a trained avatar from the `config.yml` of its run, ready to render.

nerfstudio's own `eval_setup` imports every method there is, looks for relative folders in the current one, and prints;
here the same steps are taken one by one and each ends in one clear line. No mathematics of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from degstalk_ns.animation.frames import Portrait
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError, errors_caught_outside
from degstalk_ns.plugin.config_file import read_config_file
from degstalk_ns.plugin.datamanager import TalkingHeadDataManagerConfig
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.pipeline import DegstalkPipeline, DegstalkPipelineConfig
from degstalk_ns.reading.checkpoints import newest_checkpoint, read_training_state

_EXPECTED = "expected the config.yml of a run of degstalk, for example outputs/me/degstalk-fast/<time>/config.yml"


@dataclass(frozen=True)
class TrainedAvatar:
    """The trained avatar of a run.

    Attributes:
        config: of the run; its paths are resolved.
        pipeline: in evaluation mode, on the GPU if there is one.
        checkpoint: file of the weights.
        step: training step at which they were saved.
        passed_over: later checkpoints that are torn, one line each.
    """

    config: TrainerConfig
    pipeline: DegstalkPipeline
    checkpoint: Path
    step: int
    passed_over: tuple[str, ...] = ()

    @property
    def model(self) -> DegstalkModel:
        model = self.pipeline.model
        assert isinstance(model, DegstalkModel)
        return model

    @property
    def recording(self) -> Recording:
        """The dataset it was trained on."""
        return self.model.recording

    @property
    def portrait(self) -> Portrait:
        """Renders the avatar."""
        return self.model

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the run and its dataset for the user, one line each."""
        return self.passed_over + self.recording.notes

    @property
    def name(self) -> str:
        """Name of the checkpoint, without any folder of this machine: ``me/degstalk-fast/<time>, step 6999``."""
        parts = (self.config.experiment_name, self.config.method_name, self.config.timestamp)
        return f"{'/'.join(str(part) for part in parts if part)}, step {self.step}"

    def fingerprint(self) -> str:
        """Hash of everything that the frames depend on: weights, settings of the model, and the time of the dataset."""
        digest = hashlib.sha256(self.checkpoint.read_bytes())
        layout = self.recording.layout
        made = [layout.transforms(split).stat().st_mtime_ns for split in ("train", "val")]
        digest.update(str((self.config.pipeline, layout.root.resolve(), made)).encode())
        return digest.hexdigest()


def load_run(config: Path | str, data: Path | str | None = None) -> TrainedAvatar:
    """Loads the trained avatar of a run.

    The checkpoint is looked for beside the config, and a relative dataset folder in the folder that the run was started
    in, so the command need not be given there. Options that the config lacks, or that no longer exist, are named on
    nerfstudio's console; what there is to say of the dataset is in :attr:`TrainedAvatar.notes`.

    Args:
        config: ``outputs/.../config.yml``.
        data: folder of the dataset, where it is no longer where the training found it.

    Raises:
        UserError: no such file, not a config of ours, one by an earlier version, no checkpoint or one that does not
            fit, or the dataset is not where it was or cannot be read.
    """
    path = Path(config)
    run = _read_config(path)
    folder = _dataset_folder(run, path, None if data is None else Path(data))
    manager = run.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManagerConfig)
    run.data = manager.data = manager.dataparser.data = folder
    passed_over: list[str] = []
    checkpoint = newest_checkpoint(path.resolve().parent / run.relative_model_dir, passed_over.append)
    state = read_training_state(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with quiet_console(), errors_caught_outside():
        pipeline = run.pipeline.setup(device=device, test_mode="test")
        assert isinstance(pipeline, DegstalkPipeline)
        pipeline.eval()
        try:
            pipeline.load_pipeline(state["pipeline"], state["step"])
        except UserError as error:
            raise UserError(f"{checkpoint}: {error} ({path.name} or the dataset {folder} may have changed)") from None
    return TrainedAvatar(run, pipeline, checkpoint, int(state["step"]), tuple(passed_over))


def _read_config(path: Path) -> TrainerConfig:
    with errors_caught_outside():
        run = read_config_file(path, _EXPECTED)
    if not isinstance(run, TrainerConfig) or not isinstance(run.pipeline, DegstalkPipelineConfig):
        what = f"a config of {run.method_name}" if isinstance(run, TrainerConfig) else "not a config of nerfstudio"
        raise UserError(f"{path}: {what}; {_EXPECTED}")
    return run


def _dataset_folder(run: TrainerConfig, path: Path, data: Path | None) -> Path:
    if data is not None:
        if not Path(data).is_dir():
            raise UserError(f"--data {data}: no such dataset folder")
        return Path(data)
    manager = run.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManagerConfig)
    recorded, outputs = Path(manager.data or manager.dataparser.data), Path(run.output_dir)
    candidates = [recorded]
    if recorded.is_absolute() == outputs.is_absolute() and len(path.resolve().parents) > 3:
        # Where it lies as seen from outputs/<experiment>/<method>/<time>/config.yml: the whole project may have moved,
        # and relative folders (of configs by earlier versions) count from where the training was started.
        moved = path.resolve().parents[3] / os.path.relpath(recorded, outputs)
        candidates = [recorded, moved] if recorded.is_absolute() else [moved, recorded]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.resolve()
    raise UserError(
        f"{candidates[0]}: the dataset of this run is not there any more; say where it is with --data FOLDER"
    )


@contextmanager
def quiet_console() -> Iterator[None]:
    """Nothing of what nerfstudio says while it sets a pipeline up reaches the terminal; of the dataset's notes, which
    are silenced too, the caller knows."""
    before, CONSOLE.quiet = CONSOLE.quiet, True
    try:
        yield
    finally:
        CONSOLE.quiet = before
