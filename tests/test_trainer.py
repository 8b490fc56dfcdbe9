"""The trainer: resumed runs, checkpoints that are whole, the device, and where the viewer listens."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import brief_trainer
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer
from ordinary_rights import ordinary_rights

from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.metrics.lips_and_eyes import LipMovement
from degstalk_ns.plugin import trainer as plugin_trainer
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager
from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.plugin.trainer import DegstalkTrainer, DegstalkTrainerConfig
from degstalk_ns.training.convergence import LengthConfig
from degstalk_ns.training.densification import Densifier
from degstalk_ns.training.stages import Schedule, ScheduleConfig

STEPS = 6


@pytest.fixture(scope="module")
def trainer(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> DegstalkTrainer:
    """One that is set up; the tests share it and its folder."""
    return brief_trainer(dataset, tmp_path_factory.mktemp("trainer"), STEPS)


def _checkpoints(trainer: DegstalkTrainer) -> list[str]:
    return sorted(path.name for path in trainer.checkpoint_dir.parent.rglob("*.ckpt"))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def test_the_newest_checkpoint_and_the_one_before_are_kept(
    trainer: DegstalkTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    final = trainer.checkpoint_dir
    for step in (1, 2, 3):
        trainer.save_checkpoint(step)
    assert _checkpoints(trainer) == ["step-000000002.ckpt", "step-000000003.ckpt"]

    def half(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(SystemExit):
            trainer.save_checkpoint(4)
    assert "the checkpoint cannot be written (No space left on device)" in capsys.readouterr().err
    assert trainer.checkpoint_dir == final and not final.with_name(f"{final.name}.incomplete").exists()
    assert sorted(path.name for path in final.parent.rglob("*.ckpt")) == ["step-000000002.ckpt", "step-000000003.ckpt"]
    (final / "notes.txt").write_text("of the user")
    waited: list[str] = []  # for the disk: the file before it is moved in, and then the folder
    with monkeypatch.context() as patch:
        patch.setattr(plugin_trainer, "reach_disk", lambda path: waited.append(f"{path.name}, {len(_files(final))}"))
        trainer.save_checkpoint(4)
    assert waited == ["step-000000004.ckpt, 3", f"{final.name}, 4"]
    assert _checkpoints(trainer) == ["step-000000003.ckpt", "step-000000004.ckpt"]
    assert (final / "notes.txt").exists() and not final.with_name(f"{final.name}.incomplete").exists()
    trainer.config.save_only_latest_checkpoint = False
    trainer.save_checkpoint(5)
    assert _checkpoints(trainer)[-2:] == ["step-000000004.ckpt", "step-000000005.ckpt"]


def test_a_torn_checkpoint_is_passed_over_by_whoever_reads_the_folder(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = brief_trainer(dataset, tmp_path, STEPS)
    _let_stop(first, 4)
    first.save_checkpoint(2)
    first.train()
    folder = first.checkpoint_dir
    assert _checkpoints(first) == ["step-000000002.ckpt", "step-000000004.ckpt"]
    (folder / "step-.ckpt.part").write_text("a stray file, at which nerfstudio would stop")
    torn = folder / "step-000000004.ckpt"
    data = bytearray(torn.read_bytes())
    data[len(data) // 2] ^= 0xFF
    torn.write_bytes(bytes(data))
    capsys.readouterr()
    again = brief_trainer(dataset, tmp_path, STEPS, resume=True)
    assert again._start_step == 3 and f"{torn}: is torn and passed over" in capsys.readouterr().out.replace("\n", "")
    # What ns-eval, ns-render and ns-viewer do.
    config = yaml.load((folder.parent / "config.yml").read_text(), Loader=yaml.Loader)
    config.load_dir = config.get_checkpoint_dir()
    assert config.load_step == 2
    run = load_run(folder.parent / "config.yml")
    assert run.step == 2 and any("is torn and passed over" in note for note in run.notes)
    (folder / "step-000000002.ckpt").write_bytes(b"")
    with pytest.raises(SystemExit):
        brief_trainer(dataset, tmp_path, STEPS, resume=True)
    assert "all 2 checkpoints in it are torn" in capsys.readouterr().err


def test_a_resumed_run_is_the_same_to_the_last_bit(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = deepcopy(degstalk_fast.config)
    method.pipeline.model.schedule.growth_every = 0.2
    growth = method.pipeline.model.face_growth
    growth.gradient_threshold, growth.green_key = 2e-4, "ignore"
    growth.prune_opacity_start = growth.prune_opacity_end = 0.0

    def trained(name: str, *stops: int) -> dict[str, Any]:
        torch.manual_seed(0)  # as `ns-train` does
        for stop in stops:
            trainer = brief_trainer(dataset, tmp_path / name, 40, method=method)
            _let_stop(trainer, stop)
            trainer.train()
        trainer = brief_trainer(dataset, tmp_path / name, 40, method=method, resume=bool(stops))
        trainer.train()
        state = torch.load(trainer.checkpoint_dir / "step-000000039.ckpt", weights_only=True)["pipeline"]
        return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}

    whole, resumed = trained("whole"), trained("resumed", 12)  # between two steps of growth, which are every eighth
    assert len(whole["_model.avatar.gaussians.face.params.means"]) > 500  # it did grow
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    # The test can fail: without what was observed since the last growth, other Gaussians grow.
    monkeypatch.setattr(Densifier, "get_extra_state", lambda self: {})
    other = trained("forgetful", 12)
    assert not all(whole[name].shape == other[name].shape and torch.equal(whole[name], other[name]) for name in whole)


def test_broken_gaussians_are_removed_and_said_before_they_are_saved(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = brief_trainer(dataset, tmp_path, STEPS)
    params = trainer.pipeline.model.avatar.region("face").params
    before = len(params["means"])
    with torch.no_grad():
        params["means"][3, 1], params["opacities"][7], params["embeddings"][9, 2] = torch.nan, torch.inf, torch.nan
    trainer.save_checkpoint(0)
    assert "3 Gaussians of the face had numbers that are not finite and were removed" in capsys.readouterr().out
    assert len(params["means"]) == before - 3 and all(parameter.isfinite().all() for parameter in params.values())
    trainer.train()  # it goes on with the parameters that its optimizers hold
    assert load_run(trainer.config.get_base_dir() / "config.yml").step == STEPS - 1


def test_a_checkpoint_holds_tensors_and_plain_values_only(trained_config: Path) -> None:
    """torch reads it with its check on: no type has to be allowed for the whole process."""
    (path,) = (trained_config.parent / "nerfstudio_models").glob("*.ckpt")
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    assert set(torch.load(path, weights_only=True)) == {"step", "pipeline", "optimizers", "schedulers", "scalers"}


def test_a_resumed_run_ends_where_the_schedule_ends(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = brief_trainer(dataset, tmp_path, STEPS)
    _let_stop(first, 3)
    first.train()
    assert _checkpoints(first) == ["step-000000003.ckpt"]
    again = brief_trainer(dataset, tmp_path, STEPS, resume=True)
    again.train()
    assert _checkpoints(again)[-1] == f"step-{STEPS - 1:09d}.ckpt"
    assert again.config.max_num_iterations == STEPS
    with pytest.raises(SystemExit):
        brief_trainer(dataset, tmp_path, STEPS, resume=True).train()
    assert f"the checkpoint is at step {STEPS - 1} and the run has {STEPS} steps" in capsys.readouterr().err


def test_a_finished_run_is_not_made_longer(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief_trainer(dataset, tmp_path, STEPS).train()
    with pytest.raises(SystemExit):
        brief_trainer(dataset, tmp_path, 2 * STEPS, resume=True).train()
    said = capsys.readouterr().err
    assert f"at step {STEPS - 1} of {STEPS}, in the fuse stage" in said and "from its beginning" in said
    longer = brief_trainer(dataset, tmp_path, STEPS + 1, resume=True)  # its last step is of the same phase
    longer.train()
    assert _checkpoints(longer)[-1] == f"step-{STEPS:09d}.ckpt"


@pytest.mark.parametrize("learned", [False, True])
def test_a_run_goes_on_until_its_lips_have_learned(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], learned: bool
) -> None:
    looked: list[int] = []

    def lips(self: DegstalkPipeline, frames: int) -> LipMovement:
        looked.append(int(self.model.step))
        return LipMovement(slope=1.0 if learned else 0.5, spread=1.0, shut=1, closed=1)

    monkeypatch.setattr(DegstalkPipeline, "learned_lips", lips)
    trainer = brief_trainer(dataset, tmp_path, 10)
    trainer.config.length = LengthConfig(most=1.6, factor=1.5)
    trainer.train()
    said = capsys.readouterr().out
    # Densification ends at 4 / 7 of the run: of 10, then of 15, and of the 16 that it may have at most.
    assert looked == ([6] if learned else [6, 9])
    steps = 10 if learned else 16
    assert _checkpoints(trainer) == [f"step-{steps - 1:09d}.ckpt"]
    assert said.count("the run is extended to") == (0 if learned else 2)
    assert int(trainer.pipeline.steps) == (0 if learned else 16) and trainer.config.max_num_iterations == 10
    if not learned:
        assert "0.50 times as far as the recorded ones, and stay closed in 1 of 1 frames" in said
        again = brief_trainer(dataset, tmp_path, 10, resume=True)  # resumed, it knows how long it is to be
        with pytest.raises(SystemExit):
            again.train()
        assert "the checkpoint is at step 15 and the run has 16 steps" in capsys.readouterr().err


def test_an_extended_run_that_was_stopped_goes_on_to_its_end(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = LipMovement(slope=0.2, spread=1.0, shut=0, closed=0)
    monkeypatch.setattr(DegstalkPipeline, "learned_lips", lambda self, frames: slow)
    trainer = brief_trainer(dataset, tmp_path, 10)
    trainer.config.length = LengthConfig(most=1.2)
    _let_stop(trainer, 8)
    trainer.train()
    assert _checkpoints(trainer) == ["step-000000008.ckpt"]  # the last one that was trained
    again = brief_trainer(dataset, tmp_path, 10, resume=True)
    again.train()
    assert _checkpoints(again)[-1] == "step-000000011.ckpt"
    schedules = again.pipeline.model.schedule, again.pipeline.datamanager._schedule
    assert [schedule.total for schedule in schedules if schedule is not None] == [12, 12]


def test_a_run_whose_lips_cannot_be_looked_at_keeps_its_length_and_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DegstalkPipeline, "learned_lips", lambda self, frames: "no model of faces")
    trainer = brief_trainer(dataset, tmp_path, 10)
    trainer.config.length = LengthConfig(most=2.0)
    trainer.train()
    assert _checkpoints(trainer) == ["step-000000009.ckpt"]
    assert "note: whether the run is long enough is not looked at: no model of faces" in capsys.readouterr().out


def _stop_after(trainer: DegstalkTrainer, last: int, step: int) -> None:
    if step == last:
        trainer.stop_training = True


def _let_stop(trainer: DegstalkTrainer, step: int) -> None:
    """The training ends after ``step``, as if it were stopped there."""
    place = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
    trainer.callbacks.append(TrainingCallback(place, partial(_stop_after, trainer, step)))


def test_what_the_training_frames_do_not_show_is_said_at_the_end(
    trainer: DegstalkTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manager = trainer.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManager)
    recording = manager.recording

    def missing(opening: np.ndarray, blink: np.ndarray) -> list[str]:
        np.testing.assert_array_equal(opening, recording.mouth_opening[:21])  # of 24 frames
        np.testing.assert_array_equal(blink, recording.blink[:21])
        return ["[b] never", "also never"]

    monkeypatch.setattr(plugin_trainer, "what_is_missing", missing)
    monkeypatch.setattr(Trainer, "train", lambda self: None)
    trainer.train()
    assert capsys.readouterr().out.endswith("note: [b] never\nnote: also never\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_cpu_is_taken_and_said(trainer: DegstalkTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    config = DegstalkTrainerConfig(**vars(trainer.config))
    config.machine.device_type = "cuda"
    assert config.setup(local_rank=0, world_size=1).device == "cpu"
    assert "note: no CUDA device was found: training on the CPU" in capsys.readouterr().out
    assert config.machine.device_type == "cpu"
    config.setup(local_rank=0, world_size=1)
    assert "no CUDA device" not in capsys.readouterr().out


def test_the_command_line_is_not_looked_at_where_the_host_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("sys.argv")
    config = DegstalkTrainerConfig(method_name="degstalk", viewer=ViewerConfig(websocket_host="127.0.0.1"))
    config.viewer = ViewerConfig(websocket_host="10.0.0.7")
    assert config.viewer.websocket_host == "10.0.0.7"


def test_only_motion_steps_without_perceptual_losses_leave_a_core_free() -> None:
    schedule = Schedule(ScheduleConfig(), 60_000)
    said: list[bool] = []
    trainer: Any = SimpleNamespace(
        _pipeline=SimpleNamespace(model=SimpleNamespace(schedule=schedule)), _leave_a_core=said.append
    )
    for step in (0, 10_000, 48_000, 51_000, 58_000):  # static, motion, its perceptual phase, fuse, its second part
        DegstalkTrainer._share_cores(trainer, step)
    assert said == [False, True, False, False, False]


def test_a_disk_that_fills_while_it_trains_says_how_to_go_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = brief_trainer(dataset, tmp_path, STEPS)

    def full(_: Trainer) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "events.out")

    monkeypatch.setattr(Trainer, "train", full)
    for words in ("the same command begins anew", f"--load-dir {trainer.checkpoint_dir}"):
        with pytest.raises(SystemExit):
            trainer.train()
        said = capsys.readouterr().err
        assert "events.out: cannot be written (No space left on device)" in said and words in said
        assert said.count("\n") == 1
        trainer.save_checkpoint(2)


def test_a_place_that_cannot_be_written_to_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deepcopy(degstalk_fast.config)
    config.data = config.pipeline.datamanager.data = dataset
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "outputs", "tiny", "only"
    tmp_path.chmod(0o500)
    try:
        with ordinary_rights(), pytest.raises(SystemExit) as ended:
            config.save_config()
    finally:
        tmp_path.chmod(0o700)
        plugin_trainer._BEGUN.close()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1
    assert f"{tmp_path / 'outputs'}: cannot be read or written (Permission denied)" in said


def test_a_training_goes_on_by_the_command_that_began_it() -> None:
    checkpoints = Path("/runs/a b/nerfstudio_models")
    again = ["ns-train", "degstalk", "--load-dir", str(checkpoints)]
    kept = ["--data", "me", "--max-num-iterations=9", "talking-head", "--audio", "ds"]
    for left_out in (["--load-dir", "old"], ["--load_dir=old", "--load-step", "3"], ["--load-checkpoint=x"], []):
        begun = ["/usr/bin/ns-train", "degstalk", *kept[:2], *left_out, *kept[2:]]
        command = plugin_trainer.resume_command(begun, "degstalk", Path("/me"), checkpoints)
        assert shlex.split(command) == [*again, *kept]
    plain = ["ns-train", "degstalk", "--data", "/me", "--load-dir", str(checkpoints)]
    for begun in (["pytest", "degstalk"], ["ns-train", "degstalk", "--load-config", "c.yml", "--data", "me"]):
        assert shlex.split(plugin_trainer.resume_command(begun, "degstalk", Path("/me"), checkpoints)) == plain


def test_only_a_run_that_was_made_now_is_removed_when_it_is_refused(
    dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = deepcopy(degstalk_fast.config)
    config.data = config.pipeline.datamanager.data = dataset_copy
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "outputs", "tiny", "only"
    config.machine.device_type = "cpu"
    (dataset_copy / "transforms_train.json").write_text("[]")
    folder = config.get_base_dir()

    def refused() -> None:
        config.save_config()
        with pytest.raises(SystemExit):
            config.setup(local_rank=0, world_size=1).setup()
        plugin_trainer._BEGUN.close()

    refused()
    assert (tmp_path / "outputs").is_dir() and not list((tmp_path / "outputs").iterdir())
    monkeypatch.setattr(plugin_trainer, "_MADE", set())
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text("of another day")
    refused()
    assert (folder / "config.yml").is_file()


def test_a_second_run_in_the_folder_of_one_that_begins_leaves_its_config_alone(dataset: Path, tmp_path: Path) -> None:
    config = deepcopy(degstalk_fast.config)
    config.data = config.pipeline.datamanager.data = dataset
    config.output_dir, config.experiment_name, config.timestamp = tmp_path / "outputs", "tiny", "only"
    config.save_config()  # as ns-train does, long before it trains
    file = config.get_base_dir() / "config.yml"
    before = file.read_bytes()
    command = (
        "import sys, yaml; from pathlib import Path\n"
        "config = yaml.load(Path(sys.argv[1]).read_text(), Loader=yaml.Loader)\n"
        "config.max_num_iterations = 77; config.save_config()"
    )
    second = subprocess.run([sys.executable, "-c", command, str(file)], capture_output=True, text=True, timeout=300)
    assert second.returncode == 1 and "another degstalk or ns-train is working in it" in second.stderr
    assert "Traceback" not in second.stderr and file.read_bytes() == before
    plugin_trainer._BEGUN.close()
    again = subprocess.run([sys.executable, "-c", command, str(file)], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and b"max_num_iterations: 77" in file.read_bytes()
