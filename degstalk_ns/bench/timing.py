"""Times that can be compared: warmed up, repeated, with their spread. It must not know what is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from degstalk_ns.errors import UserError

MILLISECONDS = ("median ms", "10% .. 90%")
"""Headings of the two columns in which tables show a :class:`Spread`."""


@dataclass(frozen=True)
class Spread:
    """Seconds of repeated runs: median, 10th and 90th percentile, the shortest, and how many there were."""

    median: float
    low: float
    high: float
    shortest: float
    repeats: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Spread:
        low, median, high = (float(value) for value in np.percentile(seconds, [10, 50, 90]))
        return Spread(median, low, high, float(min(seconds)), len(seconds))

    def milliseconds(self) -> tuple[str, str]:
        """Cells of a table under :data:`MILLISECONDS`."""
        digits = 2 if self.high < 0.1 else 1
        median, low, high = (f"{value * 1e3:.{digits}f}" for value in (self.median, self.low, self.high))
        return median, f"{low} .. {high}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def timed(function: Callable[[], Any], device: torch.device | None = None) -> float:
    """Seconds of one call, with all that it started on a GPU."""
    cuda = device is not None and device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = perf_counter()
    function()
    if cuda:
        torch.cuda.synchronize(device)
    return perf_counter() - start


def measure(
    function: Callable[[], Any], repeats: int = 30, warmup: int = 3, device: torch.device | None = None
) -> Spread:
    """Times ``repeats`` calls after ``warmup`` calls that do not count (compilation, caches)."""
    return measure_together({"": function}, repeats, warmup, device)[""]


def measure_together(
    functions: dict[str, Callable[[], Any]], repeats: int = 30, warmup: int = 3, device: torch.device | None = None
) -> dict[str, Spread]:
    """The same for several functions, called in turn: what slows the machine down for a while slows all of them."""
    check_repeats(repeats)
    for _ in range(warmup):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(timed(function, device))
    return {name: Spread.of(values) for name, values in seconds.items()}


def check_repeats(repeats: int) -> None:
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {repeats}")
