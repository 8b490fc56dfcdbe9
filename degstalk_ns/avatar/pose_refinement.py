"""A small correction of the head's pose in each frame, learned with the avatar through the rasterizer's gradient to the
camera.

It must not know training steps, files or nerfstudio.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from degstalk_ns.avatar.camera import View

USUAL_ANGLE: Final[float] = 0.01
"""Radians by which a tracked pose is usually off, 0.6 degrees; the penalty of such a correction is 1. Chosen for this
project."""
USUAL_SHIFT: Final[float] = 0.001
"""The same for its place, metres."""


class PoseRefinement(nn.Module):
    """Corrections of T poses, none at the start. Moving the head is moving the world before the camera.

    ``corrections`` [T, 6]: rotation as an axis times its angle, in units of :data:`USUAL_ANGLE`, then translation in
    units of :data:`USUAL_SHIFT`.
    """

    def __init__(self, frames: int) -> None:
        """``frames``: T, the rows of the driving track."""
        super().__init__()
        # Sparse gradients: a step must not move the frames that it does not show.
        self.table = nn.Embedding(frames, 6, sparse=True)
        nn.init.zeros_(self.table.weight)

    @property
    def corrections(self) -> Tensor:
        """[T, 6]; see the class."""
        return self.table.weight

    def _of(self, row: int) -> Tensor:
        """[6] the correction of frame ``row``."""
        corrections: Tensor = self.table(torch.tensor([row], device=self.table.weight.device))[0]
        return corrections

    def forward(self, view: View, row: int) -> View:
        """The view of frame ``row`` with its pose corrected; differentiable in the corrections."""
        turn, shift = self._of(row).split(3)
        motion = torch.eye(4, dtype=view.viewmat.dtype, device=view.viewmat.device)
        rotation = torch.linalg.matrix_exp(_cross(USUAL_ANGLE * turn))
        moved = torch.cat([torch.cat([rotation, USUAL_SHIFT * shift[:, None]], 1), motion[3:]])
        return replace(view, viewmat=view.viewmat @ moved.to(view.viewmat))

    def penalty(self, row: int) -> Tensor:
        """Mean square of the correction of frame ``row``, in its units: keeps the frames from drifting together."""
        return self._of(row).square().mean()


def _cross(vector: Tensor) -> Tensor:
    """[3] -> the matrix [3, 3] whose product with another vector is their cross product."""
    x, y, z = vector
    zero = torch.zeros_like(x)
    return torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
