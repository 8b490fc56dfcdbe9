"""The variants of the paper: each trains, renders and is saved, and exactly what defines it is absent."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import brief_trainer

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.new_sound import NewSoundConfig
from degstalk_ns.audio.sound import load_sound
from degstalk_ns.bench.look_ahead import bench_look_ahead
from degstalk_ns.configs import variants
from degstalk_ns.configs.methods import degstalk, degstalk_fast
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.dataparsers.options import ReadOptions
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.plugin.trainer import DegstalkTrainer
from degstalk_ns.training.stages import Schedule, Stage

NAMES = ("degstalk-no-embedding", "degstalk-au", "degstalk-no-fuse", "degstalk-no-hair", "talking-gaussian")
STEPS = 40
LACKS = {
    "degstalk": "",
    "degstalk-no-embedding": "E",
    "degstalk-au": "F",
    "degstalk-no-fuse": "R",
    "degstalk-no-hair": "H",
    "talking-gaussian": "EFH",
}


def _spec(name: str):  # type: ignore[no-untyped-def]
    return getattr(variants, name.replace("-", "_"))


def test_nerfstudio_lists_all_of_them_under_their_names() -> None:
    listed = {entry.name: entry for entry in entry_points(group="nerfstudio.method_configs")}
    for name in (f"{name}{fast}" for name in NAMES for fast in ("", "-fast")):
        spec = listed[name].load()
        assert spec.config.method_name == name and spec is _spec(name)
        assert spec.description.startswith("degstalk-fast" if name.endswith("-fast") else "degstalk ")


def test_making_them_leaves_the_methods_as_they_are() -> None:
    for spec in (degstalk, degstalk_fast):
        model, parser = spec.config.pipeline.model, spec.config.pipeline.datamanager.dataparser
        assert model.avatar.face.embedding_dim == model.avatar.mouth_field.embedding_dim == 32
        assert model.schedule.motion_end < 1 and (parser.signals, parser.hair_in_head) == ("expression", False)


@pytest.mark.parametrize("name", ["degstalk", *NAMES])
def test_a_variant_lacks_what_defines_it_and_nothing_else(name: str, dataset: Path, tmp_path: Path) -> None:
    spec = degstalk_fast if name == "degstalk" else _spec(f"{name}-fast")
    lacks = LACKS[name]
    trainer = brief_trainer(dataset, tmp_path, STEPS, method=spec.config)
    stages: list[Stage] = []
    model, manager = trainer.pipeline.model, trainer.pipeline.datamanager
    plates: list[torch.Tensor] = []
    hair: list[bool] = []
    read = manager.next_train

    def next_train(step: int):  # type: ignore[no-untyped-def]
        cameras, batch = read(step)
        stages.append(model.schedule.stage(step))
        if batch["face"].plate is not None:
            plates.append(batch["face"].plate)
        hair.append(bool(batch["face"].hair.any()))
        return cameras, batch

    manager.next_train = next_train
    trainer.train()

    state = {key for key, _ in trainer.pipeline.named_parameters()}
    assert any("embeddings" in key for key in state) == ("E" not in lacks)
    recording = model.recording
    face, mouth = model.avatar.face_field, model.avatar.mouth_field
    first = face.expression.layers[0].weight.shape[1]
    assert first == (7 if "F" in lacks else 50)
    assert (recording.eyelids.shape[1], recording.jaw.shape[1]) == ((0, 0) if "F" in lacks else (2, 3))
    assert (mouth.jaw_layers is None) == ("F" in lacks) == (mouth.expression is None)
    assert (Stage.FUSE in stages) == ("R" not in lacks) == bool(plates)
    assert set(stages) >= {Stage.STATIC, Stage.MOTION}
    assert any(hair) == ("H" not in lacks)
    for plate in plates:
        assert plate.shape[-1] == (3 if "H" in lacks else 4)
    _rendered_again(trainer)


def _rendered_again(trainer: DegstalkTrainer) -> None:
    """The saved run renders what the trained one does, and speaks."""
    run = load_run(trainer.config.get_base_dir() / "config.yml")
    trainer.pipeline.eval()
    camera, _ = trainer.pipeline.datamanager.eval_pair(0)
    images = [
        pipeline.model.get_outputs_for_camera(camera)["rgb"].detach() for pipeline in (trainer.pipeline, run.pipeline)
    ]
    assert torch.equal(*images) and float(images[0].std()) > 0
    sound = load_sound(run.recording.layout.audio)
    animation = Animation.from_sound(sound, run.recording, config=NewSoundConfig(ears="mel"))
    assert torch.isfinite(run.portrait.frame(run.portrait.frames.view(0), animation.conditions(3), _plate(run))).all()


def _plate(run) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.from_numpy(run.portrait.frames.plate(0).copy())


def test_a_run_without_fusion_is_the_first_part_of_the_whole_one() -> None:
    whole, part = degstalk.config, variants.degstalk_no_fuse.config
    total, steps = whole.max_num_iterations, part.max_num_iterations
    assert (total, steps) == (60_000, 50_000)
    before = Schedule(whole.pipeline.model.schedule, total)
    after = Schedule(part.pipeline.model.schedule, steps)
    for step in range(0, steps, 97):
        for ask in ("stage", "perceptual", "finishes_mouth", "silent", "progress"):
            assert getattr(before, ask)(step) == pytest.approx(getattr(after, ask)(step)), (ask, step)
        for kind in ("face_means", "face_field_grids"):
            from degstalk_ns.training.stages import LearningRateKind

            kind_of = LearningRateKind.of(kind)
            assert before.rate_factor(step, kind_of) == pytest.approx(after.rate_factor(step, kind_of), rel=1e-3)
        assert before.growth("face").grows(step) == after.growth("face").grows(step)
        assert before.ignores_hair(step, 7) == after.ignores_hair(step, 7)
        assert before.sh_degree(step, 2) == after.sh_degree(step, 2)


def test_a_head_with_hair_stands_before_torso_and_background_alone(dataset: Path) -> None:
    whole, alone = (read_recording(dataset, options=ReadOptions(hair_in_head=with_hair)) for with_hair in (False, True))
    kept, bare = read_frame(whole, 0), read_frame(alone, 0)
    assert kept.hair.any() and np.array_equal(kept.hair, bare.hair)
    assert np.array_equal(bare.shown_head, kept.head | kept.hair) and np.array_equal(kept.shown_head, kept.head)
    assert not bare.hair_behind.any() and np.array_equal(kept.hair_behind, kept.hair)
    clean, torso = bare._full_clean(), bare.torso_image
    outside = torso[..., 3] == 0
    assert np.array_equal(bare.plate[outside], clean[outside]) and bare.plate.shape[2] == 3
    assert np.array_equal(bare.plate, bare.freed_plate) and np.array_equal(bare.plate, bare.bare_freed_plate)
    assert not np.array_equal(bare.plate[kept.hair], kept.plate[..., :3][kept.hair])


def test_action_units_replace_the_whole_face_model(dataset: Path) -> None:
    recording = read_recording(dataset, options=ReadOptions(signals="action-units", units=("AU45_r", "AU01_r")))
    plain = read_recording(dataset)
    assert recording.expression_names == ("AU45_r", "AU01_r") and recording.expression.shape == (plain.num_frames, 2)
    np.testing.assert_allclose(np.clip(recording.expression[:, 0] / 2, 0, 1), recording.blink, atol=1e-6)
    np.testing.assert_array_equal(recording.mouth_opening, plain.mouth_opening)


def test_lips_that_follow_features_alone_know_no_look_ahead(dataset: Path) -> None:
    recording = read_recording(dataset, options=ReadOptions(signals="action-units"))
    with pytest.raises(UserError, match="alone, whose windows hear later sound"):
        bench_look_ahead(recording, lambda *_: {}, (0.24,), lambda _: None)
    with pytest.raises(UserError, match="alone, whose windows hear later sound"):
        Animation.from_sound(
            load_sound(recording.layout.audio), recording, config=NewSoundConfig(ears="mel", look_ahead=0.24)
        )


def test_units_that_stand_for_the_eyelids_are_not_compressed(dataset_copy: Path) -> None:
    path = Layout(dataset_copy).action_units
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    column = [name.strip() for name in header].index("AU45_r")
    rows[3][column] = "4.5"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    options = ReadOptions(signals="action-units", units=("AU01_r",), lid_units=("AU45_r", "AU04_r"))
    recording = read_recording(dataset_copy, options=options)
    assert recording.expression.shape[1] == 1 and recording.expression_names == ("AU01_r",)
    assert recording.eyelids.shape[1] == 2 and recording.eyelids[3, 0] == options.blink_full_scale
    with pytest.raises(UserError, match="has no column AU77_r"):
        read_recording(dataset_copy, options=ReadOptions(signals="action-units", lid_units=("AU77_r",)))


@pytest.mark.parametrize("units", [("AU01_r", "AU09_r"), ()])
def test_units_that_are_not_there_are_refused(dataset: Path, units: tuple[str, ...]) -> None:
    message = r"au\.csv: has no column AU09_r.*there are: AU01_r, AU02_r" if units else "no action units"
    with pytest.raises(UserError, match=message):
        read_recording(dataset, options=ReadOptions(signals="action-units", units=units))


def test_a_dataset_without_action_units_is_refused_only_where_they_drive(dataset_copy: Path) -> None:
    Layout(dataset_copy).action_units.unlink()
    assert read_recording(dataset_copy).expression.shape[1] == 50
    with pytest.raises(UserError, match=r"au\.csv: missing, and its action units are to drive the face"):
        read_recording(dataset_copy, options=ReadOptions(signals="action-units"))


def test_embeddings_must_fit_their_field_and_be_there_to_be_made_alike(dataset: Path, tmp_path: Path) -> None:
    from copy import deepcopy

    config = deepcopy(degstalk_fast.config)
    config.pipeline.model.avatar.face.embedding_dim = 0
    with pytest.raises((UserError, SystemExit)):
        brief_trainer(dataset, tmp_path / "a", method=config)
    config = deepcopy(variants.degstalk_no_embedding_fast.config)
    config.pipeline.model.losses.smoothness = 0.3
    with pytest.raises((UserError, SystemExit)):
        brief_trainer(dataset, tmp_path / "b", method=config)
