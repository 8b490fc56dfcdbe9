"""How well lips that are driven by sound alone follow the recorded ones: correlation, spread, lag, landmark distance.

It must not know nerfstudio, models, or how lips are driven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from degstalk_ns.metrics.image import correlation

MOST_LAG: Final[int] = 6
"""Largest shift in frames (0.24 s) at which lips and recording are compared."""


def lip_lag(
    openings: Sequence[float], true_openings: Sequence[float], most: int = MOST_LAG
) -> tuple[int, float] | None:
    """The shift at which the rendered lips are most like the recorded ones.

    Args:
        openings, true_openings: of consecutive frames.
        most: largest shift.

    Returns:
        Frames by which the rendered lips are late (negative: early), and the correlation there; None where there are
        too few frames or lips that do not move.
    """
    rendered, true = (np.asarray(series, np.float64) for series in (openings, true_openings))
    found: list[tuple[float, int]] = []
    for lag in range(-most, most + 1):
        late, early = rendered[max(lag, 0) : len(rendered) + min(lag, 0)], true[max(-lag, 0) : len(true) - max(lag, 0)]
        related = correlation(late.tolist(), early.tolist()) if len(late) >= 3 * most else None
        if related is not None:
            found.append((related, lag))
    if not found:
        return None
    best, lag = max(found, key=lambda item: (item[0], -abs(item[1])))
    return lag, best


def audio_driven(openings: Sequence[float], true_openings: Sequence[float]) -> dict[str, float]:
    """Numbers of one driving, of consecutive frames; what cannot be told is left out.

    Returns:
        ``r`` (Pearson's, of the opening), ``spread`` (standard deviation over that of the recorded one), ``lag``
        (frames by which the rendered lips are late, where they are most like the recorded ones).
    """
    result: dict[str, float] = {}
    related = correlation(openings, true_openings)
    if related is not None:
        result |= {"r": related, "spread": float(np.std(openings) / np.std(true_openings))}
    shift = lip_lag(openings, true_openings)
    if shift is not None:
        result["lag"] = float(shift[0])
    return result
