from __future__ import annotations

import numpy as np
import pytest
import torch

from degstalk_ns.avatar.avatar import RegionRender
from degstalk_ns.avatar.boxes import Area
from degstalk_ns.avatar.fields.face import FaceOutput
from degstalk_ns.avatar.fields.mouth import MouthOutput
from degstalk_ns.avatar.gaussians import EmbeddedGaussians, GaussiansConfig, Offsets
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
    smoothness_terms,
)

SIZE = 64
GREEN = torch.tensor([0.0, 1.0, 0.0])


def _target(in_front: bool = False, seed: int = 0) -> FrameTarget:
    """Hair over the upper rows of the face, and above it. With ``in_front`` the face has skin under it."""
    random = torch.Generator().manual_seed(seed)
    head = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    head[16:48, 16:48] = True
    mouth = torch.zeros_like(head)
    mouth[38:42, 28:36] = True
    hair = torch.zeros_like(head)
    hair[10:20, 16:48] = True
    image = torch.rand(SIZE, SIZE, 3, generator=random)
    target = FrameTarget(image, head & ~mouth, mouth, hair, (34, 46, 24, 40), plate=image.clone())
    if in_front:
        target.under_hair = hair & head
        target.face_image = torch.where(target.under_hair[..., None], torch.tensor([0.8, 0.6, 0.5]), image)
    return target


def _exact(target: FrameTarget, mask: torch.Tensor, extras: int = 0, skin: bool = False) -> RegionRender:
    """A region that shows the frame inside ``mask``, with ``skin`` under the hair, and nothing elsewhere."""
    alpha, shown = mask[..., None].float(), target.face_image if skin else target.image
    assert shown is not None
    return RegionRender(torch.cat([shown * alpha, torch.zeros(SIZE, SIZE, extras)], -1), alpha, {})


def _face_motion(value: float = 0.0) -> FaceOutput:
    offsets = Offsets(torch.full((5, 3), value), torch.zeros(5, 3), torch.zeros(5, 4))
    return FaceOutput(offsets, torch.zeros(5), torch.zeros(5))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _face_terms(
    target: FrameTarget,
    render: RegionRender,
    ignore_hair: bool = False,
    config: LossConfig | None = None,
    motion: FaceOutput | None = None,
) -> dict[str, float]:
    """Of the motion stage, over green, without LPIPS."""
    motion, config = motion or _face_motion(), config or LossConfig()
    terms = face_terms(render, motion, target, config, ignore_hair, GREEN, None, _generator())
    return {name: float(value) for name, value in terms.items()}


def _share(mask: torch.Tensor) -> float:
    """Pixels of a mask as a share of the frame."""
    return int(mask.sum()) / SIZE**2


@pytest.mark.parametrize("ignore_hair", [False, True])
def test_a_perfect_face_costs_nothing(ignore_hair: bool) -> None:
    target = _target(in_front=True)
    render = _exact(target, target.face_region, extras=2, skin=True)
    terms = _face_terms(target, render, ignore_hair)
    assert set(terms) == {"face_l1", "face_dssim", "face_alpha", "face_offsets", "face_attention"}
    assert terms == pytest.approx(dict.fromkeys(terms, 0.0), abs=1e-6)


def test_without_hair_in_front_a_perfect_face_ends_at_the_hair() -> None:
    target = _target()
    terms = _face_terms(target, _exact(target, target.face_region & ~target.hair, extras=2), ignore_hair=True)
    assert terms == pytest.approx(dict.fromkeys(terms, 0.0), abs=1e-6)


def test_the_static_stage_has_image_terms_alone() -> None:
    target = _target()
    terms = face_terms(_exact(target, target.hair), None, target, LossConfig(), False, GREEN, None, _generator())
    assert set(terms) == {"face_l1", "face_dssim"} and all(value > 0 for value in terms.values())
    mouth = mouth_terms(
        _exact(target, target.hair), None, target, torch.zeros(3), LossConfig(), GREEN, None, _generator()
    )
    assert set(mouth) == {"mouth_l1", "mouth_dssim"} and all(value > 0 for value in mouth.values())


