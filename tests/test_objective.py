from __future__ import annotations

import numpy as np
import pytest
import torch

from degstalk_ns.avatar.avatar import RegionRender
from degstalk_ns.avatar.fields.face import FaceOutput
from degstalk_ns.avatar.fields.mouth import MouthOutput
from degstalk_ns.avatar.gaussians import Offsets
from degstalk_ns.errors import UserError
from degstalk_ns.training.losses import LossConfig
from degstalk_ns.training.objective import (
    FrameTarget,
    background_key,
    face_region,
    face_terms,
    fuse_terms,
    mouth_terms,
    require_finite,
)

SIZE = 64
GREEN = torch.tensor([0.0, 1.0, 0.0])


def _target(seed: int = 0) -> FrameTarget:
    random = torch.Generator().manual_seed(seed)
    head = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    head[16:48, 16:48] = True
    mouth = torch.zeros_like(head)
    mouth[38:42, 28:36] = True
    hair = torch.zeros_like(head)
    hair[10:20, 16:48] = True
    image = torch.rand(SIZE, SIZE, 3, generator=random)
    return FrameTarget(image, head & ~mouth, mouth, hair, (34, 46, 24, 40), plate=image.clone())


def _exact(target: FrameTarget, mask: torch.Tensor, extras: int = 0) -> RegionRender:
    """A region that shows the frame inside ``mask`` and nothing elsewhere."""
    alpha = mask[..., None].float()
    return RegionRender(torch.cat([target.image * alpha, torch.zeros(SIZE, SIZE, extras)], -1), alpha, {})


def _face_motion(value: float = 0.0) -> FaceOutput:
    offsets = Offsets(torch.full((5, 3), value), torch.zeros(5, 3), torch.zeros(5, 4))
    return FaceOutput(offsets, torch.zeros(5), torch.zeros(5))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_perfect_face_costs_nothing() -> None:
    target = _target()
    render = _exact(target, target.face_region, extras=2)
    terms = face_terms(render, _face_motion(), target, LossConfig(), False, GREEN, None, _generator())
    assert set(terms) == {"face_l1", "face_dssim", "face_alpha", "face_offsets", "face_attention"}
    assert all(float(value) == pytest.approx(0, abs=1e-6) for value in terms.values())


def test_the_static_stage_has_image_terms_alone() -> None:
    target = _target()
    terms = face_terms(_exact(target, target.hair), None, target, LossConfig(), False, GREEN, None, _generator())
    assert set(terms) == {"face_l1", "face_dssim"} and all(value > 0 for value in terms.values())
    mouth = mouth_terms(
        _exact(target, target.hair), None, target, torch.zeros(3), LossConfig(), GREEN, None, _generator()
    )
    assert set(mouth) == {"mouth_l1", "mouth_dssim"} and all(value > 0 for value in mouth.values())


def test_ignored_hair_is_free_and_counted_hair_is_not() -> None:
    target = _target()
    render = _exact(target, target.face_region | target.hair, extras=2)
    free = face_terms(render, _face_motion(), target, LossConfig(), True, GREEN, None, _generator())
    counted = face_terms(render, _face_motion(), target, LossConfig(), False, GREEN, None, _generator())
    assert float(free["face_l1"]) == pytest.approx(0, abs=1e-7) and float(free["face_alpha"]) == 0
    assert float(counted["face_l1"]) > 0.01 and float(counted["face_alpha"]) > 0


def test_a_face_over_the_mouth_costs() -> None:
    target = _target()
    render = _exact(target, target.face_region | target.mouth_region, extras=2)
    terms = face_terms(render, _face_motion(), target, LossConfig(), False, GREEN, None, _generator())
    assert float(terms["face_l1"]) > 0


def test_attention_on_lips_and_hair_costs() -> None:
    target = _target()
    for channel, mask, costs in (
        (1, target.lips_mask(), True),
        (0, target.lips_mask() & ~target.hair, False),
        (0, target.hair, True),
        (1, target.hair, True),
    ):
        render = _exact(target, target.face_region, extras=2)
        render.extras[..., channel] = mask.float()
        terms = face_terms(render, _face_motion(), target, LossConfig(), False, GREEN, None, _generator())
        assert (float(terms["face_attention"]) > 0) is costs


