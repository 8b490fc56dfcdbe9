"""Parts of a face and what may move each: eyes do not move lips, and sound moves neither eyes nor brows.

It must not know networks, Gaussians or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import torch
from torch import Tensor, nn

from degstalk_ns.errors import UserError


class FacePart(IntEnum):
    """What a driving signal may move; the columns of :meth:`FaceParts.forward`."""

    EYES = 0
    BROWS = 1
    LOWER = 2
    WHOLE = 3


MOVED_BY: Final[dict[FacePart, tuple[str, ...]]] = {
    FacePart.EYES: ("eye", "gaze", "AU05", "AU07", "AU45"),
    FacePart.BROWS: ("brow", "AU01", "AU02", "AU04"),
    FacePart.LOWER: ("jaw", "mouth", "innerLip", "cheek", "nose", "tongue", "AU06", "AU09", "AU1", "AU2"),
}
"""Beginnings of the names of the expression values that move each part (ARKit's blendshapes, our measures, and action
units by FACS)."""
LOWER_MOVERS: Final = (FacePart.LOWER, FacePart.WHOLE)
"""Parts whose values move the mouth interior."""
EYES_REACH: Final = (0.42, 0.75)
"""Distance from the centre of the nearer eye up to which the eyes' values act fully, and from which they do not."""
BROWS_DOWN_TO: Final = (0.05, 0.45)
"""Height below the eyes up to which the brows' values act fully, and from which they do not."""
LOWER_UP_TO: Final = (0.5, 0.1)
"""Height below the eyes from which the mouth's values and sound act fully, and above which they do not.

All three over the distance between the eyes; the base of the nose lies about 0.75 below them. Between both values the
effect fades smoothly. Chosen for this project."""


def part_of(name: str) -> FacePart:
    """The part that an expression value moves, by its name; the whole face for a name that is not known."""
    return next((part for part, beginnings in MOVED_BY.items() if name.startswith(beginnings)), FacePart.WHOLE)


def allotted(total: int, parts: Sequence[FacePart]) -> list[FacePart]:
    """``total`` features shared out over the parts that any value moves: the lower face, which has the lips, gets twice
    as many as each other one.

    Raises:
        UserError: fewer features than shares.
    """
    shares = [part for part in sorted(set(parts)) for _ in range(1 + (part is FacePart.LOWER))]
    if total < len(shares):
        raise UserError(
            f"an expression of {total} features cannot drive {len(set(parts))} parts of the face separately; raise "
            "expression_hidden and expression_features of the face field, or turn its option `parts` off"
        )
    return [shares[index * len(shares) // total] for index in range(total)]


def connections(values: Sequence[FacePart], hidden: Sequence[FacePart], features: Sequence[FacePart]) -> list[Tensor]:
    """Which value reaches which hidden unit, and which of these which feature, each bool [out, in].

    Lids and brows move together, so features of the one also see the values of the other.
    """
    upper = {FacePart.EYES, FacePart.BROWS}

    def matrix(outputs: Sequence[FacePart], inputs: Sequence[FacePart], both: bool) -> Tensor:
        rows = [[a == b or (both and {a, b} == upper) for a in inputs] for b in outputs]
        return torch.tensor(rows)

    return [matrix(hidden, values, both=True), matrix(features, hidden, both=False)]


def _fading(values: Tensor, full: float, none: float) -> Tensor:
    """1 on the side of ``full``, 0 on that of ``none``, a smooth step in between."""
    t = ((values - none) / (full - none)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


class FaceParts(nn.Module):
    """How far each part of the face reaches, as a factor at every place."""

    places: Tensor
    """[3, 3] centre of the right eye, of the left one, and the base of the nose, world units."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, -0.75, 0.0]]))

    def stand(self, places: Tensor) -> None:
        """Sets :attr:`places` [3, 3].

        Raises:
            UserError: they do not span a face.
        """
        right, left, nose = places
        if not bool(torch.linalg.vector_norm(torch.linalg.cross(left - right, nose - right)) > 0):  # NaN is refused too
            raise UserError(
                "the landmarks of the training frames show no face: both eyes and the base of the nose lie on one "
                "line; check the .lms files of the dataset, or turn the option `parts` of the face field off"
            )
        self.places.copy_(places)

    def forward(self, means: Tensor) -> Tensor:
        """[N, 3] positions, world units -> [N, 4] factors in 0..1, a column for each :class:`FacePart`."""
        right, left, nose = self.places.to(means.dtype).unbind()
        middle, apart = (right + left) / 2, torch.linalg.vector_norm(left - right)
        across = (left - right) / apart
        down = (nose - middle) - ((nose - middle) @ across) * across
        down = down / torch.linalg.vector_norm(down)
        about = means.detach() - middle
        x, y = (about @ torch.stack([across, down], 1) / apart).unbind(1)
        from_eye = torch.hypot(x.abs() - 0.5, y)
        factors = (
            _fading(from_eye, *EYES_REACH),
            _fading(y, *BROWS_DOWN_TO),
            _fading(y, *LOWER_UP_TO),
            torch.ones_like(y),
        )
        return torch.stack(factors, 1)
