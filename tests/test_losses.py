import pytest
import torch
from pytorch_msssim import ssim

from degstalk_ns.avatar.boxes import Area
from degstalk_ns.metrics.lpips import padded_to
from degstalk_ns.training.losses import (
    alpha_loss,
    crop_perceptual,
    jaw_loss,
    l1_dssim,
    off_region,
    patch_perceptual,
    spread_in_cells,
)


def _pair(height: int = 48, width: int = 56) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images that differ only in rows 10..29, columns 20..39."""
    torch.manual_seed(0)
    image = torch.rand(height, width, 3, dtype=torch.float64)
    target = image.clone()
    target[10:30, 20:40] = torch.rand(20, 20, 3, dtype=torch.float64)
    return image, target


def test_losses_on_the_box_equal_those_of_the_whole_image() -> None:
    image, target = _pair()
    l1, dssim = l1_dssim(image, target, (10, 30, 20, 40))
    assert torch.allclose(l1, (image - target).abs().mean())
    whole = 1 - ssim(image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None], data_range=1.0)
    assert torch.allclose(dssim, whole, atol=1e-9)


@pytest.mark.parametrize("box", [(0, 3, 0, 3), (45, 48, 50, 56), (0, 48, 0, 56), (20, 21, 20, 21), (0, 0, 0, 0)])
def test_boxes_at_the_border_and_empty_ones(box: tuple[int, int, int, int]) -> None:
    image, _ = _pair()
    target = image.clone()
    target[box[0] : box[1], box[2] : box[3]] += 0.1
    l1, dssim = l1_dssim(image, target, box)
    whole = 1 - ssim(image.permute(2, 0, 1)[None], target.permute(2, 0, 1)[None], data_range=1.0)
    assert torch.allclose(l1, (image - target).abs().mean())
    # SSIM's window must see the same pixels: the box reaches into every window that the difference touches.
    assert torch.allclose(dssim, whole, atol=1e-9)


def test_small_terms() -> None:
    assert jaw_loss(torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 0.5])) == pytest.approx(0.5)
    alpha = torch.full((2, 2, 1), 0.25)
    mask = torch.tensor([[True, False], [False, False]])
    assert alpha_loss(alpha, mask) == pytest.approx((0.75 + 0.75) / 4)
    # Of a part that was cut out of twice as many pixels: outside it both are 0.
    assert alpha_loss(alpha, mask, Area((0, 2, 0, 2), 2, 4)) == pytest.approx((0.75 + 0.75) / 8)
    assert off_region(torch.ones(2, 2) * 3, mask) == pytest.approx(3)
    assert off_region(torch.ones(2, 2), mask & ~mask) == 0


def test_padding_reaches_the_size_asked_for() -> None:
    small = torch.rand(2, 3, 5, 40)
    padded = padded_to(small, 32)
    assert padded.shape == (2, 3, 32, 40)
    assert torch.equal(padded[:, :, 13:18], small)
    assert padded_to(padded, 32) is padded


def _fake_lpips(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    assert a.shape == b.shape and min(a.shape[2:]) >= 32
    return (a - b).abs().mean((1, 2, 3))


def test_crop_perceptual_survives_tiny_and_empty_lips() -> None:
    image, target = _pair()
    assert crop_perceptual(image, target, (12, 15, 22, 24), _fake_lpips) > 0
    assert crop_perceptual(image, target, (0, 0, 0, 0), _fake_lpips) == 0


def test_patches_cover_the_box_and_weigh_as_the_whole_image() -> None:
    torch.manual_seed(1)
    image = torch.rand(256, 256, 3)
    target = image.clone()
    target[100:150, 60:130] += 0.2
    generator = torch.Generator().manual_seed(0)
    whole = (image - target).abs().mean()
    values = [patch_perceptual(image, target, (100, 150, 60, 130), (32, 32), _fake_lpips, generator) for _ in range(20)]
    # 32 divides 256, so every grid that covers the box gives the mean over the whole image.
    assert torch.allclose(torch.stack(values), whole.expand(20), rtol=1e-4)
    assert patch_perceptual(image, target, (0, 0, 0, 0), (32, 42), _fake_lpips, generator) == 0


def test_some_patches_stand_for_all_of_them() -> None:
    torch.manual_seed(2)
    image, target = torch.rand(2, 128, 128, 3).unbind()
    seen: list[int] = []

    def counting(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return _fake_lpips(images, targets)

    generator = torch.Generator().manual_seed(0)
    arguments = (image, target, (0, 128, 0, 128), (32, 32), counting, generator, None)
    values = torch.stack([patch_perceptual(*arguments, 0.25) for _ in range(400)])
    assert set(seen) == {4}
    assert values.std() > 0
    assert float(values.mean()) == pytest.approx(float((image - target).abs().mean()), rel=1e-3)
    seen.clear()
    patch_perceptual(*arguments, 1e-6)
    assert seen == [1]


def test_patches_larger_than_the_image_are_cut_to_it() -> None:
    image = torch.rand(40, 40, 3)
    value = patch_perceptual(image, image + 0.1, (5, 20, 5, 20), (64, 96), _fake_lpips, torch.Generator())
    assert value == pytest.approx(0.1, rel=1e-3)


def _spread_plainly(values: torch.Tensor, places: torch.Tensor, edge: float, start: torch.Tensor) -> torch.Tensor:
    """`spread_in_cells` cell by cell, the means differentiated too."""
    cells = [tuple(row) for row in torch.floor(places / edge + start).long().tolist()]
    squares = []
    for cell in set(cells):
        members = values[[index for index, other in enumerate(cells) if other == cell]]
        squares.append((members - members.mean(0)).square())
    return torch.cat(squares).mean()


@pytest.mark.parametrize("edge", [1e-6, 0.01, 0.05, 10.0])
def test_the_spread_in_cells_and_its_gradient_are_those_of_each_cell(edge: float) -> None:
    random = torch.Generator().manual_seed(3)
    places = torch.rand(200, 3, generator=random, dtype=torch.float64) - 0.5
    places[100:] = places[:100] * 0.01  # crowded in the middle
    values = torch.rand(200, 5, generator=random, dtype=torch.float64, requires_grad=True)
    start = torch.rand(3, generator=random, dtype=torch.float64)
    fast, plain = (f(values, places, edge, start) for f in (spread_in_cells, _spread_plainly))
    assert fast.item() == pytest.approx(plain.item(), abs=1e-15)
    gradients = [torch.autograd.grad(value, values)[0] for value in (fast, plain)]
    assert torch.allclose(*gradients, atol=1e-15)
    assert (fast > 0) == (edge > 1e-5)


def test_neighbours_that_agree_cost_nothing_however_they_lie() -> None:
    places = torch.zeros(7, 3)
    values = torch.full((7, 4), 0.3, requires_grad=True)
    cost = spread_in_cells(values, places, 0.004, torch.full((3,), 0.999))
    cost.backward()
    assert cost.item() == pytest.approx(0.0, abs=1e-12)
    assert spread_in_cells(values[:1], places[:1], 0.004, torch.zeros(3)).item() == 0.0