@pytest.mark.parametrize("in_front", [False, True])
def test_the_colours_of_ignored_hair_are_free_but_hair_is_never_face(in_front: bool) -> None:
    target, config = _target(in_front), LossConfig()
    render = _exact(target, target.face_region | target.hair, extras=2, skin=in_front)
    free, counted = _face_terms(target, render, True), _face_terms(target, render, False)
    assert free["face_l1"] == pytest.approx(0, abs=1e-7) and counted["face_l1"] > 0.01
    hair = target.hair & ~target.face_region if in_front else target.hair
    assert torch.equal(target.free_hair, hair)
    assert free["face_alpha"] == counted["face_alpha"] == pytest.approx(config.alpha * _share(hair))


@pytest.mark.parametrize("ignore_hair", [False, True])
def test_under_the_hair_the_face_is_compared_with_skin(ignore_hair: bool) -> None:
    target = _target(in_front=True)
    assert target.face_image is not None and target.under_hair is not None
    hairy = _face_terms(target, _exact(target, target.face_region, extras=2), ignore_hair)
    error = (target.image - target.face_image)[target.under_hair].abs().sum() / (3 * SIZE**2)
    assert error > 0.005 and hairy["face_l1"] == pytest.approx(float(error), rel=1e-5)
    # A face that ends at the hair lacks alpha there.
    short = _face_terms(target, _exact(target, target.face_region & ~target.hair, extras=2, skin=True), ignore_hair)
    assert short["face_alpha"] == pytest.approx(LossConfig().alpha * _share(target.under_hair))


def test_a_face_over_the_mouth_costs() -> None:
    target = _target()
    terms = _face_terms(target, _exact(target, target.face_region | target.mouth_region, extras=2))
    assert terms["face_l1"] > 0


def test_attention_costs_on_lips_and_on_hair_that_counts() -> None:
    target, config = _target(in_front=True), LossConfig()
    assert target.under_hair is not None
    audio, expression = 0, 1
    for channel, mask, costs, costs_ignored in (
        (expression, target.lips_mask(), 1, 1),
        (audio, target.lips_mask(), 0, 0),
        (audio, target.free_hair, 1, 0),
        (expression, target.free_hair, 1, 0),
        (audio, target.under_hair, 0, 0),
        (expression, target.under_hair, 0, 0),
    ):
        render = _exact(target, target.face_region, extras=2, skin=True)
        render.extras[..., channel] = mask.float()
        for ignored, cost in ((False, costs), (True, costs_ignored)):
            attention = _face_terms(target, render, ignored)["face_attention"]
            assert attention == pytest.approx(cost * config.attention)


def test_an_error_at_the_lips_can_be_made_to_count_more() -> None:
    target = _target(in_front=True)
    render = _exact(target, target.face_region, extras=2, skin=True)
    render.colour[20:48, 24:40] += 0.3 * render.alpha[20:48, 24:40]  # the lips' columns, from above the box to below
    assert "face_lips_l1" not in _face_terms(target, render)
    lips = _face_terms(target, render, config=LossConfig(lips_l1=2.0))["face_lips_l1"]
    assert lips == pytest.approx(2.0 * 0.3 * _share(target.lips_mask() & ~target.mouth_region), rel=1e-5)
    static = face_terms(render, None, target, LossConfig(lips_l1=2.0), False, GREEN, None, _generator())
    assert set(static) == {"face_l1", "face_dssim"}


def test_offsets_and_jaw_are_weighed() -> None:
    target, config = _target(), LossConfig()
    render = _exact(target, target.face_region, extras=2)
    terms = _face_terms(target, render, motion=_face_motion(0.5))
    assert terms["face_offsets"] == pytest.approx(0.5 * config.offsets)
    motion = MouthOutput(Offsets(torch.zeros(5, 3)), torch.tensor([0.3, 0.0, 0.0]))
    mouth = mouth_terms(
        _exact(target, target.mouth_region), motion, target, torch.zeros(3), config, GREEN, None, _generator()
    )
    assert float(mouth["jaw"]) == pytest.approx(0.1 * config.jaw)
    assert float(mouth["mouth_l1"]) == pytest.approx(0, abs=1e-7)


