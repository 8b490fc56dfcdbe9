from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ordinary_rights import ordinary_rights

from degstalk_ns.errors import UserError
from degstalk_ns.plugin.runs import TrainedAvatar, load_run

CHECKPOINT = "nerfstudio_models/step-000000039.ckpt"


def _saved(config: Path) -> Any:
    return yaml.load(config.read_text(), Loader=yaml.Loader)


@pytest.fixture
def run(trained_config: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change; the path of its config."""
    return Path(shutil.copytree(trained_config.parent, tmp_path / "outputs/tiny/degstalk-fast/only")) / "config.yml"


def test_a_run_is_loaded_ready_to_render_and_quietly(trained_config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = load_run(trained_config)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not head.model.training and bool(head.model.moving)
    assert head.step == 39 and head.name == "tiny/degstalk-fast/only, step 39"
    saved = torch.load(trained_config.parent / CHECKPOINT, weights_only=False)["pipeline"]
    assert torch.equal(head.model.avatar.region("face").means, saved["_model.avatar.gaussians.face.params.means"])
    assert head.recording.num_frames == 24


def test_a_run_that_was_moved_finds_its_checkpoint_and_a_relative_dataset(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset, tmp_path / "data/me")
    config = _saved(run)
    config.data = config.pipeline.datamanager.data = Path("data/me")
    config.pipeline.datamanager.dataparser.data = Path("data/me")
    config.output_dir = Path("outputs")
    run.write_text(yaml.dump(config))
    monkeypatch.chdir("/")
    head = load_run(run)
    assert head.recording.layout.root == (tmp_path / "data/me").resolve()
    assert head.checkpoint == run.parent / CHECKPOINT


def test_saved_configs_hold_absolute_folders_and_a_moved_project_is_found(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _saved(run)
    config.data = config.pipeline.datamanager.data = config.pipeline.datamanager.dataparser.data = Path("data/me")
    config.output_dir = Path("outputs")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/me"
    folder.mkdir(parents=True)
    config.save_config()
    folder.rmdir()
    saved = _saved(run)
    assert saved.data == saved.pipeline.datamanager.data == saved.pipeline.datamanager.dataparser.data == folder
    assert saved.output_dir == tmp_path / "outputs" and saved.get_checkpoint_dir() == run.parent / "nerfstudio_models"
    # The whole project moves: the dataset is found where it lies as seen from the run.
    (tmp_path / "outputs").rename(tmp_path / "elsewhere_outputs")
    moved = Path(shutil.copytree(tmp_path / "elsewhere_outputs", tmp_path / "copy/outputs"))
    shutil.copytree(dataset, tmp_path / "copy/data/me")
    monkeypatch.chdir("/")
    head = load_run(moved / "tiny/degstalk-fast/only/config.yml")
    assert head.recording.layout.root == tmp_path / "copy/data/me"


@pytest.mark.parametrize("name", ["trainer.DegstalkTrainerConfig", "nowhere.Config", "plugin.trainer.Nothing"])
def test_a_config_by_an_earlier_version_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"!!python/object:degstalk_ns.{name}\nmethod_name: degstalk\n")
    message = _refused(path)
    assert str(path) in message and "earlier version of degstalk-ns" in message and "train again" in message


def test_nerfstudios_programs_refuse_a_config_by_an_earlier_version_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nerfstudio.utils.eval_utils import eval_setup

    path = tmp_path / "config.yml"
    path.write_text("!!python/object:degstalk_ns.trainer.DegstalkTrainerConfig\nmethod_name: degstalk\n")
    with pytest.raises(SystemExit):
        eval_setup(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("[degstalk] error: config.yml:") and "train again" in line


def test_what_there_is_to_say_of_the_dataset_is_not_lost(
    run: Path, dataset_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset_copy / "au.csv").unlink()
    avatar = load_run(run, data=dataset_copy)
    assert isinstance(avatar, TrainedAvatar) and capsys.readouterr().out == ""
    assert any("no au.csv" in note for note in avatar.notes)


def _refused(config: Path, data: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_run(config, data)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("hello", "not a config of nerfstudio"),
        ("a: [1, 2", "cannot be read as a run's config"),
        ("!!python/object:nerfstudio.nowhere.Nothing {}", "cannot be read as a run's config"),
        ("\0\1\2", "cannot be read as a run's config"),
    ],
)
def test_what_is_no_config_of_ours_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "config.yml"
    if content is not None:
        path.write_text(content)
    message = _refused(path)
    assert str(path) in message and words in message and "outputs/me/degstalk-fast" in message


def test_a_config_of_another_method_is_refused(tmp_path: Path) -> None:
    from nerfstudio.engine.trainer import TrainerConfig

    path = tmp_path / "config.yml"
    path.write_text(yaml.dump(TrainerConfig(method_name="splatfacto")))
    assert "a config of splatfacto" in _refused(path)


def test_missing_and_broken_checkpoints_are_refused(run: Path) -> None:
    checkpoint = run.parent / CHECKPOINT
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    assert "all 1 checkpoints in it are torn" in _refused(run)
    checkpoint.write_text("not a checkpoint")
    assert "all 1 checkpoints in it are torn" in _refused(run)
    state = torch.load(io.BytesIO(whole), weights_only=True)
    for bad in (torch.nan, torch.inf):
        state["pipeline"]["_model.avatar.gaussians.face.params.means"][2, 1] = bad
        torch.save(state, checkpoint)
        words = f"{checkpoint}: 1 of its tensors hold NaN or infinity, the first _model.avatar.gaussians.face.params"
        assert words in _refused(run)
    torch.save({"pipeline": {"a": Path("x")}}, checkpoint)
    assert "it holds code, pathlib" in _refused(run)
    torch.save({"weights": torch.zeros(3)}, checkpoint)
    assert "is no checkpoint of nerfstudio" in _refused(run)
    checkpoint.unlink()
    assert "holds no checkpoint" in _refused(run)


def test_a_newest_checkpoint_that_may_not_be_read_is_not_passed_over(run: Path) -> None:
    checkpoint = run.parent / CHECKPOINT
    shutil.copy(checkpoint, checkpoint.with_name("step-000000001.ckpt"))  # whole, and older
    checkpoint.chmod(0)
    with ordinary_rights():
        assert f"{checkpoint}: cannot be read (Permission denied); give this user" in _refused(run)
    checkpoint.chmod(0o600)
    assert load_run(run).step == int(checkpoint.stem.split("-")[1])


def test_a_checkpoint_of_another_shape_is_refused_with_the_tensor(run: Path) -> None:
    checkpoint = run.parent / CHECKPOINT
    state = torch.load(checkpoint, weights_only=False)
    name = next(key for key in state["pipeline"] if "mouth_field" in key and key.endswith("weight"))
    state["pipeline"][name] = torch.zeros(3, 5)
    torch.save(state, checkpoint)
    message = _refused(run)
    assert name.removeprefix("_model.") in message and str(checkpoint) in message and "another version" in message


def test_a_dataset_that_moved_is_named_and_can_be_given(run: Path, dataset: Path, tmp_path: Path) -> None:
    config = _saved(run)
    gone = tmp_path / "gone"
    config.data = config.pipeline.datamanager.data = gone
    run.write_text(yaml.dump(config))
    message = _refused(run)
    assert str(gone) in message and "--data FOLDER" in message
    assert load_run(run, data=dataset).recording.num_frames == 24
    assert "no such dataset folder" in _refused(run, data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "transforms_train.json: missing" in _refused(run, data=tmp_path / "empty")
