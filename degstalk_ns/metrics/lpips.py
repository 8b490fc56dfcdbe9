"""LPIPS' arithmetic on the features of a frozen network, arranged for training steps.

The value is torchmetrics' (which brings the network and its weights); here the target's features are computed without a
graph, features are laid out channels last, and images equal to their targets are left out. It must not know where the
network comes from, nor what the images show.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from degstalk_ns.metrics.image import check_same_shape

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


Perceptual = Callable[[Tensor, Tensor], Tensor]
"""LPIPS of two batches [B, 3, h, w] in 0..1: one value an image, [B]."""


def padded_to(patches: Tensor, size: int) -> Tensor:
    """Batches [B, 3, h, w] replicated at the borders to at least ``size`` a side: AlexNet needs that much."""
    missing_h, missing_w = max(size - patches.shape[2], 0), max(size - patches.shape[3], 0)
    if not missing_h and not missing_w:
        return patches
    left, top = missing_w // 2, missing_h // 2
    return F.pad(patches, (left, missing_w - left, top, missing_h - top), mode="replicate")


LPIPS_MINIMUM = 32
"""Pixels a side below which AlexNet's pooling has nothing left to pool."""


ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""Backbone of LPIPS as torchvision publishes it."""


ALEXNET_FILE = "alexnet-owt-7be5be79.pth"


DOWNLOAD_PROBE_SECONDS = 10.0
"""How long the server may take to answer before LPIPS counts as unavailable."""


def alexnet_path() -> Path:
    """Where AlexNet's weights are looked for."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE


def _build_lpips() -> nn.Module:
    """LPIPS' AlexNet with its linear layers, frozen; reads (or torchvision downloads) the weights."""
    # Imported here: the package loads slowly, and the metric is wanted only by some.
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    return metric.net.requires_grad_(False)


@lru_cache(maxsize=2)
def _availability(path: Path) -> str | None:
    if not path.exists():
        try:
            request = urllib.request.Request(ALEXNET_URL, method="HEAD")
            urllib.request.urlopen(request, timeout=DOWNLOAD_PROBE_SECONDS).close()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writes beside the target, checks the hash, then renames: nothing half-written stays.
            torch.hub.download_url_to_file(ALEXNET_URL, str(path), hash_prefix=ALEXNET_FILE[-12:-4], progress=False)
        except (OSError, RuntimeError, ValueError) as error:
            return (
                f"LPIPS is left out: {path} is missing and cannot be downloaded ({' '.join(str(error).split())}); "
                f"put {ALEXNET_URL} there or set TORCH_HOME"
            )
    try:
        _build_lpips()
    except Exception as error:  # whatever a damaged file or a missing package raises, it is a reason, not a crash
        return f"LPIPS is left out: {path} cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"
    return None


def prepare_lpips() -> str | None:
    """None where LPIPS can be computed, else one line that says why not.

    Looks for AlexNet's weights under ``torch.hub.get_dir()/checkpoints`` (TORCH_HOME), else downloads them (233 MiB).
    Call it before training: afterwards :class:`Lpips` needs no network.
    """
    return _availability(alexnet_path())


class Lpips(nn.Module):
    """LPIPS with AlexNet (Zhang et al., CVPR 2018), as a metric and, being differentiable, as a loss.

    Built when first used; build it only where :func:`prepare_lpips` is None. Images smaller than AlexNet's
    pooling allows (:data:`LPIPS_MINIMUM`) are padded by replicating their borders.
    """

    def __init__(self) -> None:
        super().__init__()
        self._net: list[nn.Module] = []  # in a list, so that its weights enter no checkpoint

    def network(self, device: torch.device) -> nn.Module:
        """The frozen network, on ``device``."""
        if not self._net:
            self._net.append(_build_lpips().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        return self._net[0].to(device)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Batches [B, 3, h, w] in 0..1 (values outside are allowed) -> one distance an image, [B]; 0 is equal."""
        if images.shape != targets.shape or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected two batches [B, 3, h, w], got {list(images.shape)} and {list(targets.shape)}")
        net: Any = self.network(images.device)
        image, target = (net.scaling_layer(2.0 * padded_to(part, LPIPS_MINIMUM) - 1.0) for part in (images, targets))
        alexnet, heads = net.net, (net.lin0, net.lin1, net.lin2, net.lin3, net.lin4)
        slices = (alexnet.slice1, alexnet.slice2, alexnet.slice3, alexnet.slice4, alexnet.slice5)
        return feature_distance(image, target, slices, [head.model[-1].weight.flatten() for head in heads])

    @torch.no_grad()
    def distance(self, image: Tensor, target: Tensor) -> float:
        """LPIPS of two images [H, W, 3] in 0..1."""
        check_same_shape(image, target)
        return float(self(*(picture.float().permute(2, 0, 1)[None] for picture in (image, target))))
