"""LPIPS' arithmetic on the features of a frozen network, arranged for training steps.

The value is torchmetrics' (which brings the network and its weights); here the target's features are computed without a
graph, features are laid out channels last, and images equal to their targets are left out. It must not know where the
network comes from, nor what the images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-8
"""Added to the squared length of a feature vector before it is normalised (Zhang et al., CVPR 2018, their code)."""


class _LayerDistance(torch.autograd.Function):
    """(features [B, h, w, C], unit target features likewise, weights [C]) -> weighted squared distance, [B]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        inverse = (features.square().sum(-1, keepdim=True) + EPSILON).rsqrt_()
        unit = features * inverse
        difference = unit - target
        weighted = difference * weights
        value = torch.linalg.vecdot(weighted, difference).mean((1, 2))
        ctx.save_for_backward(unit, inverse, weighted)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        unit, inverse, weighted = ctx.saved_tensors
        # d unit / d features = (I - unit unit^T) / length.
        along = torch.linalg.vecdot(unit, weighted)[..., None]
        scale = inverse * (upstream * 2.0 / (unit.shape[1] * unit.shape[2]))[:, None, None, None]
        return (weighted - unit * along) * scale, None, None


def unit_features(features: Tensor) -> Tensor:
    """[B, h, w, C] divided by their length along C."""
    return features / (features.square().sum(-1, keepdim=True) + EPSILON).sqrt()


def feature_distance(images: Tensor, targets: Tensor, slices: Sequence[nn.Module], weights: Sequence[Tensor]) -> Tensor:
    """LPIPS (Zhang et al., CVPR 2018, equation 1): how differently a network sees two batches.

    Args:
        images: [B, 3, h, w] as the network wants them; differentiable once.
        targets: same shape; no gradient reaches them.
        slices: the network up to each of its K layers that count, each continuing the one before.
        weights: [C_k] of each of these layers' channels.

    Returns:
        [B], 0 where an image equals its target.
    """
    differs = (images != targets).flatten(1).any(1).nonzero()[:, 0]
    if not len(differs):
        return images.flatten(1).sum(1) * 0.0
    whole = len(differs) == len(images)
    x = (images if whole else images[differs]).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = (targets if whole else targets[differs]).contiguous(memory_format=torch.channels_last)
    total = None
    for part, weight in zip(slices, weights, strict=True):
        x = part(x)
        with torch.no_grad():
            y = part(y)
            goal = unit_features(y.permute(0, 2, 3, 1))
        distance = _LayerDistance.apply(x.permute(0, 2, 3, 1), goal, weight)  # type: ignore[no-untyped-call]
        total = distance if total is None else total + distance
    assert total is not None
    return total if whole else images.new_zeros(len(images)).index_put((differs,), total)