def test_offsets_and_jaw_are_weighed() -> None:
    target, config = _target(), LossConfig()
    render = _exact(target, target.face_region, extras=2)
    terms = face_terms(render, _face_motion(0.5), target, config, False, GREEN, None, _generator())
    assert float(terms["face_offsets"]) == pytest.approx(0.5 * config.offsets)
    motion = MouthOutput(Offsets(torch.zeros(5, 3)), torch.tensor([0.3, 0.0, 0.0]))
    mouth = mouth_terms(
        _exact(target, target.mouth_region), motion, target, torch.zeros(3), config, GREEN, None, _generator()
    )
    assert float(mouth["jaw"]) == pytest.approx(0.1 * config.jaw)
    assert float(mouth["mouth_l1"]) == pytest.approx(0, abs=1e-7)


def test_the_mouth_may_reach_behind_the_lips_but_no_farther() -> None:
    target = _target()
    motion = MouthOutput(Offsets(torch.zeros(5, 3)), torch.zeros(3))
    arguments = (motion, target, torch.zeros(3), LossConfig(), GREEN, None, _generator())
    behind = mouth_terms(_exact(target, target.mouth_region | target.lips_mask()), *arguments)
    beyond = mouth_terms(_exact(target, target.mouth_region | target.face_region), *arguments)
    assert float(behind["mouth_l1"]) == pytest.approx(0, abs=1e-7) and float(behind["mouth_alpha"]) == 0
    assert float(beyond["mouth_l1"]) > 0.01 and float(beyond["mouth_alpha"]) > 0


def test_fuse_compares_the_whole_frame() -> None:
    target = _target()
    face, mouth = _exact(target, target.face_region), _exact(target, target.mouth_region)
    perfect = fuse_terms(face, mouth, target, LossConfig(), None, _generator())
    assert all(float(value) == pytest.approx(0, abs=1e-6) for value in perfect.values())
    assert target.plate is not None
    target.plate[20:30, 20:30] = 0
    hidden = fuse_terms(face, mouth, target, LossConfig(), None, _generator())
    assert float(hidden["fuse_l1"]) == pytest.approx(0, abs=1e-7)  # behind an opaque face
    nothing = _exact(target, target.face_region & ~target.face_region)
    assert float(fuse_terms(nothing, nothing, target, LossConfig(), None, _generator())["fuse_l1"]) > 0
    target.plate = None
    with pytest.raises(ValueError, match="plate"):
        fuse_terms(face, mouth, target, LossConfig(), None, _generator())


def test_perceptual_terms_are_there_when_asked_for() -> None:
    target = _target()

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))

    empty = _exact(target, target.hair & ~target.hair, extras=2)
    face = face_terms(empty, _face_motion(), target, LossConfig(), False, GREEN, distance, _generator())
    assert float(face["face_lips_lpips"]) > 0 and float(face["face_patch_lpips"]) > 0
    fuse = fuse_terms(empty, empty, target, LossConfig(), distance, _generator())
    assert "fuse_lpips" in fuse


def test_patches_are_fractions_of_the_whole_frame() -> None:
    target, seen = _target(), set[tuple[int, ...]]()

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.add(tuple(a.shape[2:]))
        return (a - b).abs().mean((1, 2, 3))

    empty = _exact(target, target.hair & ~target.hair, extras=2)
    config = LossConfig(mouth_patch=(40 / SIZE, 40 / SIZE))  # the frame is then cropped to less than its height
    fuse_terms(empty, empty, target, config, distance, _generator())
    assert seen == {(40, 40)}


def test_background_key() -> None:
    assert torch.equal(background_key(False, _generator(), torch.zeros(1)), GREEN)
    generator = _generator()
    first, second = (background_key(True, generator, torch.zeros(1)) for _ in range(2))
    assert not torch.equal(first, second) and ((first >= 0) & (first <= 1)).all()


def test_face_region_grows_and_leaves_the_mouth_out() -> None:
    head = np.zeros((32, 32), bool)
    head[10:20, 10:20] = True
    mouth = np.zeros_like(head)
    mouth[15:17, 13:17] = True
    region = face_region(head & ~mouth, mouth, 7)
    assert region.sum() == 16 * 16 - 8 and not (region & mouth).any()


def test_a_loss_that_is_not_finite_stops_the_training_and_is_named() -> None:
    terms = {"a": torch.tensor(1.0), "b": torch.tensor(float("nan")), "c": torch.tensor(float("inf"))}
    with pytest.raises(UserError, match=r"term b is not finite at step 3;.*--load-dir"):
        require_finite(terms, "at step 3")
    require_finite({"a": torch.tensor(1.0)}, "at step 3")
