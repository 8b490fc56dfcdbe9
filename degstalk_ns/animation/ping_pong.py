"""Which recorded moments accompany a sound of any length: forward and backward through a calm stretch.

It must not know sounds, images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PingPongConfig:
    """Where the recorded motion is turned around. Origin: ours."""

    turning_share: float = 0.15
    """Each turn is looked for in this share of the stretch at its end."""
    calm_frames: int = 5
    """Over so many frames around it, a turning point is calm (0.2 s)."""
    blink_weight: float = 4.0
    """Closed eyes at a turn count like so many times the usual speed of the head."""


def ping_pong(first: int, last: int, count: int) -> Rows:
    """``count`` rows: first, ..., last, ..., first, ...; the rows at the turns come once, so nothing stands still.

    Args:
        first, last: rows of the two turns, last >= first.

    Returns:
        [count] int64; neighbours differ by 1 (by 0 where first equals last).
    """
    span = last - first
    if span < 0 or count < 0:
        raise ValueError(f"expected first <= last and a count, got {first}, {last} and {count}")
    if span == 0:
        return np.full(count, first, np.int64)
    place = np.arange(count, dtype=np.int64) % (2 * span)
    return first + np.where(place <= span, place, 2 * span - place)


def longest_run(rows: NDArray[np.integer]) -> tuple[int, int]:
    """First and last of the longest stretch of consecutive numbers in ``rows`` (sorted, not empty)."""
    ends = np.flatnonzero(np.diff(rows) != 1)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(rows) - 1]])
    longest = int(np.argmax(stops - starts))
    return int(rows[starts[longest]]), int(rows[stops[longest]])


def calm_turns(
    c2w: NDArray[np.floating], blink: NDArray[np.floating], config: PingPongConfig | None = None
) -> tuple[int, int]:
    """The two frames of a stretch between which it is best played to and fro: the head rests there, the eyes are open.

    Args:
        c2w: [n, 4, 4] camera to world of consecutive frames, metres. blink: [n] 0 (open) to 1.

    Returns:
        Places in 0..n-1, the first smaller than the second where n > 1.
    """
    config = config or PingPongConfig()
    count = len(c2w)
    if count < 3:
        return 0, count - 1
    # Rotation weighed by the distance of the head: both parts in metres.
    distance = np.linalg.norm(c2w[:, :3, 3], axis=1).mean()
    pose = np.concatenate([c2w[:, :3, :3].reshape(count, 9) * distance, c2w[:, :3, 3]], 1)
    speed = np.linalg.norm(np.gradient(pose, axis=0), axis=1)
    unrest = speed / max(float(np.median(speed)), 1e-9) + config.blink_weight * np.clip(blink, 0, 1)
    window = min(config.calm_frames, count)
    unrest = np.convolve(np.pad(unrest, window // 2, mode="edge"), np.ones(window) / window, "valid")[:count]
    part = max(int(count * config.turning_share), 1)
    return int(np.argmin(unrest[:part])), count - part + int(np.argmin(unrest[count - part :]))
