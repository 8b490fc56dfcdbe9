"""Densification and pruning of the Gaussians of one region, on top of ``gsplat.strategy.ops``.

It must not know the stages of training (it asks a schedule), how Gaussians are rendered, nor nerfstudio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from gsplat.strategy import ops
from torch import Tensor, nn

from degstalk_ns.avatar.gaussians import base_colours
from degstalk_ns.errors import UserError


@dataclass
class DensificationConfig:
    """Densification and pruning of the Gaussians of a region; the schedule sets the steps at which they happen. The
    values are those of the official DEGSTalk code for the face, unless an option says otherwise."""

    gradient_threshold: float = 5e-4
    """Gaussians are densified if the average norm of their screen-space position gradient exceeds this threshold; the
    screen spans -1 to 1. The official DEGSTalk code has 5e-4 for the face and 2e-4 for the mouth."""
    split_scale: float = 0.005
    """Gaussians to be densified are split if their largest scale exceeds this fraction of the scene extent, and cloned
    otherwise."""
    prune_opacity_start: float = 0.05
    """Opacity below which Gaussians are pruned at the first densification."""
    prune_opacity_end: float = 0.30
    """Opacity below which Gaussians are pruned at the last densification. The threshold changes linearly from the start
    value to this one."""
    prune_scale: float = 0.1
    """Largest scale above which Gaussians are pruned, as a fraction of the scene extent, from the point at which the
    schedule prunes by size."""
    green_key: Literal["prune", "shrink", "ignore"] = "prune"
    """Treatment of Gaussians that have the background colour of the training (background that leaked into the region):
    prune removes them, shrink makes them small and transparent, ignore keeps them. The official DEGSTalk code prunes in
    the face and shrinks in the mouth."""
    key_colour: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Background colour (RGB, 0 to 1) that marks a Gaussian as leaked background: the green that regions are trained
    over."""
    key_tolerance: float = 0.1
    """Maximum difference per colour channel (0 to 1) at which a colour counts as the background colour. Chosen for this
    project."""
    shrink_opacity: float = 0.1
    """Maximum opacity of the Gaussians that are shrunk because of their colour."""
    shrink_scale: float = 0.1
    """Factor on the scales of the Gaussians that are shrunk because of their colour."""
    shrink_gradient: float = 0.5
    """Factor on the screen-space gradients of the Gaussians that are shrunk because of their colour, before it is
    decided whether they are densified."""
    shrink_floor: float = 1e-6
    """Minimum scale, in world units, to which a Gaussian is shrunk; repeated shrinking would otherwise underflow.
    Chosen for this project."""
    max_gaussians: int | None = None
    """Maximum number of Gaussians. If densification would exceed it, only those with the largest gradients are
    densified. None means no limit, as in the official DEGSTalk code."""
    min_gaussians: int = 100
    """Minimum number of Gaussians that pruning keeps, the most opaque ones. Chosen for this project."""


class GrowthSchedule(Protocol):
    """When to densify and prune; :class:`degstalk_ns.training.stages.Growth` implements it."""

    def grows(self, step: int) -> bool:
        """Whether to densify and prune after ``step``."""

    def growth_progress(self, step: int) -> float:
        """0 at the first densification of the run, 1 at the last; the opacity threshold of pruning follows it."""

    def prunes_by_size(self, step: int) -> bool:
        """Whether Gaussians may be pruned for their size after ``step``."""


@dataclass(frozen=True)
class GrowthReport:
    """Result of one step: numbers of Gaussians that were split, duplicated, pruned and shrunk, and the ``total`` after
    it. Pruning precedes densification."""

    n_split: int
    n_duplicated: int
    n_pruned: int
    n_shrunk: int
    total: int

    @property
    def changed(self) -> bool:
        """Whether Parameter objects were replaced."""
        return bool(self.n_split or self.n_duplicated or self.n_pruned)


