"""The model adapter on a short training: outputs and how they compose, stages, metrics."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import brief_trainer
from nerfstudio.cameras.cameras import Cameras

from degstalk_ns.animation.animation import silent_track
from degstalk_ns.avatar.driving import Conditions
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.plugin import model as plugin_model
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.plugin.trainer import DegstalkTrainer
from degstalk_ns.training import objective
from degstalk_ns.training.objective import Terms

LATE, FINISHING = 79, 83
"""Of 100 steps: the face has its perceptual losses, and the mouth is finished."""


@pytest.fixture(scope="module")
def avatar(trained_config: Path) -> TrainedAvatar:
    return load_run(trained_config)


@pytest.fixture(scope="module")
def model(avatar: TrainedAvatar) -> DegstalkModel:
    return avatar.model


@pytest.fixture(scope="module")
def manager(avatar: TrainedAvatar) -> TalkingHeadDataManager:
    manager = avatar.pipeline.datamanager
    assert isinstance(manager, TalkingHeadDataManager)
    return manager


@pytest.fixture(scope="module")
def trainer(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> DegstalkTrainer:
    return brief_trainer(dataset, tmp_path_factory.mktemp("model"), steps=100)


def _moved(camera: Cameras, by: float) -> Cameras:
    other = copy.deepcopy(camera)
    other.camera_to_worlds[..., 0, 3] += by
    return other


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_the_frame_is_face_over_mouth_over_plate(trained_config: Path, manager: TalkingHeadDataManager) -> None:
    """Equation 7, by hand, and the hair of the plate in front."""
    model = load_run(trained_config).model
    model.overlaps_plate(0)  # what is shown without the rim is the renderer's business
    with torch.no_grad():  # after so few steps hardly anything of the face is left: make it large and half transparent
        model.avatar.region("face").params["scales"].fill_(math.log(0.02))
        model.avatar.region("face").params["opacities"].fill_(0.5)
    outputs = model.get_outputs_for_camera(manager.eval_dataset.cameras[0:1])
    face, mouth, plate = outputs["layers"].face, outputs["layers"].mouth, outputs["plate"]
    recorded = read_frame(model.recording, int(model.recording.val.img_ids[0]), what=("plate",)).plate
    behind, hair = torch.from_numpy(recorded.copy()).float().div(255).split([3, 1], dim=-1)
    composed = face.colour + (1 - face.alpha) * (mouth.colour + (1 - mouth.alpha) * behind)
    expected = (1 - hair) * composed + hair * behind
    torch.testing.assert_close(outputs["rgb"], expected.clamp(0, 1), atol=2e-5, rtol=0)
    assert 0.1 < float(face.alpha.mean()) < 0.9 and float((expected - composed).abs().max()) > 0.1
    assert torch.equal(outputs["face"], face.colour.clamp(0, 1)) and torch.equal(outputs["face_alpha"], face.alpha)
    assert torch.equal(outputs["mouth"], mouth.colour.clamp(0, 1)) and torch.equal(outputs["mouth_alpha"], mouth.alpha)
    torch.testing.assert_close(plate, behind)
    assert "behind" not in outputs  # nerfstudio's programs would show its four channels


def test_another_camera_has_no_plate(model: DegstalkModel, manager: TalkingHeadDataManager) -> None:
    camera = manager.eval_dataset.cameras[0:1]
    there = model.get_outputs_for_camera(camera)
    assert bool((there["accumulation"] == 1).all())
    away = model.get_outputs_for_camera(_moved(camera, 0.3))
    assert bool((away["plate"] == torch.tensor(model.config.free_background)).all())
    assert float(away["accumulation"].min()) < 0.01
    rgba = model.get_rgba_image(away)
    assert torch.equal(rgba, torch.cat([away["rgb"], away["accumulation"]], -1))


def test_the_fast_way_gives_the_same_picture(model: DegstalkModel, manager: TalkingHeadDataManager) -> None:
    camera = manager.eval_dataset.cameras[0:1]
    outputs = model.get_outputs_for_camera(camera)
    view, frame = model.moment(camera, 0)
    plate = torch.from_numpy(model.frames.plate(frame).copy())
    picture = model.frame(view, model.conditions(frame), plate.float() / 255)
    torch.testing.assert_close(picture, outputs["rgb"], atol=1e-5, rtol=0)
    as_bytes = model.frame(view, model.conditions(frame), plate)
    assert as_bytes.dtype == torch.uint8
    assert int((as_bytes.int() - (outputs["rgb"] * 255).round().int()).abs().max()) <= 1


def test_another_driving_holds_only_inside_its_block(model: DegstalkModel, manager: TalkingHeadDataManager) -> None:
    recorded, frame = model.recorded_track, int(model.recording.val.aud_ids[0])
    with pytest.raises(ZeroDivisionError), model.driven_by(recorded.frozen(0)):
        assert torch.equal(model.conditions(frame).jaw, recorded.at_frame(0).jaw)
        raise ZeroDivisionError
    assert torch.equal(model.conditions(frame).jaw, recorded.at_frame(frame).jaw)
    camera = manager.eval_dataset.cameras[0:1]
    assert model.recorded_jaw(camera) == pytest.approx(float(model.recording.jaw[frame, 0]))
    silent = silent_track(model.recording)
    assert silent is not None and torch.equal(silent.jaw, recorded.jaw)
    assert not torch.equal(silent.audio, recorded.audio)


def test_gaussians_as_they_are_and_as_a_moment_moves_them(model: DegstalkModel) -> None:
    still = model.gaussians_at("face", None)
    assert torch.equal(still.means, model.avatar.region("face").params["means"])
    moved = model.gaussians_at("face", model.conditions(3))
    distance = (moved.means - still.means).norm(dim=-1)
    assert 0 < float(distance.max()) < 0.05


# --- stages -----------------------------------------------------------------------------------------------------------


def test_each_stage_decides_what_is_trained_and_how_fast(trainer: DegstalkTrainer) -> None:
    model = trainer.pipeline.model
    assert isinstance(model, DegstalkModel)
    groups = model.avatar.parameter_groups()
    base = {name: group["optimizer"].lr for name, group in trainer.config.optimizers.items() if name != "poses"}
    assert groups.keys() == base.keys()

    def trained(step: int) -> set[str]:
        model.enter_step(step)
        return {name for name, parameters in groups.items() if all(part.requires_grad for part in parameters)}

    def rate(name: str) -> float:
        (group,) = trainer.optimizers.optimizers[name].param_groups
        return float(group["lr"])

    gaussians = {f"{region}_{key}" for region in ("face", "mouth") for key in model.avatar.region(region).params}
    assert trained(0) == {name for name in gaussians if not name.endswith("_embeddings")}
    assert not bool(model.moving) and int(model.sh_degree) == 0
    assert rate("face_means") == pytest.approx(base["face_means"])
    assert trained(50) == groups.keys()
    assert bool(model.moving) and int(model.sh_degree) == model.config.avatar.face.sh_degree
    end, half, tenth = (
        round(100 * getattr(model.config.schedule, f"lr_{name}"))
        for name in ("means_end", "fields_half", "fields_tenth")
    )
    assert rate("face_means") == pytest.approx(base["face_means"] * 0.01 ** (50 / end))
    assert rate("mouth_field_networks") == pytest.approx(base["mouth_field_networks"] * 0.5 ** (50 / half))
    assert trained(LATE) == groups.keys()
    assert rate("mouth_field_networks") == pytest.approx(base["mouth_field_networks"] * 0.1 ** (LATE / tenth))
    assert rate("face_opacities") == pytest.approx(base["face_opacities"])
    colours = {"face_sh0", "face_shN", "mouth_sh0", "mouth_shN"}
    assert trained(FINISHING) == {name for name in groups if name.startswith("face_")} | colours
    assert trained(99) == colours | {"face_opacities"}
    for wanted in (0.25, 0.125):
        model.config.fuse_opacity_lr = wanted
        model.enter_step(99)
        assert rate("face_opacities") == pytest.approx(wanted)
    model.enter_step(0)


def test_the_mouth_is_finished_while_the_face_still_grows(trainer: DegstalkTrainer) -> None:
    model = trainer.pipeline.model
    assert isinstance(model, DegstalkModel)
    model.train()
    model.enter_step(FINISHING)
    groups = model.avatar.parameter_groups()
    before = {name: [part.detach().clone() for part in parameters] for name, parameters in groups.items()}
    trainer.train_iteration(FINISHING)
    model.grow(FINISHING)
    changed = {
        name
        for name, parameters in groups.items()
        if any(not torch.equal(part, old) for part, old in zip(parameters, before[name], strict=True))
    }
    assert {name for name in changed if name.startswith("mouth_")} == {"mouth_sh0", "mouth_shN"}
    assert {"face_means", "face_opacities", "face_embeddings", "face_field_networks"} <= changed
    assert model.densifiers["face"].state["count"].any() and not model.densifiers["mouth"].state
    model.enter_step(0)


def test_the_mouth_is_finished_over_black_with_its_perceptual_loss(
    trainer: DegstalkTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manager = trainer.pipeline.model, trainer.pipeline.datamanager
    assert isinstance(model, DegstalkModel)
    model.train()
    seen: dict[str, tuple[torch.Tensor, object]] = {}
    distance = torch.nn.PairwiseDistance()
    monkeypatch.setattr(model, "_lpips", distance)
    for name, real in (("face_terms", objective.face_terms), ("mouth_terms", objective.mouth_terms)):

        def watched(*arguments: Any, name: str = name, real: Any = real) -> Terms:
            seen[name] = arguments[5], arguments[6]
            terms: Terms = real(*arguments)
            return terms

        monkeypatch.setattr(plugin_model, name, watched)
    for step, in_face, in_mouth in ((50, None, None), (LATE, distance, None), (FINISHING, distance, distance)):
        model.enter_step(step)
        cameras, batch = manager.next_train(step)
        model.get_loss_dict(model(cameras), batch)
        (face_key, face_lpips), (mouth_key, mouth_lpips) = seen["face_terms"], seen["mouth_terms"]
        assert face_lpips is in_face and mouth_lpips is in_mouth
        assert face_key.any() and torch.equal(mouth_key, torch.zeros(3) if step == FINISHING else face_key)
    model.enter_step(0)


def test_the_face_is_trained_without_sound_in_silent_steps(
    trainer: DegstalkTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manager = trainer.pipeline.model, trainer.pipeline.datamanager
    assert isinstance(model, DegstalkModel) and model.schedule is not None
    model.train()
    heard: dict[str, bool] = {}

    def listen(region: str) -> None:
        own = getattr(model.avatar, f"{region}_motion")

        def motion(conditions: Conditions) -> object:
            heard[region] = bool(conditions.audio.any())
            return own(conditions)

        monkeypatch.setattr(model.avatar, f"{region}_motion", motion)

    listen("face")
    listen("mouth")
    for step in (50, 51):
        model.enter_step(step)
        model(manager.next_train(step)[0])
        assert heard == {"face": step == 51, "mouth": True}
        assert model.schedule.silent(step) is (step == 50)
    model.enter_step(0)


def test_the_fields_see_the_driving_as_the_training_frames_spread(model: DegstalkModel) -> None:
    rows = torch.from_numpy(model.recording.train.aud_ids.copy())
    for fitted, values in (
        (model.avatar.face_field.standardise_eyelids, model.recorded_track.eyelids[rows]),
        (model.avatar.mouth_field.standardise_jaw, model.recorded_track.jaw[rows]),
    ):
        moving = values.std(0) > 0
        spread = fitted(values)[:, moving].std(0)
        assert moving.any() and ((spread > 0.5) & (spread < 2)).all()


def test_a_loss_that_is_not_finite_names_its_term_and_step(
    trainer: DegstalkTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    model, manager = trainer.pipeline.model, trainer.pipeline.datamanager
    assert isinstance(model, DegstalkModel)
    model.train()
    model.enter_step(1)
    cameras, batch = manager.next_train(1)
    terms = model.get_loss_dict(model(cameras), batch)
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    batch["mouth"].image.fill_(float("nan"))
    with pytest.raises(SystemExit):
        model.get_loss_dict(model(cameras), batch)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the loss term mouth_" in line and "is not finite at step 1" in line


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_metrics_of_a_frame(model: DegstalkModel, manager: TalkingHeadDataManager) -> None:
    camera, batch = manager.eval_pair(0)
    outputs = model.get_outputs_for_camera(camera)
    metrics, images = model.get_image_metrics_and_images(outputs, batch)
    truth, image = batch["target"].image.double().numpy(), outputs["rgb"].double().numpy()

    def psnr(mask: np.ndarray) -> float:
        return float(-10 * np.log10(((truth - image)[mask] ** 2).mean()))

    hair = batch["target"].hair.numpy()
    face = (batch["target"].face_region | batch["target"].mouth_region).numpy()
    assert metrics["psnr"] == pytest.approx(psnr(np.ones_like(hair)), abs=1e-3)
    assert metrics["psnr_hair"] == pytest.approx(psnr(hair), abs=1e-3)
    assert metrics["psnr_face"] == pytest.approx(psnr(face), abs=1e-3)
    head, error = batch["head"].numpy(), np.abs(image - truth)
    band = cv2.dilate(head.astype(np.uint8), np.ones((5, 5))) > cv2.erode(head.astype(np.uint8), np.ones((5, 5)))
    broken = np.abs((image - truth) @ (0.299, 0.587, 0.114)) > 64 / 255
    assert metrics["cracks"] == (broken & band).sum()
    assert metrics["broken_face"] == pytest.approx(broken[head].mean())
    assert metrics["seam_l1"] == pytest.approx(error.mean(-1)[band].mean(), abs=1e-5)
    assert ("lpips_face" in metrics) == ("lpips" in metrics) and metrics["sharpness_face"] > 0
    assert torch.equal(images["composition"], torch.cat([batch["target"].image, outputs["rgb"]], 1))
