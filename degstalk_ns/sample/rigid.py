"""Moving surfels as one rigid piece. It must not know what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from degstalk_ns.sample.surfels import Floats, Surfels


def moved(surfels: Surfels, room_from_head: Floats) -> Surfels:
    """Surfels of the head in room coordinates; ``room_from_head`` [4, 4] is rigid."""
    rotation, shift = room_from_head[:3, :3], room_from_head[:3, 3]
    return replace(
        surfels,
        means=surfels.means @ rotation.T + shift,
        normals=surfels.normals @ rotation.T,
        quats=_product(_quaternion(rotation), surfels.quats),
    )


def _quaternion(rotation: Floats) -> Floats:
    """wxyz, for rotations by less than half a turn: a head does not face backwards."""
    w = np.sqrt(max(1.0 + float(np.trace(rotation)), 1e-9)) / 2
    x, y, z = rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]
    return np.array([w, x / (4 * w), y / (4 * w), z / (4 * w)], np.float32)


def _product(a: Floats, b: Floats) -> Floats:
    """Quaternion [4] times quaternions [N, 4], wxyz."""
    w, x, y, z = a
    matrix = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], np.float32)
    return b @ matrix.T