class Densifier(nn.Module):
    """Adaptive density control of one region. Source: 3D Gaussian splatting, section 5, with the values of DEGSTalk."""

    def __init__(self, config: DensificationConfig, extent: float = 1.0) -> None:
        """
        Args:
            config: thresholds.
            extent: size of the scene that scales are compared with, world units.

        Raises:
            UserError: the maximum number of Gaussians is below the minimum number.
        """
        if config.max_gaussians is not None and config.max_gaussians < config.min_gaussians:
            raise UserError(
                f"max_gaussians ({config.max_gaussians}) must not be below min_gaussians ({config.min_gaussians})"
            )
        super().__init__()
        self.config = config
        self.extent = extent
        self.state: dict[str, Tensor] = {}
        """For each Gaussian: "grad2d" [N] sum of gradient norms, "count" [N] number of views that saw it. Empty until
        something was observed."""

    def get_extra_state(self) -> dict[str, Tensor]:
        """What was observed since the Gaussians last grew, for the checkpoint: a resumed run grows the same ones."""
        return dict(self.state)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Sets what :meth:`get_extra_state` gave."""
        self.state = {name: value.clone() for name, value in state.items()}

    def observe(self, meta: dict[str, Any]) -> None:
        """Accumulates the gradients of one view. Call it after ``backward()``.

        Args:
            meta: from ``rasterize()``: "means2d" [C, N, 2] whose ``.grad`` was retained (pixels), "radii" [C, N]
                (pixels, 0 where culled), "width", "height", "n_cameras".

        Raises:
            ValueError: no gradient was retained.
        """
        gradients = meta["means2d"].grad
        if gradients is None:
            raise ValueError("meta['means2d'] has no gradient: call retain_grad() on it before backward()")
        radii = meta["radii"].detach()
        half_screen = gradients.new_tensor([meta["width"] / 2, meta["height"] / 2])
        # A loss is a mean over cameras: times their number it is each camera's own gradient, as in gsplat's strategy.
        norms = (gradients.detach() * half_screen * meta["n_cameras"]).norm(dim=-1)  # [C, N]
        seen = (radii > 0) & norms.isfinite()
        n = radii.shape[1]
        if not self.state or len(self.state["count"]) != n:
            self.state = {name: torch.zeros(n, device=radii.device) for name in ("grad2d", "count")}
        self.state = {name: value.to(radii.device) for name, value in self.state.items()}
        self.state["grad2d"] += norms.where(seen, 0.0).sum(dim=0)
        self.state["count"] += seen.sum(dim=0)

    @torch.no_grad()
    def step(
        self,
        step: int,
        params: nn.ParameterDict,
        optimizers: Mapping[str, torch.optim.Optimizer],
        schedule: GrowthSchedule,
        colours: Tensor | Callable[[], Tensor] | None = None,
    ) -> GrowthReport:
        """Shrinks, prunes and densifies if ``schedule`` says so, and then resets the accumulated gradients.
        Call it after the optimizers have stepped.

        Densification and pruning replace the Parameter objects in ``params`` and in the optimizers (whose moments
        follow; new Gaussians start with none) and drop their ``.grad``.

        Args:
            step: training step.
            params: of :class:`~degstalk_ns.avatar.gaussians.EmbeddedGaussians`.
            optimizers: one per entry of ``params``, under the same name, holding that one parameter.
            schedule: decides whether anything happens at this step.
            colours: [N, 3] in [0, 1] to compare with the background colour, or a function that returns them; by default
                the colours without their view-dependent part.

        Returns:
            What was done; all zero if the schedule does not densify after this step.

        Raises:
            ValueError: parameters and optimizers do not match.
        """
        total = len(params["means"])
        if not schedule.grows(step):
            return GrowthReport(0, 0, 0, 0, total)
        if set(params.keys()) != set(optimizers):
            raise ValueError(f"one optimizer per parameter: {sorted(params.keys())} against {sorted(optimizers)}")
        if not self.state or len(self.state["count"]) != total:  # nothing seen yet, or another checkpoint was loaded
            self.state = {name: torch.zeros(total, device=params["means"].device) for name in ("grad2d", "count")}
        # gsplat makes new Parameters; what was frozen must stay so.
        trainable = {name: parameter.requires_grad for name, parameter in params.items()}

        gradients = self.state["grad2d"] / self.state["count"].clamp_min(1)
        keyed = self._keyed(params, colours)
        shrunk = 0
        if self.config.green_key == "shrink":
            shrunk = int(keyed.sum())
            gradients = torch.where(keyed, gradients * self.config.shrink_gradient, gradients)
            self._shrink(params, optimizers, keyed)

        # Pruning first makes room under the limit. New Gaussians inherit opacity and colour, so for those rules the
        # order is immaterial. Too large ones about to be split are not removed: their parts may not be too large.
        grows = gradients > self.config.gradient_threshold
        large = params["scales"].exp().amax(dim=-1) > self.config.split_scale * self.extent
        removed = self._too_faint(params, schedule.growth_progress(step)) | _broken(params)
        if self.config.green_key == "prune":
            removed |= keyed
        if schedule.prunes_by_size(step):
            removed |= self._too_large(params) & ~(grows & large)
        self._spare_the_last(removed, params["opacities"])
        if removed.any():
            ops.remove(params, optimizers, self.state, removed)
        kept = ~removed
        n_split, n_duplicated = self._grow(params, optimizers, gradients[kept], grows[kept], large[kept])

        for name, parameter in params.items():
            parameter.requires_grad_(trainable[name])
        for value in self.state.values():
            value.zero_()
        return GrowthReport(n_split, n_duplicated, int(removed.sum()), shrunk, len(params["means"]))

    def _keyed(self, params: nn.ParameterDict, colours: Tensor | Callable[[], Tensor] | None) -> Tensor:
        """[N] bool: the colour is within the tolerance of the background colour."""
        if self.config.green_key == "ignore":
            return torch.zeros(len(params["means"]), dtype=torch.bool, device=params["means"].device)
        if colours is None:
            colours = base_colours(params["sh0"])
        elif not isinstance(colours, Tensor):
            colours = colours()
        key = colours.new_tensor(self.config.key_colour)
        return (colours.clamp(0.0, 1.0) - key).abs().amax(dim=-1) <= self.config.key_tolerance

    def _shrink(self, params: nn.ParameterDict, optimizers: Mapping[str, torch.optim.Optimizer], mask: Tensor) -> None:
        """Makes Gaussians small and transparent in place, and resets the moments of their optimizers."""
        c = self.config
        opacities, scales = params["opacities"], params["scales"]
        opacities[mask] = opacities[mask].clamp_max(torch.tensor(c.shrink_opacity).logit().item())
        current = scales[mask].exp()
        scales[mask] = torch.maximum(current * c.shrink_scale, current.clamp_max(c.shrink_floor)).log()
        for name in ("opacities", "scales"):
            for moment, value in optimizers[name].state[params[name]].items():
                if moment != "step":
                    value[mask] = 0

    def _too_faint(self, params: nn.ParameterDict, progress: float) -> Tensor:
        """[N] bool: the opacity is below the threshold at this progress of training (0 to 1)."""
        c = self.config
        threshold = c.prune_opacity_start + (c.prune_opacity_end - c.prune_opacity_start) * progress
        return params["opacities"].sigmoid() < threshold

    def _too_large(self, params: nn.ParameterDict) -> Tensor:
        """[N] bool: too large in space."""
        return params["scales"].exp().amax(dim=-1) > self.config.prune_scale * self.extent

    def _spare_the_last(self, removed: Tensor, opacities: Tensor) -> None:
        """Takes the most opaque out of ``removed`` until enough Gaussians stay."""
        short = min(self.config.min_gaussians, len(removed)) - int((~removed).sum())
        if short > 0:
            spared = torch.where(removed, opacities, -torch.inf).topk(short).indices
            removed[spared] = False

    def _grow(
        self,
        params: nn.ParameterDict,
        optimizers: Mapping[str, torch.optim.Optimizer],
        gradients: Tensor,
        grows: Tensor,
        large: Tensor,
    ) -> tuple[int, int]:
        """Splits large and duplicates small Gaussians where the screen-space gradient is high; returns the two
        counts."""
        if self.config.max_gaussians is not None:
            room = max(self.config.max_gaussians - len(grows), 0)  # either way a Gaussian becomes two
            if int(grows.sum()) > room:
                best = torch.where(grows, gradients, -torch.inf).topk(room).indices
                grows = torch.zeros_like(grows).index_fill(0, best, True)
        duplicated, split = grows & ~large, grows & large
        n_duplicated, n_split = int(duplicated.sum()), int(split.sum())
        if n_duplicated:
            ops.duplicate(params, optimizers, self.state, duplicated)
            split = torch.cat([split, split.new_zeros(n_duplicated)])  # copies are appended, and not split at once
        if n_split:
            ops.split(params, optimizers, self.state, split)
        return n_split, n_duplicated


def remove_broken(params: nn.ParameterDict, optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
    """Removes the Gaussians with a number that is not finite, and their moments; how many there were. One is kept, and
    made finite, where all are broken.

    Args:
        params: as :meth:`Densifier.step` takes them. optimizers: one for each parameter.
    """
    broken = _broken(params)
    count = int(broken.sum())
    if not count:
        return 0
    if bool(broken.all()):
        broken[0] = False
        with torch.no_grad():
            for parameter in params.values():
                parameter[0].nan_to_num_(0.0, 0.0, 0.0)
    trainable = {name: parameter.requires_grad for name, parameter in params.items()}
    ops.remove(params, optimizers, {}, broken)
    for name, parameter in params.items():
        parameter.requires_grad_(trainable[name])
    return count


def _broken(params: nn.ParameterDict) -> Tensor:
    """[N] bool: a parameter has a number that is not finite."""
    finite = [parameter.detach().flatten(1).isfinite().all(1) if parameter.ndim > 1 else parameter.detach().isfinite()
              for parameter in params.values()]  # fmt: skip
    return ~torch.stack(finite).all(0)
