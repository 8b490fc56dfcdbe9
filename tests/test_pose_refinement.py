"""Corrections of poses: small rigid motions of the head, found again through the rasterizer."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import torch
from conftest import brief_trainer
from test_avatar import _view

from degstalk_ns.avatar.pose_refinement import USUAL_ANGLE, USUAL_SHIFT, PoseRefinement
from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.rasterization import rasterize


def test_at_the_start_nothing_is_corrected() -> None:
    view = _view()
    assert torch.equal(PoseRefinement(3)(view, 1).viewmat, view.viewmat)
    assert float(PoseRefinement(3).penalty(1)) == 0


def test_a_correction_turns_and_shifts_the_head_in_the_world() -> None:
    poses, view = PoseRefinement(2), _view()
    with torch.no_grad():
        poses.corrections[1] = torch.tensor([0.0, 0.0, math.pi / 2 / USUAL_ANGLE, 1.0, 2.0, 3.0])
    point = torch.tensor([0.1, 0.0, 0.0, 1.0])
    moved = torch.tensor([0.0 + USUAL_SHIFT, 0.1 + 2 * USUAL_SHIFT, 3 * USUAL_SHIFT, 1.0])
    assert torch.allclose(poses(view, 1).viewmat @ point, view.viewmat @ moved, atol=1e-6)
    rotation = poses(view, 1).viewmat[:3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
    assert torch.equal(poses(view, 0).viewmat, view.viewmat) and float(poses.penalty(1)) > 1


def _picture(poses: PoseRefinement, means: torch.Tensor) -> torch.Tensor:
    view = poses(_view(), 0)
    count = len(means)
    image, _, _ = rasterize(
        means,
        torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        torch.full((count, 3), 0.012),
        torch.full((count,), 0.8),
        torch.rand(count, 3, generator=torch.Generator().manual_seed(2)),
        view.viewmat[None],
        view.K[None],
        view.width,
        view.height,
    )
    return image


def test_a_pose_that_is_off_is_found_through_the_rasterizer() -> None:
    means = 0.06 * torch.randn(300, 3, generator=torch.Generator().manual_seed(1))
    true, found = PoseRefinement(2), PoseRefinement(2)
    with torch.no_grad():
        true.corrections[0] = torch.tensor([2.0, -3.0, 2.0, 1.5, -2.0, 0.0])
        target = _picture(true, means)
    optimizer = torch.optim.SparseAdam(found.parameters(), lr=0.1)
    errors = []
    for _ in range(120):
        error = (_picture(found, means) - target).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error))
    assert errors[-1] < 0.15 * errors[0]
    assert float((found.corrections - true.corrections)[0, :3].abs().max()) < 1.0
    assert not found.corrections[1].any()  # a frame that no step has shown


def test_training_learns_them_for_training_frames_alone_and_keeps_them(dataset: Path, tmp_path: Path) -> None:
    config = deepcopy(degstalk_fast.config)
    config.pipeline.model.refine_poses = True
    trainer = brief_trainer(dataset, tmp_path, 40, method=config)
    trainer.train()
    poses = trainer.pipeline.model.poses
    recording = trainer.pipeline.model.recording
    seen = poses.corrections.abs().amax(1) > 0
    assert seen[torch.from_numpy(recording.train.aud_ids.copy())].any()
    assert not seen[torch.from_numpy(recording.val.aud_ids.copy())].any()
    run = load_run(trainer.config.get_base_dir() / "config.yml")
    assert torch.equal(run.model.poses.corrections.cpu(), poses.corrections.detach())


def test_without_the_option_there_is_nothing_to_learn(dataset: Path, tmp_path: Path) -> None:
    trainer = brief_trainer(dataset, tmp_path)
    assert trainer.pipeline.model.poses is None and "poses" not in trainer.pipeline.model.get_param_groups()
