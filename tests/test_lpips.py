from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from degstalk_ns.metrics.lpips import ALEXNET_FILE, Lpips, _availability, feature_distance, prepare_lpips


def _network() -> tuple[list[nn.Module], list[torch.Tensor]]:
    torch.manual_seed(0)
    slices: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU()),
    ]
    return [part.double().requires_grad_(False) for part in slices], [torch.rand(5).double(), torch.rand(7).double()]


def _written_out(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    slices, weights = _network()
    total = images.new_zeros(len(images))
    for part, weight in zip(slices, weights, strict=True):
        images, targets = part(images), part(targets)
        units = [x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt() for x in (images, targets)]
        total = total + ((units[0] - units[1]).square() * weight[:, None, None]).sum(1).mean((1, 2))
    return total


def test_values_and_gradients_are_those_of_the_formula() -> None:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 14, 12, generator=random, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(4, 3, 14, 12, generator=random, dtype=torch.float64)
    targets[2] = images[2].detach()  # an equal pair among others
    factors = torch.rand(4, generator=random, dtype=torch.float64)
    results = []
    for function in (lambda: feature_distance(images, targets, *_network()), lambda: _written_out(images, targets)):
        images.grad = None
        value = function()
        (value * factors).sum().backward()
        assert images.grad is not None
        results.append((value.detach(), images.grad.clone()))
    assert float(results[0][0].min()) == 0 and float(results[0][0].max()) > 1e-3
    for ours, formula in zip(*results, strict=True):
        assert torch.allclose(ours, formula, atol=1e-9)


def test_equal_batches_are_zero_and_stay_in_the_graph() -> None:
    images = torch.rand(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    value = feature_distance(images, images.detach().clone(), *_network())
    value.sum().backward()
    assert value.abs().max() == 0 and images.grad is not None and images.grad.abs().max() == 0


def pair(size: int = 48, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(size, size, 3, generator=generator)
    image = (target + noise * torch.randn(size, size, 3, generator=generator)).clamp(0, 1)
    return image, target


@pytest.fixture
def lpips() -> Iterator[Lpips]:
    if not (Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE).exists():
        pytest.skip(f"no {ALEXNET_FILE} in {torch.hub.get_dir()}")
    assert prepare_lpips() is None
    yield Lpips()


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (31, 31), (32, 32), (64, 96)])
def test_lpips_of_any_size_is_finite_and_orders_images(lpips: Lpips, size: tuple[int, int]) -> None:
    height, width = size
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, height, width, generator=generator)
    little = (target + 0.05 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    much = torch.rand(target.shape, generator=generator)
    same, near, far = lpips(target, target), lpips(little, target), lpips(much, target)
    assert same.shape == (2,) and (same.abs() < 1e-6).all()
    assert torch.isfinite(far).all() and (far > near).all() and (near > 0).all()


def test_lpips_agrees_with_torchmetrics_and_has_gradients(lpips: Lpips) -> None:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    image, target = pair(80)
    x, y = (picture.permute(2, 0, 1)[None] for picture in (image, target))
    reference = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    assert lpips.distance(image, target) == pytest.approx(float(reference(x, y)), rel=1e-4)
    x.requires_grad_()
    lpips(x, y).sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0
    assert not list(lpips.parameters()) and not lpips.state_dict()


def test_lpips_refuses_what_alexnet_cannot_do() -> None:
    with pytest.raises(ValueError, match="two batches"):
        Lpips()(torch.zeros(1, 3, 40, 40), torch.zeros(1, 3, 40, 41))


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    return tmp_path / "hub" / "checkpoints"


def test_lpips_offline_says_why_in_one_line(empty_hub: Path) -> None:
    reason = prepare_lpips()
    assert reason is not None and "\n" not in reason
    assert str(empty_hub / ALEXNET_FILE) in reason and "no route to host" in reason and "TORCH_HOME" in reason
    assert not empty_hub.exists()


def test_damaged_weights_are_a_reason(empty_hub: Path) -> None:
    empty_hub.mkdir(parents=True)
    (empty_hub / ALEXNET_FILE).write_bytes(b"half a download")
    reason = prepare_lpips()
    assert reason is not None and "\n" not in reason and "cannot be used" in reason


def test_download_puts_checked_weights_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE
    if not source.exists():
        pytest.skip(f"no {source}")
    asked: list[str] = []

    class Answer:
        def close(self) -> None:
            pass

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append(hash_prefix)
        shutil.copy(source, path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer())
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert prepare_lpips() is None
    assert asked == ["7be5be79"]


@pytest.fixture(autouse=True)
def forget_availability() -> Iterator[None]:
    _availability.cache_clear()
    yield
