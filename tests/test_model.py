"""The model adapter on a short training: outputs and how they compose, stages, metrics."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import brief_trainer
from nerfstudio.cameras.cameras import Cameras

from degstalk_ns.animation.animation import silent_track
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.plugin.datamanager import TalkingHeadDataManager
from degstalk_ns.plugin.model import DegstalkModel
from degstalk_ns.plugin.runs import TrainedAvatar, load_run
from degstalk_ns.plugin.trainer import DegstalkTrainer


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
    """Equation 7, by hand."""
    model = load_run(trained_config).model
    model.overlaps_plate(0)  # what is shown without the rim is the renderer's business
    with torch.no_grad():  # after so few steps hardly anything of the face is left: make it large and half transparent
        model.avatar.region("face").params["scales"].fill_(math.log(0.02))
        model.avatar.region("face").params["opacities"].fill_(0.5)
    outputs = model.get_outputs_for_camera(manager.eval_dataset.cameras[0:1])
    face, mouth, plate = outputs["layers"].face, outputs["layers"].mouth, outputs["plate"]
    expected = face.colour + (1 - face.alpha) * (mouth.colour + (1 - mouth.alpha) * plate)
    torch.testing.assert_close(outputs["rgb"], expected.clamp(0, 1), atol=2e-5, rtol=0)
    assert 0.1 < float(face.alpha.mean()) < 0.9
    assert torch.equal(outputs["face"], face.colour.clamp(0, 1)) and torch.equal(outputs["face_alpha"], face.alpha)
    assert torch.equal(outputs["mouth"], mouth.colour.clamp(0, 1)) and torch.equal(outputs["mouth_alpha"], mouth.alpha)
    recorded = read_frame(model.recording, int(model.recording.val.img_ids[0]), what=("plate",)).plate
    torch.testing.assert_close(plate, torch.from_numpy(recorded.copy()).float() / 255)


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
    picture = model.frame(view, model.conditions(frame), outputs["plate"])
    torch.testing.assert_close(picture, outputs["rgb"], atol=1e-5, rtol=0)
    as_bytes = model.frame(view, model.conditions(frame), (outputs["plate"] * 255).round().to(torch.uint8))
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
    base = {name: group["optimizer"].lr for name, group in trainer.config.optimizers.items()}
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
    assert rate("face_means") == pytest.approx(base["face_means"] * 0.01 ** (50 / 86))
    fields = 0.5 ** (50 / 57)
    assert rate("mouth_field_networks") == pytest.approx(base["mouth_field_networks"] * fields)
    assert trained(99) == {"face_sh0", "face_shN", "mouth_sh0", "mouth_shN", "face_opacities"}
    assert rate("face_opacities") == pytest.approx(0.001)
    model.enter_step(0)


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
    assert torch.equal(images["composition"], torch.cat([batch["target"].image, outputs["rgb"]], 1))
