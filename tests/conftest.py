"""Fixtures that many tests share: tiny datasets, and the folder of real data and model files where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from synthetic import make_dataset

if TYPE_CHECKING:
    from degstalk_ns.plugin.trainer import DegstalkTrainer, DegstalkTrainerConfig

# Tests fetch no models.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

# Model files for offline use, where they are; a user's own settings come first.
if (SHARED / "models").is_dir():
    os.environ.setdefault("DEGSTALK_MODELS", str(SHARED / "models"))
    os.environ.setdefault("TORCH_HOME", str(SHARED / "models" / "torch"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data (data/) and model files (models/); skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}: real data and model files are not here")
    return SHARED


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder``, filled by the first worker that wants it while the others wait."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def dataset(common: Path) -> Path:
    """A synthetic dataset of 24 frames of 64 x 64 pixels, ours. Read it only: all tests share it."""
    return made_once(common / "dataset", make_dataset)


@pytest.fixture(scope="session")
def reference_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the AD-NeRF family's scripts leave it, with DeepSpeech windows. Read it only."""
    return make_dataset(tmp_path_factory.mktemp("reference"), audio="ds", reference_style=True)


@pytest.fixture
def dataset_copy(dataset: Path, tmp_path: Path) -> Path:
    """A copy of ``dataset`` that the test may change."""
    return Path(shutil.copytree(dataset, tmp_path / "dataset"))


@pytest.fixture
def reference_copy(reference_dataset: Path, tmp_path: Path) -> Path:
    """A copy of ``reference_dataset`` that the test may change."""
    return Path(shutil.copytree(reference_dataset, tmp_path / "reference"))


@pytest.fixture(scope="session")
def trained_config(dataset: Path, common: Path) -> Path:
    """`config.yml` of a short training (past the static stage) on ``dataset``. Read it only: all tests share it."""
    folder = made_once(common / "trained", lambda folder: train_briefly(dataset, folder))
    return folder / "outputs/tiny/degstalk-fast/only/config.yml"


def train_briefly(data: Path, folder: Path, steps: int = 40) -> Path:
    """Trains in this process, without viewer; gives the run's `config.yml`."""
    trainer = brief_trainer(data, folder, steps)
    trainer.train()
    return trainer.config.get_base_dir() / "config.yml"


def brief_trainer(
    data: Path, folder: Path, steps: int = 40, resume: bool = False, method: DegstalkTrainerConfig | None = None
) -> DegstalkTrainer:
    """A trainer that is set up but has not begun: `degstalk-fast` in small, on the CPU, without viewer.

    Args:
        data: the dataset.
        folder: of the outputs.
        steps: of the whole schedule.
        resume: from the last checkpoint that a run in ``folder`` left.
        method: another method's config.
    """
    from copy import deepcopy

    from degstalk_ns.configs.methods import degstalk_fast

    config = deepcopy(method or degstalk_fast.config)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir = folder / "outputs"
    config.experiment_name, config.timestamp = "tiny", "only"
    config.vis, config.max_num_iterations, config.steps_per_eval_image = "tensorboard", steps, 10 * steps
    config.machine.device_type = "cpu"
    config.pipeline.model.avatar.face.num_points = config.pipeline.model.avatar.mouth.num_points = 500
    config.load_dir = config.get_checkpoint_dir() if resume else None
    config.save_config()
    trainer: DegstalkTrainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


DatasetMaker = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> DatasetMaker:
    """Makes another dataset: arguments of :func:`synthetic.make_dataset` after the folder."""
    return lambda **options: make_dataset(tmp_path / "made", **options)
