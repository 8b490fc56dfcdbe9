"""Sliders for the face: which expression coefficients get one, and how it overrides the driving signals of a frame.

The jaw is no input of the fields (audio moves the mouth), so it has no slider. It must not know viewers or files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from degstalk_ns.avatar.driving import Conditions

STRONGEST: int = 8
"""How many expression coefficients get a slider."""
REACH: float = 1.25
"""Sliders reach this much further than the recording did, relative to its range: beyond lies what no one has seen."""
FLAT: float = 0.005
"""Standard deviation below which a coefficient does not move: no slider shows it."""
EYELID_LABELS: tuple[str, str] = ("Eyelid right", "Eyelid left")


@dataclass(frozen=True)
class Control:
    """One slider.

    Attributes:
        part: "expression" or "eyelids". index: which coefficient of it.
        lowest, highest: range of the slider. usual: mean of the recording.
    """

    label: str
    part: str
    index: int
    lowest: float
    highest: float
    usual: float


def controls(
    expression: Tensor,
    names: Sequence[str] | None = None,
    count: int = STRONGEST,
    eyelids: int = len(EYELID_LABELS),
    closed: float = 1.0,
) -> list[Control]:
    """Sliders for the eyelids and for the expression coefficients that vary most over a recording.

    Args:
        expression: [T, E].
        names: of the E coefficients; without them (or with another number of them) they are called by their number.
        count: of coefficients at most.
        eyelids: number of eyelid values: two, one for both eyes, or none.
        closed: value of an eyelid that is closed.
    """
    labels = EYELID_LABELS if eyelids == len(EYELID_LABELS) else ("Eyelids",) * eyelids
    found = [Control(label, "eyelids", index, 0.0, closed, 0.0) for index, label in enumerate(labels)]
    if names is not None and len(names) != expression.shape[1]:
        names = None
    spread = expression.std(0, unbiased=False)
    for index in spread.argsort(descending=True, stable=True).tolist()[:count]:
        if spread[index] <= FLAT:
            break
        values = expression[:, index]
        low, high = float(values.min()), float(values.max())
        more = (REACH - 1) * (high - low)
        label = readable(names[index]) if names is not None else f"Direction {index}"
        lowest = low - more if low < 0 else max(low - more, 0.0)
        found.append(
            Control(label, "expression", index, round(lowest, 2), round(high + more, 2), round(float(values.mean()), 2))
        )
    return found


def readable(name: str) -> str:
    """``browInnerUp`` as "Brow inner up"; an opposition as ``jawRight-jawLeft`` keeps its bar."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("_", " ")).lower().replace("-", " / ")
    return words[:1].upper() + words[1:]


def overridden(conditions: Conditions, values: Mapping[Control, float]) -> Conditions:
    """The conditions of a frame with some coefficients set by hand; what was given is left as it was."""
    parts: dict[str, Tensor] = {}
    for control, value in values.items():
        if control.part not in parts:
            parts[control.part] = torch.clone(getattr(conditions, control.part))
        parts[control.part][control.index] = value
    return replace(conditions, **parts)  # type: ignore[arg-type]
