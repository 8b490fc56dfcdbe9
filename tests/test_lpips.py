from __future__ import annotations

import torch
from torch import nn

from degstalk_ns.metrics.lpips import feature_distance


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
