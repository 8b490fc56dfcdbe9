"""Trained avatars and training runs as the benchmarks want them, on the smallest real ones."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from degstalk_ns.avatar.avatar import REGIONS
from degstalk_ns.bench import train
from degstalk_ns.bench.adapters import TrainingRun, _resized, played
from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.errors import UserError
from degstalk_ns.plugin.trainer import DegstalkTrainerConfig
from degstalk_ns.training.objective import FrameTarget


def _method() -> DegstalkTrainerConfig:
    method = deepcopy(degstalk_fast.config)
    method.machine.device_type = "cpu"
    avatar = method.pipeline.model.avatar
    avatar.face.num_points, avatar.mouth.num_points = 300, 100
    return method


@pytest.fixture(scope="module")
def run(dataset: Path) -> Iterator[TrainingRun]:
    """A new avatar of 300 + 100 Gaussians. Tests leave its size as it was."""
    run = TrainingRun(dataset, None, _method())
    yield run
    run.close()


def _parameters(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {
        f"{name}_{key}": value.detach().clone()
        for name in REGIONS
        for key, value in run.model.avatar.region(name).params.items()
    }


def test_every_stage_of_the_benchmark_is_that_of_the_schedule(run: TrainingRun) -> None:
    schedule = run.model.schedule
    assert schedule is not None
    found = {}
    for stage in train.STAGES:
        run.enter(stage)
        step = run._step
        found[stage] = (schedule.stage(step).name, schedule.perceptual(step), schedule.fuse_perceptual(step))
    assert found == {
        "static": ("STATIC", False, False),
        "motion": ("MOTION", False, False),
        "perceptual": ("MOTION", True, False),
        "fuse": ("FUSE", False, False),
        "fuse-perceptual": ("FUSE", False, True),
    }


@pytest.mark.parametrize("stage", ["static", "motion", "fuse"])
def test_a_step_trains_what_its_stage_trains_and_never_grows(run: TrainingRun, stage: str) -> None:
    run.enter(stage)
    before = _parameters(run)
    for _ in range(2):
        run.step()
    after = _parameters(run)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "face_sh0" in changed and ("face_means" in changed) == (stage != "fuse")
    assert run.describe() == {"face": 300, "mouth": 100, "width": 64, "height": 64}


def test_a_resized_run_steps_and_comes_back(run: TrainingRun) -> None:
    run.enter("motion")
    run.resize(200, 32)
    assert run.describe() == {"face": 150, "mouth": 50, "width": 32, "height": 32}
    run.step()
    face, mouth = run.raster_work()
    assert face.forward_bytes > mouth.forward_bytes  # three times the Gaussians, the same picture
    run.resize(None, None)
    whole = _parameters(run)
    assert run.describe() == {"face": 300, "mouth": 100, "width": 64, "height": 64}
    run.resize(800, None)
    doubled = _parameters(run)
    # Twice the Gaussians cover the same area, each a half of it.
    torch.testing.assert_close(
        doubled["face_scales"][::2].exp() * 2**0.5, whole["face_scales"].exp(), rtol=1e-5, atol=0
    )
    assert len({tuple(mean) for mean in doubled["face_means"].tolist()}) == 600
    run.step()
    run.resize(None, None)
    assert all(torch.equal(value, whole[name]) for name, value in _parameters(run).items())


def test_a_frame_at_another_size_has_its_masks_and_lips_there() -> None:
    image = torch.full((8, 8, 3), 0.25)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    target = FrameTarget(image, mask, ~mask, mask.T, (2, 4, 1, 7))
    small = _resized(target, 4)
    assert torch.equal(small.image, torch.full((4, 4, 3), 0.25)) and small.plate is None
    assert small.face_region.tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert torch.equal(small.mouth_region, ~small.face_region)
    assert small.hair.tolist() == [[True, True, False, False]] * 4
    large = _resized(FrameTarget(image, mask, ~mask, mask.T, (2, 4, 1, 7), 2 * image), 16)
    assert large.lips == (4, 8, 2, 14)
    assert large.plate is not None and torch.equal(large.plate, torch.full((16, 16, 3), 0.5))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(UserError, match="--data"):
        TrainingRun(None, None, _method())


def test_a_trained_avatar_goes_on_as_it_was_saved_and_leaves_no_files(trained_config: Path) -> None:
    shown = played(trained_config)
    run = TrainingRun(None, trained_config, _method())
    folder = Path(run._folder.name)
    try:
        assert any(folder.iterdir())
        for name, value in _parameters(run).items():
            region, key = name.split("_", 1)
            saved = shown.renderer.avatar.region(region).params[key]  # type: ignore[arg-type]
            assert torch.equal(value, saved), name
    finally:
        run.close()
    assert not folder.exists()


def test_an_avatar_is_played_on_its_validation_frames(trained_config: Path) -> None:
    shown = played(trained_config)
    assert shown.name == "tiny/degstalk-fast/only, step 39" and shown.moving and shown.notes == ()
    assert len(shown.shots) == 3 and shown.shots[0].view.width == 64
    plates = [shown.plate(place) for place in range(3)]
    assert all(plate.shape == (64, 64, 4) and 0.5 < plate.max() <= 1 and plate.min() >= 0 for plate in plates)
    assert not torch.equal(shown.shots[0].conditions.audio, shown.shots[2].conditions.audio)


def test_a_closed_run_leaves_no_writer_behind(dataset: Path) -> None:
    """nerfstudio's writers are the whole process's: one left behind would go on writing into a folder that is gone."""
    from nerfstudio.utils import writer  # at the top it would import itself, where it is the first of nerfstudio

    before = list(writer.EVENT_WRITERS)
    run = TrainingRun(dataset, None, _method())
    assert len(writer.EVENT_WRITERS) > len(before)
    run.close()
    assert writer.EVENT_WRITERS == before
