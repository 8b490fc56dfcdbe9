"""The Gaussians of one region: their parameters, and their deformed and activated form.

It must not know what deforms them, how they are rendered or stored, nor nerfstudio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from degstalk_ns.errors import UserError

SH_C0: float = 0.5 / math.sqrt(math.pi)
"""Value of the degree-0 spherical harmonic."""

ScaleSpace = Literal["log", "softplus"]


@dataclass
class GaussiansConfig:
    """Initial state of the Gaussians of a region. The values are those of the official DEGSTalk code for the face."""

    num_points: int = 2_000
    """Initial number of Gaussians. The official DEGSTalk code has 2,000 for the face and 10,000 for the mouth."""
    bound: float = 0.1
    """Half the edge of the cube in which the Gaussians are initialised, in world units (about metres)."""
    initial_opacity: float = 0.1
    """Initial opacity, between 0 and 1. Value of the official DEGSTalk code and of 3D Gaussian splatting."""
    initial_colour: float = 1 / 255
    """Initial colours are drawn uniformly from 0 to this value, where 1 is full intensity; the default is nearly
    black."""
    sh_degree: int = 2
    """Maximum degree of the spherical harmonics."""
    embedding_dim: int = 32
    """Dimension of the learned embedding z of each Gaussian; 0 for none, the paper's variant without embedding. The
    embedding dimension of the region's field must be the same."""
    initial_neighbours: int = 3
    """The initial scale of a Gaussian is its mean distance to this many nearest neighbours. Value of 3D Gaussian
    splatting."""
    scale_offsets: ScaleSpace = "log"
    """What the offsets of the scales are added to: their logarithm (log), or what softplus makes a scale of (softplus),
    as in the official DEGSTalk code. For scales below a centimetre both are nearly the same. Scales are stored as
    logarithms in either case."""


@dataclass
class Offsets:
    """Offsets that a field adds to the raw parameters. None stands for zero.

    Attributes:
        d_means: [N, 3] world units.
        d_scales: [N, 3] added to the logarithms of the scales, or as :func:`offset_scales` says.
        d_quats: [N, 4] wxyz, added before normalisation.
    """

    d_means: Tensor | None = None
    d_scales: Tensor | None = None
    d_quats: Tensor | None = None


