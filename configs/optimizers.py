"""Optimizers of every parameter group, with the release's rates.

How rates fall over a run is `stages.py`'s business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig

from degstalk_ns.avatar.avatar import SCENE_EXTENT


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam in one fused kernel a group, on CPU and CUDA."""

    _target: type = torch.optim.Adam
    fused: bool = True
    """One kernel for the whole group instead of several operations a tensor; the same numbers."""


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW of the fields (release: betas 0.9 and 0.99)."""

    _target: type = torch.optim.AdamW
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the running means of the gradient and of its square (release: 0.9 and 0.99)."""
    weight_decay: float = 0.0
    """Decoupled weight decay, per step and unit of learning rate (release: 1e-4 for the audio attention alone)."""
    fused: bool = True
    """One kernel for the whole group instead of several operations a tensor; the same numbers."""


@dataclass
class GaussianRates:
    """First learning rates of one region's Gaussians (release)."""

    means: float = 1.6e-4 * SCENE_EXTENT
    sh0: float = 2.5e-3
    shN: float = 2.5e-3 / 20
    opacities: float = 0.05
    scales: float = 0.003
    quats: float = 0.001
    embeddings: float = 2.5e-3


@dataclass
class FieldRates:
    """First learning rates of one region's field (release)."""

    grids: float = 5e-3
    networks: float = 5e-4
    audio_attention: float = 2.5e-3
    audio_attention_weight_decay: float = 1e-4


def optimizers(gaussians: GaussianRates | None = None, fields: FieldRates | None = None) -> dict[str, dict[str, Any]]:
    """nerfstudio's ``optimizers`` for both regions and both fields."""
    gaussians, fields = gaussians or GaussianRates(), fields or FieldRates()
    groups: dict[str, dict[str, Any]] = {}
    for region in ("face", "mouth"):
        for name, rate in vars(gaussians).items():
            groups[f"{region}_{name}"] = {"optimizer": FusedAdamConfig(lr=rate, eps=1e-15), "scheduler": None}
        for name in ("grids", "networks", "audio_attention"):
            decay = fields.audio_attention_weight_decay if name == "audio_attention" else 0.0
            groups[f"{region}_field_{name}"] = {
                "optimizer": AdamWConfig(lr=getattr(fields, name), eps=1e-15, weight_decay=decay),
                "scheduler": None,
            }
    return groups
