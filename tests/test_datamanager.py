"""What the datamanager delivers: the frames of each step, and each evaluation frame once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import brief_trainer

from degstalk_ns.dataparsers.frame import FrameData, read_frame
from degstalk_ns.dataparsers.layout import PALETTE, Layout
from degstalk_ns.dataparsers.talking_head import TalkingHeadDataParserConfig
from degstalk_ns.dataparsers.transforms import FrameTable
from degstalk_ns.plates.build import dilate
from degstalk_ns.plates.hair import skin_under_hair
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager, TalkingHeadDataManagerConfig

STEPS = 40


def _manager(data: Path, folder: Path) -> TalkingHeadDataManager:
    """Of a trainer that is set up."""
    manager = brief_trainer(data, folder, STEPS).pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManager)
    return manager


@pytest.fixture(scope="module")
def manager(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TalkingHeadDataManager:
    return _manager(dataset, tmp_path_factory.mktemp("manager"))


def _picture(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path))[..., ::-1])


def _bytes(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


def _frames(manager: TalkingHeadDataManager, times: torch.Tensor) -> list[int]:
    return [round(float(time) * (manager.recording.num_frames - 1)) for time in times.flatten()]


def test_a_step_is_two_cameras_and_what_their_frames_show(manager: TalkingHeadDataManager) -> None:
    layout, recording = Layout(manager.recording.layout.root), manager.recording
    for step in (0, 12, STEPS - 1):
        cameras, batch = manager.next_train(step)
        frames = _frames(manager, cameras.times)
        assert cameras.shape == (2,) and set(frames) <= set(recording.train.img_ids.tolist())
        for place, (name, frame) in enumerate(zip(("face", "mouth"), frames, strict=True)):
            target = batch[name]
            np.testing.assert_array_equal(_bytes(target.image), _picture(layout.frame(frame)))
            parsing = _picture(layout.parsing(frame))
            hair = (parsing == PALETTE["hair"]).all(-1)
            head = (parsing == PALETTE["head"]).all(-1)
            mouth = (parsing == PALETTE["mouth"]).all(-1) | (np.load(layout.teeth(frame)) & head)
            np.testing.assert_array_equal(target.hair.numpy(), hair)
            np.testing.assert_array_equal(target.mouth_region.numpy(), mouth)
            grown = dilate(head | mouth, manager.face_window)
            if name == "face" or step == STEPS - 1:
                shown, under = skin_under_hair(_picture(layout.frame(frame)), head | mouth, hair)
                assert under.any()
                np.testing.assert_array_equal(_bytes(target.face_image), shown)
                np.testing.assert_array_equal(target.under_hair.numpy(), under)
                grown |= under
            else:  # the mouth does not reach under the hair
                assert target.face_image is None and target.under_hair is None
            np.testing.assert_array_equal(target.face_region.numpy(), grown & ~mouth)
            np.testing.assert_allclose(cameras.camera_to_worlds[place], recording.train.c2w[frame][:3], atol=1e-6)
        assert torch.equal(batch["image"], batch["face"].image)


def test_only_the_fuse_stage_reads_plates_and_takes_one_frame_twice(manager: TalkingHeadDataManager) -> None:
    _, batch = manager.next_train(20)
    assert batch["face"].plate is None and batch["mouth"].plate is None
    cameras, batch = manager.next_train(STEPS - 1)
    first, second = _frames(manager, cameras.times)
    assert first == second and batch["face"] is not None
    plate = read_frame(manager.recording, first).plate
    assert plate.shape[2] == 4
    np.testing.assert_array_equal(_bytes(batch["face"].plate), plate)


def test_without_hair_in_front_the_face_ends_as_the_mask_grows_and_plates_have_no_hair(dataset: Path) -> None:
    manager = _with_options(dataset, hair_in_front=False)
    frame = manager._open(manager.recording.train, 5)
    target = manager._target(frame, plate=True)
    assert target.under_hair is None and target.face_image is None
    mouth = target.mouth_region.numpy()
    np.testing.assert_array_equal(target.face_region.numpy(), dilate(frame.head | mouth, manager.face_window) & ~mouth)
    assert target.plate is not None
    np.testing.assert_array_equal(_bytes(target.plate), frame.bare_plate)


def test_a_step_is_the_same_however_it_is_reached(
    manager: TalkingHeadDataManager, dataset: Path, tmp_path: Path
) -> None:
    """Read ahead, read at once, or after a resume: the same frames."""
    in_turn = [_frames(manager, manager.next_train(step)[0].times) for step in range(STEPS)]
    fresh = _manager(dataset, tmp_path)
    assert [_frames(fresh, fresh.next_train(step)[0].times) for step in (25, 26, 3)] == [
        in_turn[step] for step in (25, 26, 3)
    ]
    assert len({tuple(frames) for frames in in_turn}) > STEPS / 4


def test_evaluation_frames_are_those_of_the_split_each_once(manager: TalkingHeadDataManager) -> None:
    layout, recording = manager.recording.layout, manager.recording
    pairs = manager.fixed_indices_eval_dataloader
    shown = []
    for camera, batch in pairs:
        (frame,) = _frames(manager, camera.times)
        np.testing.assert_array_equal(_bytes(batch["image"]), _picture(layout.frame(frame)))
        shown.append(frame)
    assert shown == recording.val.img_ids.tolist() and len(pairs) == len(shown)
    with pytest.raises(IndexError):
        pairs[len(pairs)]
    asked = {_frames(manager, manager.next_eval_image(step)[0].times)[0] for step in range(12)}
    assert 1 < len(asked) and asked <= set(shown)


def test_some_training_frames_are_spread_over_the_split(manager: TalkingHeadDataManager) -> None:
    layout, recording = manager.recording.layout, manager.recording
    count = len(recording.train)
    pairs = manager.some_training_frames(4)
    shown = []
    for camera, batch in pairs:
        (frame,) = _frames(manager, camera.times)
        np.testing.assert_array_equal(_bytes(batch["image"]), _picture(layout.frame(frame)))
        parsing = _picture(layout.parsing(frame))
        face = (parsing == PALETTE["head"]).all(-1) | (parsing == PALETTE["mouth"]).all(-1)
        np.testing.assert_array_equal(batch["head"].numpy(), face)
        shown.append(frame)
    wanted = [recording.train.img_ids[round(k * (count - 1) / 3)] for k in range(4)]
    assert shown == wanted and len(pairs) == 4
    assert len(manager.some_training_frames(10_000)) == count


def test_the_mask_of_a_mouth_is_counted_once_in_a_run(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, opened = _manager(dataset, tmp_path), []
    real = manager._open

    def watched(table: FrameTable, index: int) -> FrameData:
        opened.append(index)
        return real(table, index)

    monkeypatch.setattr(manager, "_open", watched)
    first = [manager._mouth_pixels(index) for index in (3, 4, 3)]
    assert opened == [3, 4] and first[0] == first[2]
    mask = _picture(manager.recording.layout.parsing(int(manager.recording.train.img_ids[4])))
    assert first[1] == (mask == PALETTE["mouth"]).all(-1).sum()


def test_images_are_never_cached(manager: TalkingHeadDataManager) -> None:
    for name in ("cached_train", "cached_eval"):
        with pytest.raises(RuntimeError, match="read lazily"):
            getattr(manager, name)


def test_mouths_that_are_never_open_enough_are_said_once(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(dataset, tmp_path / "closed"))
    layout = Layout(data)
    for image in range(24):
        parsing = _picture(layout.parsing(image)).copy()
        parsing[(parsing == PALETTE["mouth"]).all(-1)] = PALETTE["head"]
        cv2.imwrite(str(layout.parsing(image)), parsing[..., ::-1])
    manager = _manager(data, tmp_path)
    capsys.readouterr()
    for step in range(10):
        manager.next_train(step)
    said = capsys.readouterr().out
    assert said.count("shows enough of its inside") == 1 and "shows 0 pixels" in said


SIX_OF_64 = 6 / 64


def _with_options(data: Path, downscale: int = 1, **options: Any) -> TalkingHeadDataManager:
    parser = TalkingHeadDataParserConfig(data=data, downscale_factor=downscale)
    config = TalkingHeadDataManagerConfig(dataparser=parser, **options)
    return TalkingHeadDataManager(config, device="cpu")


@pytest.mark.parametrize(("downscale", "pixels"), [(1, 6), (2, 3)])
def test_the_face_grows_by_a_fraction_of_the_frames_as_they_are_read(
    dataset: Path, downscale: int, pixels: int
) -> None:
    manager = _with_options(dataset, downscale, face_margin=SIX_OF_64)
    assert manager.face_window == 2 * pixels + 1
    _, batch = manager.eval_pair(0)
    target = batch["target"]
    recorded = manager._open(manager.recording.val, 0)
    head = recorded.head | target.mouth_region.numpy()
    grown = dilate(head, 2 * pixels + 1) & ~target.mouth_region.numpy()
    np.testing.assert_array_equal(target.face_region.numpy(), grown)


def test_a_margin_in_pixels_is_refused(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for margin in (3.0, 0.0):
        with pytest.raises(SystemExit):
            _with_options(dataset, face_margin=margin)
        assert "face_margin must be a fraction of the frame's height" in capsys.readouterr().err