def test_the_mouth_is_an_opaque_backing_of_the_lips_and_reaches_no_farther() -> None:
    target, config = _target(), LossConfig()
    target.mouth_region[44:48, 30:34] = True  # its last two rows lie below the box of the lips
    target.face_region &= ~target.mouth_region
    motion = MouthOutput(Offsets(torch.zeros(5, 3)), torch.zeros(3))
    arguments = (motion, target, torch.zeros(3), config, GREEN, None, _generator())
    lips = target.lips_mask()
    behind = mouth_terms(_exact(target, target.mouth_region | lips), *arguments)
    assert float(behind["mouth_l1"]) == pytest.approx(0, abs=1e-7) and float(behind["mouth_alpha"]) == 0
    alone = mouth_terms(_exact(target, target.mouth_region), *arguments)
    assert float(alone["mouth_l1"]) == pytest.approx(0, abs=1e-7)
    assert float(alone["mouth_alpha"]) == pytest.approx(config.alpha * _share(lips & ~target.mouth_region))
    beyond = mouth_terms(_exact(target, target.mouth_region | lips | target.face_region), *arguments)
    assert float(beyond["mouth_l1"]) > 0.01
    assert float(beyond["mouth_alpha"]) == pytest.approx(config.alpha * _share(target.face_region & ~lips))
    # Also where nothing is rendered and nothing of the mouth is seen, the backing is missing.
    target.mouth_region[:] = False
    nothing = mouth_terms(_exact(target, target.mouth_region), *arguments)
    assert float(nothing["mouth_alpha"]) == pytest.approx(config.alpha * _share(lips))


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


def test_hair_in_front_hides_the_face_under_it_from_the_fuse_stage() -> None:
    target = _target(in_front=True)
    assert target.plate is not None
    face, mouth = _exact(target, target.face_region, skin=True), _exact(target, target.mouth_region)
    bare = fuse_terms(face, mouth, target, LossConfig(), None, _generator())
    assert float(bare["fuse_l1"]) > 0.005
    target.plate = torch.cat([target.plate, target.hair[..., None].float()], -1)
    hidden = fuse_terms(face, mouth, target, LossConfig(), None, _generator())
    assert set(hidden) == {"fuse_l1", "fuse_dssim"}
    assert all(float(value) == pytest.approx(0, abs=1e-6) for value in hidden.values())


def test_a_part_of_a_target_is_cut_from_all_that_it_holds() -> None:
    whole = _target(in_front=True)
    part = whole.cropped(Area((8, 40, 20, 60), SIZE, SIZE))
    assert part.lips == (26, 32, 4, 20)
    for name in ("image", "face_region", "mouth_region", "hair", "plate", "under_hair", "face_image", "free_hair"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[8:40, 20:60]), name
    bare = _target().cropped(Area((8, 40, 20, 60), SIZE, SIZE))
    assert bare.under_hair is None and bare.face_image is None and torch.equal(bare.free_hair, bare.hair)
    moved = whole.to("meta")
    kept = (moved.image, moved.hair, moved.plate, moved.under_hair, moved.face_image)
    assert all(tensor is not None and tensor.is_meta for tensor in kept)


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


def test_neighbours_are_to_have_like_embeddings() -> None:
    face = EmbeddedGaussians(GaussiansConfig(num_points=300))
    generator = torch.Generator().manual_seed(0)
    losses = LossConfig(smoothness=2.0, smoothness_cell=10.0)
    assert smoothness_terms(face, LossConfig(), generator) == {}
    assert smoothness_terms(face, losses, generator)["face_smoothness"].item() == 0.0  # all are zero at the start
    with torch.no_grad():
        face.embeddings.normal_(generator=generator)
    terms = smoothness_terms(face, losses, generator)
    assert terms["face_smoothness"].item() > 1.0  # twice the variance, but for how the few cells divide them
    terms["face_smoothness"].backward()
    assert face.embeddings.grad is not None and bool(face.embeddings.grad.any())


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
