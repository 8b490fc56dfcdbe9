"""The small bias-free networks that the face and the mouth field share.

They must not know what their inputs mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers without bias, ReLU between them, none after the last. Source: DEGSTalk, method section.

    Without biases a zero input (a Gaussian whose features are still zero, a neutral expression) gives a zero output.
    """

    def __init__(self, *widths: int) -> None:
        """
        Args:
            widths: input width, hidden widths, output width.
        """
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out, bias=False) for fan_in, fan_out in pairwise(widths))

    @property
    def first_weight(self) -> Tensor:
        """[out, in] weight of the first layer."""
        return cast(nn.Linear, self.layers[0]).weight

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out]."""
        return self.after_first(F.linear(x, self.first_weight))

    def after_first(self, x: Tensor) -> Tensor:
        """The rest of the network, given the (not yet activated) output of its first layer."""
        for layer in self.layers[1:]:
            x = layer(F.relu(x))
        return x


class PartedMLP(MLP):
    """An MLP whose outputs each see only some inputs: several networks in one."""

    def __init__(self, sees: Sequence[Tensor]) -> None:
        """
        Args:
            sees: for each layer, bool [out, in], which of its inputs each of its units sees.
        """
        super().__init__(sees[0].shape[1], *(len(seen) for seen in sees))
        for index, seen in enumerate(sees):
            self.register_buffer(f"sees_{index}", seen.float(), persistent=False)
            with torch.no_grad():  # at the start as large as those of a network of these inputs alone
                weight = cast(nn.Linear, self.layers[index]).weight
                weight *= (seen.shape[1] / seen.sum(1, keepdim=True).clamp(min=1)).sqrt()

    def _weight(self, index: int) -> Tensor:
        weight: Tensor = cast(nn.Linear, self.layers[index]).weight * getattr(self, f"sees_{index}")
        return weight

    @property
    def first_weight(self) -> Tensor:
        """[out, in] weight of the first layer, 0 for what a unit does not see."""
        return self._weight(0)

    def after_first(self, x: Tensor) -> Tensor:
        """As :meth:`MLP.after_first`."""
        for index in range(1, len(self.layers)):
            x = F.linear(F.relu(x), self._weight(index))
        return x
