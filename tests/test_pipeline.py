"""What evaluation reports, against the same numbers computed from the pictures that it writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pictures import evaluated_pictures

from degstalk_ns.avatar.renderer import over_plate
from degstalk_ns.dataparsers.layout import PALETTE
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.metrics.lips_and_eyes import FaceComparison, FaceLandmarks
from degstalk_ns.plugin import pipeline as pipeline_module
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager
from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.runs import load_run


def _cracks(recording: Recording, image: int, truth: np.ndarray, rendered: np.ndarray) -> int:
    """Pixels within 2 of the border of the head (16 of 512) whose grey is off by more than a quarter."""
    parsing = cv2.imread(str(recording.layout.parsing(image)))[..., ::-1]
    head = ((parsing == PALETTE["head"]).all(-1) | (parsing == PALETTE["mouth"]).all(-1)).astype(np.uint8)
    band = cv2.dilate(head, np.ones((5, 5))) > cv2.erode(head, np.ones((5, 5)))
    error = np.abs((truth.astype(float) - rendered) @ (0.299, 0.587, 0.114))
    return int((band & (error > 64)).sum())


@pytest.fixture(scope="module")
def pipeline(trained_config: Path) -> DegstalkPipeline:
    return load_run(trained_config).pipeline


def test_what_is_reported_is_what_the_pictures_show(pipeline: DegstalkPipeline, tmp_path: Path) -> None:
    results = pipeline.get_average_eval_image_metrics(output_path=tmp_path, get_std=True)
    recording: Recording = pipeline.datamanager.recording
    shown = evaluated_pictures(tmp_path, recording)
    assert len(shown.truth) == len(recording.val)
    shown.agree_with(results)
    assert results["psnr_std"] == pytest.approx(float(np.std(shown.psnr(), ddof=1)), abs=0.02)
    assert not any(np.isnan(value) for value in results.values())
    for index, image in enumerate(recording.val.img_ids):
        frame = cv2.imread(str(recording.layout.frame(int(image))))[..., ::-1]
        np.testing.assert_array_equal(shown.truth[index], frame)
    images = zip(recording.val.img_ids, shown.truth, shown.image, strict=True)
    cracks = [_cracks(recording, int(number), truth, image) for number, truth, image in images]
    assert results["cracks"] == pytest.approx(np.mean(cracks), abs=1.0) and min(cracks) > 0
    assert results["crack_frames"] == len(cracks)  # of 64 x 64 pixels, one is plain to see
    names = {path.name.rsplit("_", 1)[0].removeprefix("eval_") for path in tmp_path.iterdir()}
    assert names == {"composition", "face", "mouth", "plate", "masks", "attention"}


def test_frames_are_also_judged_over_the_plate_of_a_training_frame_like_them(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.config, "measure_lips", False)
    monkeypatch.setattr(pipeline.config, "measure_training_frames", 0)
    model, loader = pipeline.model, pipeline.datamanager.fixed_indices_eval_dataloader
    results = pipeline.get_average_eval_image_metrics()
    recording = model.recording
    pipeline.eval()
    expected = []
    for camera, batch in loader:
        _, row = model.moment(camera, 0)
        poses = {int(train): model.frames.c2w(int(train)) for train in recording.train.aud_ids}
        own = model.frames.c2w(row)
        near = min(poses, key=lambda train: float((poses[train] - own).norm()))
        assert model.frames.alike(row) in recording.train.aud_ids
        assert float((poses[model.frames.alike(row)] - own).norm()) <= 2 * float((poses[near] - own).norm()) + 1e-3
        plate = torch.from_numpy(model.frames.other_plate(row)).float() / 255
        image = over_plate(model.get_outputs_for_camera(camera)["regions"], plate)
        expected.append(model.image_metrics(image, batch))
    for name in ("psnr", "ssim", "psnr_hair", "psnr_face", "cracks"):
        assert results[f"other_plate_{name}"] == pytest.approx(np.mean([one[name] for one in expected]), rel=1e-4), name
    assert results["other_plate_psnr_hair"] < results["psnr_hair"]  # its own plate holds the recorded hair
    assert results["other_plate_crack_frames"] == sum(one["cracks"] > 0 for one in expected)


def test_a_dataset_without_what_other_plates_are_made_of_is_measured_without_them(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline.config, "measure_lips", False)
    monkeypatch.setattr(pipeline.config, "measure_driving", False)
    monkeypatch.setattr(pipeline.config, "measure_training_frames", 0)
    frames = pipeline.model.frames
    plate = frames.plate

    def own(row: int, size: tuple[int, int] | None = None, freed: bool = False) -> np.ndarray:
        if freed:
            raise UserError("torso_imgs/0.png: missing")
        return plate(row, size)

    monkeypatch.setattr(frames, "plate", own)
    results = pipeline.get_average_eval_image_metrics()
    assert "psnr" in results and not any(name.startswith("other_plate") for name in results)
    said = " ".join(capsys.readouterr().out.split())
    assert "over another frame's plate are not measured: torso_imgs/0.png: missing" in said


def test_what_is_switched_off_is_not_measured(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline.config, "measure_lips", False)
    monkeypatch.setattr(pipeline.config, "measure_driving", False)
    monkeypatch.setattr(pipeline.config, "measure_spoken", False)
    monkeypatch.setattr(pipeline.config, "measure_other_plate", False)
    monkeypatch.setattr(pipeline.config, "measure_training_frames", 0)
    results = pipeline.get_average_eval_image_metrics()
    assert "LMD is left out: measure_lips is off" in capsys.readouterr().out
    off = ("other_plate_", "lmd", "lip_", "lips_shut", "lips_closed", "eye_", "lips_l1_", "train_")
    assert not any(name.startswith(off) for name in results)
    assert {"psnr", "ssim", "lips_l1", "fps", "cracks", "crack_frames", "broken_face"} <= results.keys()


def test_lips_are_compared_over_all_frames_and_again_over_those_of_the_training(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The evaluation frames' lips move half as far as they should, those of the training frames as far.
    held_out, trained = np.array([0.0, 0.1, 0.2]), np.linspace(0, 0.3, 21)
    pairs = iter([*zip(held_out / 2, held_out, strict=True), *zip(trained, trained, strict=True)])

    class Landmarks(FaceLandmarks):
        def __call__(self, image: Any, target: Any) -> FaceComparison:
            rendered, true = next(pairs)
            return FaceComparison(1.0, 2.0, 3.0, rendered, true, 0.3, 0.3, (0, 8, 0, 8), (8, 16, 0, 8))

    monkeypatch.setattr(pipeline_module, "FaceLandmarks", Landmarks)
    monkeypatch.setattr(pipeline_module, "lmd_availability", lambda: None)
    monkeypatch.setattr(pipeline.config, "measure_spoken", False)
    results = pipeline.get_average_eval_image_metrics()
    assert next(pairs, None) is None
    assert results["lip_slope"] == pytest.approx(0.5) and results["lip_spread"] == pytest.approx(0.5)
    assert results["train_lip_slope"] == pytest.approx(1.0) and results["train_lip_spread"] == pytest.approx(1.0)
    assert results["lip_gap_r"] == pytest.approx(1.0) == results["train_lip_gap_r"]
    # Closed is less than 0.15 of the 95th percentile of the training frames, 0.285: the first of the evaluation frames
    # and the first three of the training frames.
    closed = (results["lips_shut"], results["lips_closed"], results["train_lips_shut"], results["train_lips_closed"])
    assert closed == (1, 1, 3, 3)
    assert results["lip_gap"] == pytest.approx(0.05) and results["lip_gap_true"] == pytest.approx(0.1)


def test_lips_that_sound_alone_drives_are_measured_beside_controls(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Landmarks(FaceLandmarks):
        def __call__(self, image: Any, target: Any) -> FaceComparison:
            rendered, true = float(np.asarray(image)[10:50].mean()), float(np.asarray(target)[10:50].mean())
            return FaceComparison(1.5, 2.0, 3.0, rendered, true, 0.3, 0.3, (0, 8, 0, 64), (24, 48, 16, 48))

    monkeypatch.setattr(pipeline_module, "FaceLandmarks", Landmarks)
    monkeypatch.setattr(pipeline_module, "lmd_availability", lambda: None)
    monkeypatch.setattr(pipeline.config, "measure_training_frames", 0)
    results = pipeline.get_average_eval_image_metrics()
    for name in ("spoken", "shuffled", "still", "hushed"):
        assert results[f"{name}_lmd"] == 1.5 and results[f"{name}_gap"] > 0
    drivings = {"tracked": pipeline.model.recorded_track, "still": pipeline.model.recorded_track.frozen(0)}
    said: list[str] = []
    lips = pipeline.driven_lips(drivings, said.append)
    assert lips["tracked_lmd"] == 1.5 and len(said) == len(pipeline.model.recording.val)
    assert lips["tracked_r"] == pytest.approx(results["lip_gap_r"]) and lips["tracked_r"] != lips["still_r"]
    assert results["sound_moves_mouth"] > 0
    assert results["bleed"] == pytest.approx(results["sound_moves_upper"] / results["sound_moves_mouth"])


@pytest.mark.parametrize("what", ["moving", "still", "no model"])
def test_how_far_the_lips_move_is_looked_at_in_training_frames_as_rendered(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    true = iter(np.linspace(0, 0.3, 7) if what == "moving" else np.full(7, 0.2))
    truths = [np.asarray(batch["image"]) for _, batch in pipeline.datamanager.some_training_frames(7)]

    class Landmarks(FaceLandmarks):
        def __call__(self, image: Any, target: Any) -> FaceComparison:
            np.testing.assert_array_equal(target, truths.pop(0))
            assert not np.array_equal(image, target)
            opening = next(true)
            return FaceComparison(1.0, 2.0, 3.0, 0.6 * opening, opening, 0.3, 0.3, (0, 8, 0, 8), (8, 16, 0, 8))

    monkeypatch.setattr(pipeline_module, "FaceLandmarks", Landmarks)
    monkeypatch.setattr(pipeline_module, "lmd_availability", lambda: "no model" if what == "no model" else None)
    moved = pipeline.learned_lips(7)
    assert bool(truths) is (what == "no model")
    if isinstance(moved, str):
        assert moved == ("no model" if what == "no model" else "moving lips are found in too few of 7 training frames")
    else:
        assert what == "moving" and moved.slope == pytest.approx(0.6) and (moved.shut, moved.closed) == (1, 1)


def test_the_avatar_shows_hair_in_front_as_it_was_trained(trained_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "outputs/tiny/degstalk-fast/only"
    config = Path(shutil.copytree(trained_config.parent, folder)) / "config.yml"
    text = config.read_text()
    assert text.count("hair_in_front: true") == 1
    for line, channels in (("hair_in_front: true", 4), ("hair_in_front: false", 3)):
        config.write_text(text.replace("hair_in_front: true", line))
        run = load_run(config)
        assert run.model.frames.plate(3).shape[2] == channels
        manager = run.pipeline.datamanager
        assert isinstance(manager, TalkingHeadDataManager)
        outputs = run.model.get_outputs_for_camera(manager.eval_pair(0)[0])
        assert outputs["rgb"].shape[2] == outputs["plate"].shape[2] == 3


def test_as_many_training_frames_are_measured_as_asked_for(
    pipeline: DegstalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.config, "measure_training_frames", 5)
    monkeypatch.setattr(pipeline.config, "measure_lips", False)
    results = pipeline.get_average_eval_image_metrics()
    assert results["train_crack_frames"] <= 5 and results["train_cracks"] > 0
    assert not any(name.startswith("train_lip") for name in results)


def test_evaluating_leaves_the_driving_and_the_mode_as_they_were(pipeline: DegstalkPipeline) -> None:
    model = pipeline.model
    assert model.track is model.recorded_track
    pipeline.train()
    pipeline.get_average_eval_image_metrics()
    assert pipeline.training and model.track is model.recorded_track
    pipeline.eval()


def test_frozen_and_silent_driving_change_the_lips(pipeline: DegstalkPipeline) -> None:
    assert set(pipeline._other_drivings()) == {"frozen", "silent"}
    results = pipeline.get_average_eval_image_metrics()
    ratio = results["lips_l1"] / results["lips_l1_frozen"]
    assert results["lips_l1_ratio_to_frozen"] == pytest.approx(ratio)
