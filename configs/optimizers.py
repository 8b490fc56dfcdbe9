"""Optimizers and first learning rates of every parameter group, with the values of the official DEGSTalk code.

How the rates fall over a run is decided in `training/stages.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig

from degstalk_ns.avatar.avatar import SCENE_EXTENT


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam optimizer that updates the whole parameter group with one fused kernel."""

    _target: type = torch.optim.Adam
    fused: bool = True
    """Update the whole parameter group with one fused kernel, on CPU and CUDA."""


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW optimizer of a deformation field. The values are those of the official DEGSTalk code."""

    _target: type = torch.optim.AdamW
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: float = 0.0
    """Decoupled weight decay, multiplied by the learning rate in each step. The official DEGSTalk code has 0.01 for the
    grids, 1e-4 for the audio attention and 0 elsewhere."""
    fused: bool = True
    """Update the whole parameter group with one fused kernel, on CPU and CUDA."""


@dataclass
class GaussianRates:
    """First learning rates of the Gaussians of one region. Values of the official DEGSTalk code."""

    means: float = 1.6e-4 * SCENE_EXTENT
    """Positions, in world units (about metres) per step."""
    sh0: float = 2.5e-3
    """Degree-0 spherical-harmonic coefficients (base colours)."""
    shN: float = 2.5e-3 / 20
    """Spherical-harmonic coefficients of higher degrees."""
    opacities: float = 0.05
    """Opacities, as logits."""
    scales: float = 0.003
    """Scales, as logarithms."""
    quats: float = 0.001
    """Rotations, as quaternions."""
    embeddings: float = 2.5e-3
    """Embeddings z."""


@dataclass
class FieldRates:
    """First learning rates of the deformation field of one region. Values of the official DEGSTalk code."""

    grids: float = 5e-3
    """Tri-plane grids."""
    networks: float = 5e-4
    """All networks but the audio attention."""
    audio_attention: float = 2.5e-3
    """Audio attention over neighbouring frames."""
    audio_attention_weight_decay: float = 1e-4
    """Weight decay of the audio attention."""
    grids_weight_decay: float = 0.01
    """Weight decay of the tri-plane grids: torch's default, which the official DEGSTalk code leaves in effect."""
    eps: float = 1e-8
    """Term in the denominator of AdamW, for numerical stability: torch's default, which the official DEGSTalk code
    leaves in effect."""


@dataclass
class SparseAdamConfig(OptimizerConfig):
    """Adam that touches only the rows of a table that a step has read."""

    _target: type = torch.optim.SparseAdam


POSE_RATE = 0.02
"""First learning rate of the corrections of the poses, in units of what a tracked pose is usually off; it falls as that
of the means does."""


def pose_optimizer() -> dict[str, dict[str, Any]]:
    """nerfstudio's ``optimizers`` for the corrections of the poses; not used where poses are not refined."""
    return {"poses": {"optimizer": SparseAdamConfig(lr=POSE_RATE, eps=1e-8), "scheduler": None}}


def optimizers(gaussians: GaussianRates | None = None, fields: FieldRates | None = None) -> dict[str, dict[str, Any]]:
    """nerfstudio's ``optimizers`` for both regions and both fields."""
    gaussians, fields = gaussians or GaussianRates(), fields or FieldRates()
    groups: dict[str, dict[str, Any]] = {}
    for region in ("face", "mouth"):
        for name, rate in vars(gaussians).items():
            groups[f"{region}_{name}"] = {"optimizer": FusedAdamConfig(lr=rate, eps=1e-15), "scheduler": None}
        decays = {"grids": fields.grids_weight_decay, "audio_attention": fields.audio_attention_weight_decay}
        for name in ("grids", "networks", "audio_attention"):
            groups[f"{region}_field_{name}"] = {
                "optimizer": AdamWConfig(lr=getattr(fields, name), eps=fields.eps, weight_decay=decays.get(name, 0.0)),
                "scheduler": None,
            }
    return groups