@dataclass
class ActivatedGaussians:
    """Gaussians ready to be rasterized.

    Attributes:
        means: [N, 3] world units. quats: [N, 4] wxyz, not normalised (the rasterizer does it).
        scales: [N, 3] world units, > 0. opacities: [N] in [0, 1].
        sh: [N, K, 3] spherical-harmonic coefficients, degree 0 first.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor


class EmbeddedGaussians(nn.Module):
    """The parameters of one region. Source: DEGSTalk, method section (embedded Gaussians).

    ``params`` holds, for N Gaussians: "means" [N, 3] world units, "scales" [N, 3] their logarithm, "quats" [N, 4] wxyz,
    "opacities" [N] logit, "sh0" [N, 1, 3], "shN" [N, (degree + 1)^2 - 1, 3], "embeddings" [N, 32] (zero at the
    start; not there where the config has none).
    """

    def __init__(self, config: GaussiansConfig, seed: int = 0) -> None:
        """
        Args:
            config: number and initial values.
            seed: random seed of the initial positions and colours; the global random state is not changed.

        Raises:
            UserError: fewer than one Gaussian, or a start opacity outside (0, 1).
        """
        super().__init__()
        if config.num_points < 1:
            raise UserError(f"num_points must be at least 1, got {config.num_points}")
        if not 0 < config.initial_opacity < 1:
            raise UserError(f"initial_opacity must lie between 0 and 1, got {config.initial_opacity}")
        self.config = config
        n = config.num_points
        random = torch.Generator().manual_seed(seed)
        means = (torch.rand(n, 3, generator=random) * 2 - 1) * config.bound
        widths = neighbour_distance(means, config.initial_neighbours)
        colours = torch.rand(n, 1, 3, generator=random) * config.initial_colour
        self.params = nn.ParameterDict(
            {
                "means": nn.Parameter(means),
                "scales": nn.Parameter(widths.log()[:, None].repeat(1, 3)),
                "quats": nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1)),
                "opacities": nn.Parameter(torch.full((n,), config.initial_opacity).logit()),
                "sh0": nn.Parameter((colours - 0.5) / SH_C0),
                "shN": nn.Parameter(torch.zeros(n, (config.sh_degree + 1) ** 2 - 1, 3)),
            }
        )
        if config.embedding_dim:
            self.params["embeddings"] = nn.Parameter(torch.zeros(n, config.embedding_dim))

    def __len__(self) -> int:
        return len(self.params["means"])

    @property
    def means(self) -> Tensor:
        """[N, 3] undeformed positions, world units."""
        return self.params["means"]

    @property
    def embeddings(self) -> Tensor:
        """[N, 32] embeddings z; [N, 0] without."""
        return self.params["embeddings"] if self.config.embedding_dim else self.means.new_zeros(len(self), 0)

    @property
    def sh_coefficients(self) -> Tensor:
        """[N, K, 3], degree 0 first."""
        return torch.cat([self.params["sh0"], self.params["shN"]], dim=1)

    @property
    def base_colours(self) -> Tensor:
        """[N, 3] colour without its view-dependent part, clamped to [0, 1]; no gradient."""
        return base_colours(self.params["sh0"])

    def deformed(self, offsets: Offsets | None = None) -> ActivatedGaussians:
        """Adds the offsets to the raw parameters and activates them. Source: DEGSTalk, method section (deformation).

        Args:
            offsets: [N, ...] tensors; None stands for no offset.

        Returns:
            Activated Gaussians, differentiable in the parameters and the offsets.
        """
        p, o = self.params, offsets or Offsets()
        return ActivatedGaussians(
            means=p["means"] if o.d_means is None else p["means"] + o.d_means,
            quats=p["quats"] if o.d_quats is None else p["quats"] + o.d_quats,
            scales=offset_scales(p["scales"], o.d_scales, self.config.scale_offsets),
            opacities=p["opacities"].sigmoid(),
            sh=self.sh_coefficients,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A checkpoint holds as many Gaussians as had grown. Resizing .data keeps the Parameters that optimizers hold.
        for name, parameter in self.params.items():
            stored = state_dict.get(f"{prefix}params.{name}")
            if isinstance(stored, Tensor) and stored.shape[1:] == parameter.shape[1:] and len(stored) != len(parameter):
                parameter.grad = None
                parameter.data = parameter.data.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def offset_scales(log_scales: Tensor, offsets: Tensor | None, space: ScaleSpace) -> Tensor:
    """Scales with their offsets, [N, 3] world units.

    Args:
        log_scales: [N, 3] logarithms of the scales.
        offsets: [N, 3], or None for none.
        space: "log": the offsets are added to the logarithms; "softplus": to softplus^-1(scale).
    """
    if offsets is None:
        return log_scales.exp()
    if space == "log":
        return (log_scales + offsets).exp()
    scales = log_scales.exp()
    return torch.nn.functional.softplus(scales + (-torch.expm1(-scales)).log() + offsets)


def joined(parts: Sequence[ActivatedGaussians]) -> ActivatedGaussians:
    """Concatenates several sets of Gaussians; missing spherical-harmonic coefficients are filled with zeros."""
    width = max(part.sh.shape[1] for part in parts)
    return ActivatedGaussians(
        means=torch.cat([part.means for part in parts]),
        quats=torch.cat([part.quats for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        opacities=torch.cat([part.opacities for part in parts]),
        sh=torch.cat([_widened(part.sh, width) for part in parts]),
    )


def _widened(sh: Tensor, width: int) -> Tensor:
    missing = width - sh.shape[1]
    return torch.nn.functional.pad(sh, (0, 0, 0, missing)) if missing else sh


def base_colours(sh0: Tensor) -> Tensor:
    """[N, 1, 3] degree-0 coefficients -> [N, 3] colours clamped to [0, 1]; no gradient."""
    return (sh0.detach()[:, 0] * SH_C0 + 0.5).clamp(0.0, 1.0)


def neighbour_distance(points: Tensor, neighbours: int) -> Tensor:
    """Mean distance from each point to its nearest others.

    Args:
        points: [N, 3] world units.
        neighbours: number of nearest others; fewer if there are not as many.

    Returns:
        [N] world units, at least 1e-7 (coinciding points); 1 for a lone point.
    """
    if len(points) < 2:
        return torch.ones(len(points))
    coordinates = points.detach().cpu().numpy()
    distances, _ = cKDTree(coordinates).query(coordinates, k=min(neighbours + 1, len(points)))
    return torch.from_numpy(distances[:, 1:].mean(axis=1)).to(points).clamp_min(1e-7)
