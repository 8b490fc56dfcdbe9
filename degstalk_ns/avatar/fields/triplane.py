"""Tri-plane encoding: three multi-resolution 2-D grids that encode the position of a Gaussian for a field.

It must not know audio, expression or nerfstudio.

Vertex convention: a level of R cells has (R + 1) x (R + 1) vertices, the outermost on the edges of the bounding square,
interpolated bilinearly. Positions outside the square are clamped to it (no gradient there). Avatars imported from the
official DEGSTalk code keep that of Instant-NGP, which it uses: see :data:`Vertices`.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from degstalk_ns.errors import UserError

_log = logging.getLogger(__name__)
PLANES: tuple[tuple[int, int], ...] = ((0, 1), (1, 2), (0, 2))
"""Axes (column, row) of the three planes: xy, yz, xz."""

Vertices = Literal["edges", "instant-ngp"]
"""Where the vertices of a level lie. "edges": as said above. "instant-ngp": vertex k at (k - 1/2) / (R' - 1) of the
edge, where R' is the resolution before it is rounded up; all features of a plane are 0 for positions outside its
square."""


@dataclass
class TriPlaneConfig:
    """Tri-plane encoding of positions. The values are those of the official DEGSTalk code for the face, unless an
    option says otherwise."""

    levels: int = 12
    """Number of grid levels per plane; each has one feature."""
    coarsest: float = 16.0
    """Resolution of the first grid level, in cells along an edge (face: 16, mouth: 64)."""
    finest: float = 256 * 0.15
    """Resolution of the last grid level, in cells along an edge, before it is rounded up. The official DEGSTalk code
    multiplies 256 (mouth: 384) by the half edge of 0.15 of the encoded cube. The levels between the first and the last
    form a geometric sequence, which for the mouth decreases."""
    bound: float = 0.15
    """Half the edge of the encoded cube around the origin, in world units (about metres)."""
    log2_entries: int = 17
    """Base-2 logarithm of the maximum number of entries of a grid level. Above it tiny-cuda-nn hashes, and the torch
    backend stops with an error."""
    vertices: Vertices = "edges"
    """Where the vertices of a level lie: on the edges of the cube (edges), or half a cell inside (instant-ngp), as in
    the official DEGSTalk code; the latter needs the backend torch."""
    initial_range: float = 1e-4
    """The features are initialised uniformly between minus and plus this value. Value of Instant-NGP (section 3)."""
    backend: Literal["auto", "torch", "tcnn"] = "auto"
    """Implementation: torch runs on any device, tcnn (tiny-cuda-nn) needs CUDA, and auto uses tcnn wherever it can
    run."""

    def cells(self) -> list[int]:
        """Cells along an edge of each level: ceil(coarsest * growth^level), geometric from ``coarsest`` to ``finest``.

        The growth is below 1 where ``finest`` < ``coarsest`` (the mouth).
        """
        return [math.ceil(round(resolution, 6)) for resolution in self.resolutions()]

    def resolutions(self) -> list[float]:
        """Resolution of each level before it is rounded up to whole cells."""
        return [self.coarsest * self.growth**level for level in range(self.levels)]

    @property
    def growth(self) -> float:
        """Ratio of the resolutions of neighbouring levels."""
        return (self.finest / self.coarsest) ** (1 / (self.levels - 1)) if self.levels > 1 else 1.0

    @property
    def output_dim(self) -> int:
        """Features per point: 3 planes x levels."""
        return len(PLANES) * self.levels


def tcnn_available() -> bool:
    """Whether tiny-cuda-nn can be imported and has a GPU to run on."""
    return torch.cuda.is_available() and importlib.util.find_spec("tinycudann") is not None


@functools.cache
def _say_tcnn() -> None:
    """Once a process: the choice was made by "auto", and decides where the result can be loaded."""
    _log.warning("tri-planes run on tiny-cuda-nn: what is trained with it cannot be loaded without it")


class TriPlane(nn.Module):
    """Three multi-resolution 2-D grids over xy, yz and xz. Source: DEGSTalk, method section (encoding H)."""

    table: nn.Parameter
    """[entries] features of the torch backend: plane, then level, then row, then column."""

    def __init__(self, config: TriPlaneConfig) -> None:
        """
        Args:
            config: resolution, bound and backend.

        Raises:
            UserError: the backend was asked for and cannot run, or a level has more entries than allowed.
        """
        super().__init__()
        self.config = config
        self.cells = config.cells()
        self.backend: Literal["torch", "tcnn"]
        if config.vertices == "instant-ngp":
            if config.backend == "tcnn":
                raise UserError("encoding backend 'tcnn' has vertices of its own; set `vertices` to edges")
            self.backend = "torch"
        elif config.backend == "auto":
            self.backend = "tcnn" if tcnn_available() else "torch"
            if self.backend == "tcnn":
                _say_tcnn()
        else:
            self.backend = config.backend
        if self.backend == "tcnn":
            if not tcnn_available():
                raise UserError("encoding backend 'tcnn' needs tiny-cuda-nn and a CUDA device; use 'auto' or 'torch'")
            self._build_tcnn()
            return
        sizes = [(cells + 1) ** 2 for cells in self.cells]
        if max(sizes) > 2**config.log2_entries:
            raise UserError(
                f"tri-plane level of {max(self.cells)} cells has more than 2^{config.log2_entries} entries; "
                "lower `finest` / `coarsest` or raise `log2_entries` (the torch backend does not hash)"
            )
        entries = len(PLANES) * sum(sizes)
        self.table = nn.Parameter(torch.empty(entries).uniform_(-config.initial_range, config.initial_range))

    def _build_tcnn(self) -> None:
        import tinycudann

        c = self.config
        # tiny-cuda-nn centres vertices half a cell in, so its tables are not interchangeable with the torch backend's.
        encoding = {
            "otype": "Grid",
            "type": "Hash",
            "n_levels": c.levels,
            "n_features_per_level": 1,
            "log2_hashmap_size": c.log2_entries,
            "base_resolution": round(c.coarsest),
            "per_level_scale": c.growth,
            "interpolation": "Linear",
        }
        self.tcnn_planes = nn.ModuleList(tinycudann.Encoding(2, encoding, dtype=torch.float32) for _ in PLANES)

    def forward(self, x: Tensor) -> Tensor:
        """Encode positions.

        Args:
            x: [N, 3] positions, world units; clamped to the cube of half edge ``bound``, unless the vertices are those
                of Instant-NGP.

        Returns:
            [N, 3 * levels] features: plane by plane (xy, yz, xz), each coarse level first. Differentiable in ``x``
            and in the grids.
        """
        bound = self.config.bound
        unit = (x + bound) / (2 * bound)
        if self.config.vertices == "instant-ngp":
            return lookup_inside(unit, self.table, self.config.resolutions())
        unit = unit.clamp(0.0, 1.0)
        if self.backend == "tcnn":
            parts = [plane(unit[:, list(axes)]) for plane, axes in zip(self.tcnn_planes, PLANES, strict=True)]
            return torch.cat(parts, dim=-1).to(x.dtype)
        return lookup(unit, self.table, self.cells)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        wanted = "table" if self.backend == "torch" else "tcnn_planes."
        stored = [key[len(prefix) :] for key in state_dict if key.startswith(prefix)]
        if stored and not any(name.startswith(wanted) for name in stored):
            other = "tcnn" if self.backend == "torch" else "torch"
            raise UserError(
                f"checkpoint entry {prefix}*: written by the encoding backend '{other}', this model uses "
                f"'{self.backend}'; set the encoding's backend to '{other}' (tcnn needs CUDA and tiny-cuda-nn)"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def lookup(unit: Tensor, table: Tensor, cells: list[int]) -> Tensor:
    """Bilinear lookup in the dense levels of the three planes.

    One ``grid_sample`` per level over the three planes at once. Hand-written CPU kernels were only 1.3 times as fast,
    forward and backward together (20,000 points, 2 cores: 6 ms against 8 ms), and so are not kept.

    Args:
        unit: [N, 3] positions in [0, 1].
        table: [entries] features: plane, then level, then row, then column.
        cells: cells along an edge of each level.

    Returns:
        [N, 3 * levels] features.
    """
    where = torch.stack([unit[:, list(axes)] for axes in PLANES])[:, :, None, :] * 2 - 1  # [3, N, 1, 2]
    return _sampled(table, cells, [where] * len(cells)).flatten(0, 1).t()  # [3, levels, N] -> [N, 3 * levels]


def lookup_inside(unit: Tensor, table: Tensor, resolutions: list[float]) -> Tensor:
    """As :func:`lookup`, with the vertices of Instant-NGP (:data:`Vertices`).

    Args:
        unit: [N, 3] positions, [0, 1] inside the cube.
        table: [entries] features, in the same order.
        resolutions: of each level, before it is rounded up.

    Returns:
        [N, 3 * levels] features.
    """
    planes = torch.stack([unit[:, list(axes)] for axes in PLANES])[:, :, None, :]  # [3, N, 1, 2]
    cells = [math.ceil(round(resolution, 6)) for resolution in resolutions]
    # Vertex 0 lies half a cell outside of the square, and the last one at most half a cell: all is interpolated.
    where = [(planes * (r - 1) + 0.5) / c * 2 - 1 for r, c in zip(resolutions, cells, strict=True)]
    inside = ((planes >= 0) & (planes <= 1)).all(-1)[:, None, :, 0]  # [3, 1, N]
    return (_sampled(table, cells, where) * inside).flatten(0, 1).t()


def _sampled(table: Tensor, cells: list[int], where: list[Tensor]) -> Tensor:
    """[3, levels, N] features of each level at ``where`` [3, N, 1, 2], from -1 to 1 over its vertices."""
    per_plane = table.view(len(PLANES), -1).split([(c + 1) ** 2 for c in cells], dim=1)
    features = [
        F.grid_sample(grid.view(-1, 1, c + 1, c + 1), at, padding_mode="border", align_corners=True)[:, 0, :, 0]
        for grid, c, at in zip(per_plane, cells, where, strict=True)
    ]
    return torch.stack(features, dim=1)
