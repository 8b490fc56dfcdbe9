from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.plugins.registry_dataparser import DataParserSpecification, discover_dataparsers

from degstalk_ns.dataparsers.talking_head import TalkingHead, TalkingHeadDataParserConfig, talking_head_dataparser


def test_outputs(dataset: Path) -> None:
    parser = TalkingHeadDataParserConfig(data=dataset).setup()
    assert isinstance(parser, TalkingHead)
    train, val = parser.get_dataparser_outputs("train"), parser.get_dataparser_outputs("val")
    recording = train.metadata["recording"]
    assert val.metadata["recording"] is recording
    assert len(train.image_filenames) == len(train.cameras) == 21 and len(val.cameras) == 3
    assert train.metadata["split"] == "train" and val.metadata["split"] == "val"
    assert val.metadata["frame_ids"].tolist() == [21, 22, 23]
    cameras = train.cameras
    assert cameras.camera_to_worlds.shape == (21, 3, 4)
    torch.testing.assert_close(cameras.camera_to_worlds, torch.tensor(recording.train.c2w[:, :3]))
    assert (cameras.width == 64).all() and (cameras.height == 64).all()
    torch.testing.assert_close(cameras.fx, cameras.fy)
    assert float(cameras.fx[0]) == pytest.approx(recording.focal) and float(cameras.cx[0]) == 32
    times = torch.cat([train.cameras.times, val.cameras.times])
    torch.testing.assert_close(times, torch.linspace(0, 1, 24)[:, None])
    torch.testing.assert_close(train.scene_box.aabb, torch.tensor([[-0.15] * 3, [0.15] * 3]))
    assert train.dataparser_scale == 1.0
    torch.testing.assert_close(train.dataparser_transform, torch.eye(4)[:3])


def test_test_split_is_the_validation_split(dataset: Path) -> None:
    parser = TalkingHeadDataParserConfig(data=dataset).setup()
    test = parser.get_dataparser_outputs("test")
    assert test.image_filenames == parser.get_dataparser_outputs("val").image_filenames


def test_works_with_nerfstudios_dataset(dataset: Path) -> None:
    outputs = TalkingHeadDataParserConfig(data=dataset, downscale_factor=2).setup().get_dataparser_outputs("train")
    images = InputDataset(outputs)
    assert len(images) == 21 and images.metadata["recording"] is outputs.metadata["recording"]
    copy.deepcopy(outputs.cameras)


def test_options_reach_the_reader(reference_dataset: Path) -> None:
    config = TalkingHeadDataParserConfig(data=reference_dataset, audio="ds", downscale_factor=2, scene_scale=2.0)
    recording = config.setup().get_dataparser_outputs("train").metadata["recording"]
    assert (recording.audio_name, recording.width, recording.options.scene_scale) == ("ds", 32, 2.0)


def test_registered_with_nerfstudio() -> None:
    assert isinstance(talking_head_dataparser, DataParserSpecification)
    configs, _ = discover_dataparsers()
    assert isinstance(configs["talking-head"], TalkingHeadDataParserConfig)


def test_notes_are_printed(dataset_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(dataset_copy / "aud_mel.npy", np.load(dataset_copy / "aud_mel.npy")[:-1])
    TalkingHeadDataParserConfig(data=dataset_copy).setup().get_dataparser_outputs("train")
    assert "trimmed to" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("data", [Path(), Path("no-such-folder")])
def test_mistakes_end_as_one_line_and_exit_code_1(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        TalkingHeadDataParserConfig(data=data).setup().get_dataparser_outputs("train")
    assert caught.value.code == 1 and caught.value.__suppress_context__
    printed = capsys.readouterr().err
    assert printed.startswith("[degstalk] error: ") and printed.count("\n") == 1


def test_unknown_split_is_refused(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        TalkingHeadDataParserConfig(data=dataset).setup().get_dataparser_outputs("all")
    assert "train, val and test" in capsys.readouterr().err
