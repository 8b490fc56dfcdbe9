"""Chooses the recorded moments that accompany new audio of any length: forward and backward in turn (ping-pong) between
two calm moments.

It must not know audio, images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PingPongConfig:
    """Where the recorded head motion reverses: it is played forward and backward in turn for as long as the audio
    lasts. The defaults were chosen for this project."""

    turning_share: float = 0.15
    """The two points at which the motion reverses are searched for in this first and last fraction of the longest
    gapless part of the training frames."""
    calm_frames: int = 5
    """Number of video frames around a reversal point over which the head motion is averaged (5 frames are 0.2 s). The
    calmest point is chosen."""
    blink_weight: float = 4.0
    """Penalty for closed eyes at a reversal point, in multiples of the median speed of the head."""


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
    """The two frames between which a part of the recording is played forward and backward: the head is still there and
    the eyes are open.

    Args:
        c2w: [n, 4, 4] camera to world of consecutive frames, metres.
        blink: [n] eye closure, 0 (open) to 1.
        config: how the two frames are chosen; the defaults for None.

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
