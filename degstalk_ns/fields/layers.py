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

    def forward(self, *parts: Tensor) -> Tensor:
        """The network on ``cat(parts, dim=1)``.

        Args:
            parts: [N, w_i], widths summing to the input width.

        Returns:
            [N, out].
        """
        return self.after_first(linear_of_joined(parts, self.first_weight))

    def after_first(self, x: Tensor) -> Tensor:
        """The rest of the network, given the (not yet activated) output of its first layer."""
        for layer in self.layers[1:]:
            x = layer(F.relu(x))
        return x


def linear_of_joined(parts: Sequence[Tensor], weight: Tensor) -> Tensor:
    """``cat(parts, dim=1) @ weight.T`` without building the joined matrix.

    Args:
        parts: tensors [N, w_i]; weight: [out, sum of w_i].

    Returns:
        [N, out].
    """
    columns = weight.split([part.shape[1] for part in parts], dim=1)
    total = F.linear(parts[0], columns[0])
    for part, block in zip(parts[1:], columns[1:], strict=True):
        total = torch.addmm(total, part, block.t())
    return total
