"""Brings every driving signal to about the same size before a field sees it, and keeps it within what was recorded.

Networks learn slowly what comes in small. Blendshapes vary by a few hundredths, the coefficients of a 3DMM by about one
and log-mel features by several; here each column is centred and scaled by its own robust spread. Outside the range of
the training frames the fields have learned nothing, and what they extrapolate tears the face apart; so a value
saturates softly there. It must not know which signal it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class StandardiseConfig:
    """How driving signals are standardised. Added by this project; the official DEGSTalk code feeds them as they are,
    which suits the coefficients of its tracker."""

    enabled: bool = True
    """Standardise the expression, the eyelids, the audio features and the jaw; otherwise they are used as they are."""
    reach: float = 4.0
    """Maximum of a standardised value of a training frame: columns with rare, large values are scaled by these, and not
    by their small everyday spread, which would blow them up."""
    least_spread: float = 0.25
    """Minimum spread of a column as a fraction of the mean spread of all columns of its signal, so that the noise of
    columns that hardly change is not blown up."""
    margin: float = 0.25
    """Maximum by which a standardised value can exceed the range of the training frames; it saturates softly."""


_BLOCK = 2_000_000
"""Values whose statistics are told at once: wide features of a long recording would fill the memory."""


class Standardise(nn.Module):
    """``(x - centre) / scale`` for each column, softly limited to the range of the training frames.

    Before :meth:`fit` it is the identity. Its statistics are buffers, so they are in the checkpoint.
    """

    centre: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, columns: int, config: StandardiseConfig) -> None:
        """
        Args:
            columns: number C of columns.
            config: how spread and range are told.
        """
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("low", torch.full((columns,), -torch.inf))
        self.register_buffer("high", torch.full((columns,), torch.inf))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Learns centre, scale and range from the values of the training frames.

        Args:
            values: [T, C], finite.

        Raises:
            ValueError: no values, or another number of columns.
        """
        if values.ndim != 2 or not len(values) or values.shape[1] != len(self.centre):
            raise ValueError(f"expected values [T, {len(self.centre)}], got {list(values.shape)}")
        if not self.config.enabled or not values.shape[1]:
            return
        parts = values.split(max(_BLOCK // len(values), 1), dim=1)
        centre, spread, low, high = torch.cat([_statistics(part.double(), self.config.reach) for part in parts], 1)
        scale = torch.maximum(spread, self.config.least_spread * spread.mean())
        scale = torch.where(scale > 1e-9, scale, 1.0)  # a signal that never changes
        for name, value in (
            ("centre", centre),
            ("scale", scale),
            ("low", (low - centre) / scale),
            ("high", (high - centre) / scale),
        ):
            getattr(self, name).copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]; values beyond the range approach it plus the margin."""
        standard = (x - self.centre) / self.scale
        inside = standard.clamp(self.low, self.high)
        margin = self.config.margin
        if margin <= 0:
            return inside
        return inside + margin * torch.tanh((standard - inside) / margin)


def _statistics(values: Tensor, reach: float) -> Tensor:
    """[4, C] median, spread, least and largest of each column of [T, C]."""
    centre = values.median(0).values
    away = (values - centre).abs()
    spread = torch.maximum(_quantile(away, 0.683), _quantile(away, 0.995) / reach)
    return torch.stack([centre, spread, values.amin(0), values.amax(0)])


def _quantile(values: Tensor, share: float) -> Tensor:
    """[C] quantile of each column of [T, C]; not torch's, which refuses more than 16 million values."""
    place = round(share * (len(values) - 1)) + 1
    return values.kthvalue(place, dim=0).values
