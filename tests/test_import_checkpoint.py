"""`degstalk import-checkpoint`: a trained avatar, exported into the official code's structure, comes back as a run."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import brief_trainer, made_once
from dataset_edits import edit_face_model
from release_files import as_release, made_avatar, release_config

from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.scripts import cli

STEPS = 40


@pytest.fixture(scope="session")
def head(dataset: Path, common: Path) -> Path:
    """`config.yml` of an avatar of ours with the options of the official code, trained past the static stage."""

    def train(folder: Path) -> None:
        config = deepcopy(degstalk_fast.config)
        release_config(config.pipeline.model.avatar)
        config.pipeline.model.keep_rim = True
        config.pipeline.model.avatar.face_field.audio.encode_absent = True
        config.pipeline.model.avatar.mouth_field.audio.encode_absent = True
        brief_trainer(dataset, folder, STEPS, method=config).train()

    return made_once(common / "release", train) / "outputs/tiny/degstalk-fast/only/config.yml"


def _frames(run: TrainedAvatar) -> list[torch.Tensor]:
    frames = []
    for row in (0, 1, 11, run.recording.num_frames - 1):
        view, plate = run.model.frames.view(row), torch.from_numpy(run.model.frames.plate(row).copy())
        frames.append(run.model.frame(view, run.model.conditions(row), plate))
    return frames


def _import(path: Path, data: Path, output: Path, *more: str) -> Path:
    cli.main(["import-checkpoint", str(path), "--data", str(data), "--output", str(output), *more])
    return next(output.glob("*/*/*/config.yml"))


def test_an_exported_avatar_comes_back_and_renders_the_same(
    head: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load_run(head)
    content = as_release(trained.model.avatar, int(trained.model.sh_degree))
    torch.save(content, tmp_path / "chkpnt_fuse_latest.pth")
    config = _import(tmp_path / "chkpnt_fuse_latest.pth", dataset, tmp_path / "out")
    said = capsys.readouterr().out
    assert "Gaussians (face + mouth)" in said and f"written: {config}" in said
    run = load_run(config)
    assert run.step == 59_999 and run.config.method_name == "degstalk" and run.recording.layout.root == dataset
    before, after = _frames(trained), _frames(run)
    for first, second in zip(before, after, strict=True):
        assert int((first.int() - second.int()).abs().max()) <= 1  # of 255
    moving = torch.stack(before).float().std(0)
    assert moving.max() > 5  # frames differ from one another
    still = trained.model.avatar.region("face").deformed().scales
    moved = trained.model.avatar.region("face").deformed(run.model.avatar.face_motion(run.model.conditions(3)).offsets)
    assert (moved.scales - still).abs().max() > 0  # the offsets of scales are part of what is compared


def test_an_avatar_of_action_units_is_driven_by_those_of_its_code(dataset: Path, tmp_path: Path) -> None:
    channels = np.load(Layout(dataset).audio_features("mel"), mmap_mode="r").shape[-1]
    avatar = made_avatar(embedding=0, expression=5, eyelids=1, jaw=0, channels=channels)
    torch.save(as_release(avatar), tmp_path / "c.pth")
    config = _import(tmp_path / "c.pth", dataset, tmp_path / "out")
    run = load_run(config)
    assert run.config.method_name == "talking-gaussian"
    recording = run.recording
    assert recording.options.hair_in_head and recording.eyelids.shape[1] == 1 and recording.eyelids.max() <= 2
    assert recording.expression_names == ("AU01_r", "AU04_r", "AU05_r", "AU06_r", "AU07_r")
    assert all(torch.isfinite(frame.float()).all() for frame in _frames(run))


def test_a_run_that_was_imported_has_nothing_left_to_train(
    head: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load_run(head)
    torch.save(as_release(trained.model.avatar), tmp_path / "c.pth")
    config = _import(tmp_path / "c.pth", dataset, tmp_path / "out")
    saved = yaml.load(config.read_text(), Loader=yaml.Loader)
    saved.load_dir, saved.machine.device_type, saved.vis = saved.get_checkpoint_dir(), "cpu", "tensorboard"
    trainer = saved.setup(local_rank=0, world_size=1)
    trainer.setup()
    with pytest.raises(SystemExit):
        trainer.train()
    assert "nothing is left to train" in capsys.readouterr().err


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["import-checkpoint", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.err.count("\n") == 1 and "Traceback" not in said.err
    return said.err


def test_a_dataset_that_does_not_drive_the_avatar_is_refused_and_nothing_is_written(
    dataset: Path, dataset_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    channels = np.load(Layout(dataset).audio_features("mel"), mmap_mode="r").shape[-1]

    def refused(data: Path, *more: str, **sizes: int) -> str:
        torch.save(as_release(made_avatar(**({"channels": channels} | sizes))), tmp_path / "c.pth")
        return _refused([str(tmp_path / "c.pth"), "--data", str(data), "--output", str(output), *more], capsys)

    assert "hears audio features of 29 channels" in refused(dataset, channels=29)
    assert f"aud_mel.npy: {channels}, and" in refused(dataset, "--audio", "mel", channels=29)
    assert "the expression: 50, and" in refused(dataset, expression=52)
    assert "the eyelids: 2, and" in refused(dataset, eyelids=3)
    assert "the jaw: 3, and" in refused(dataset, jaw=4)
    assert "no such dataset folder" in refused(tmp_path / "nowhere")
    np.save(dataset_copy / "aud_hubert.npy", np.zeros((30, 16, 1024), np.float32))  # HuBERT's windows are 2 long there
    assert "hears audio features of 1024 channels" in refused(dataset_copy, channels=1024)
    assert "hold 16 vectors, and" in refused(dataset_copy, "--audio", "hubert", channels=1024)
    (dataset_copy / "aud_hubert.npy").unlink()
    Layout(dataset_copy).audio_features("other").write_bytes(Layout(dataset_copy).audio_features("mel").read_bytes())
    assert "choose with --audio: mel, other" in refused(dataset_copy)
    edit_face_model(dataset_copy, lambda arrays: arrays.pop("jaw_params"))
    assert "has no jaw_params" in refused(dataset_copy, "--audio", "mel")
    assert not output.exists()
    content = list(as_release(made_avatar(channels=channels)))
    content[1]["audio_net.encoder_conv.2.weight"] = torch.zeros(32, 31, 3)
    torch.save(tuple(content), tmp_path / "c.pth")
    arguments = [str(tmp_path / "c.pth"), "--data", str(dataset), "--output", str(output)]
    assert "its networks are of another shape" in _refused(arguments, capsys)
    assert not output.exists()
    output.write_text("a file")
    assert "the run cannot be written" in refused(dataset)
