"""The small bias-free networks that the face and the mouth field share.

They must not know what their inputs mean.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

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
