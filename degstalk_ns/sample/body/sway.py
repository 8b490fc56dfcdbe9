"""How long hair lags behind the head, swings and settles: damped oscillators driven by the head's motion.

It must not know strands, colours nor surfels; the hair looks up, for each of its locks, what is computed here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.surfels import Floats

AZIMUTHS: int = 16
"""Directions around the head, evenly from the face over the picture's right; hair in between is interpolated."""
KINDS: int = 3
"""Stiffnesses at every direction: neighbouring locks swing differently."""
LEVELS: int = 2
"""Where on a lock the offset is given: at its middle and at its tip."""

# The hanging hair, head coordinates, metres: it leaves the head on an ellipse at one height, and hangs straight down.
_HANG_Y = 0.0
_HANG_RADII = (0.082, 0.085)  # x, z
_HANG_CENTRE_Z = -0.015
_LEVEL_LENGTHS = (0.085, 0.175)

# Set by eye: hair of 20 cm swings about once a second, its middle faster; the swing has died away after two.
_FREQUENCIES = (1.75, 1.15)  # hertz, by level, for the middle kind
_KIND_STIFFNESS = (0.84, 1.0, 1.22)  # factors of the frequency
_DAMPING = 0.28  # of the critical damping
_HANGING = (0.55, 0.75)  # share of the plumb line, by level; the rest keeps the shape it has on the head
_FOLLOWING = (0.55, 0.30)  # share of the head's motion that the mass takes part in at once: hair lies on hair and cloth
_LONGEST_STEP = 1.0 / 240.0  # seconds


def _rest() -> NDArray[np.float64]:
    """Anchors and levels, [AZIMUTHS * KINDS, 1 + LEVELS, 3], head coordinates."""
    angle = np.repeat(np.arange(AZIMUTHS) * (2 * np.pi / AZIMUTHS), KINDS)
    anchor = np.stack(
        [
            _HANG_RADII[0] * np.sin(angle),
            np.full_like(angle, _HANG_Y),
            _HANG_CENTRE_Z + _HANG_RADII[1] * np.cos(angle),
        ],
        axis=1,
    )
    down = np.array([0.0, -1.0, 0.0])
    return np.stack([anchor, *(anchor + length * down for length in _LEVEL_LENGTHS)], axis=1)


def azimuth_of(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Direction [N] of points [N, 3] in head coordinates, in units of one azimuth, 0..AZIMUTHS."""
    angle = np.arctan2(points[:, 0] / _HANG_RADII[0], (points[:, 2] - _HANG_CENTRE_Z) / _HANG_RADII[1])
    return np.asarray(np.mod(angle / (2 * np.pi), 1.0) * AZIMUTHS)


def simulate_sway(room_from_head: Floats, frame_rate: float) -> Floats:
    """The swinging of hair during a recording.

    Each lock is two masses, at its middle and tip, on damped springs towards where they would hang: below the point
    where the lock leaves the head, between the plumb line and the shape that the lock has on the head. It starts at
    rest.

    Args:
        room_from_head: [T, 4, 4] the head's pose at every frame, metres.
        frame_rate: frames a second.

    Returns:
        [T, AZIMUTHS * KINDS, LEVELS, 3] offsets of the masses from where the head would carry them rigidly, along the
        room's axes, metres. Zero for a head that stands upright and still.

    Raises:
        ValueError: a shape or rate that makes no sense.
    """
    poses = np.asarray(room_from_head, dtype=np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or len(poses) == 0:
        raise ValueError(f"room_from_head must be [T, 4, 4] with T >= 1, not {list(poses.shape)}")
    if not frame_rate > 0:
        raise ValueError(f"frame_rate must be above 0, not {frame_rate}")
    rest = _rest()
    anchors = np.einsum("tij,gj->tgi", poses[:, :3, :3], rest[:, 0]) + poses[:, None, :3, 3]
    rigid = np.einsum("tij,glj->tgli", poses[:, :3, :3], rest[:, 1:]) + poses[:, None, None, :3, 3]
    lengths = np.array(_LEVEL_LENGTHS)[:, None]
    plumb = anchors[:, :, None] + lengths * np.array([0.0, -1.0, 0.0])
    goals = rigid + np.array(_HANGING)[:, None] * (plumb - rigid)

    stiffness = np.tile(_KIND_STIFFNESS, AZIMUTHS)[:, None, None]
    omega = 2 * np.pi * np.array(_FREQUENCIES)[:, None] * stiffness
    follow = np.array(_FOLLOWING)[:, None]
    steps = max(1, int(np.ceil(1.0 / (frame_rate * _LONGEST_STEP))))
    step = 1.0 / (frame_rate * steps)
    place, speed = goals[0].copy(), np.zeros_like(goals[0])
    offsets = np.empty_like(goals)
    offsets[0] = place - rigid[0]
    for frame in range(1, len(poses)):
        before, change = goals[frame - 1], goals[frame] - goals[frame - 1]
        for i in range(steps):
            goal = before + change * ((i + 1) / steps)
            place += follow * change / steps
            speed += step * (omega * omega * (goal - place) - 2 * _DAMPING * omega * speed)
            place += step * speed
        offsets[frame] = place - rigid[frame]
    return offsets.astype(np.float32)
