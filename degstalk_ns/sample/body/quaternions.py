"""Rotations of surfels as quaternions, wxyz, in single precision.

scipy's Rotation works in double precision: rounded back, it gives other last bits, and the same seed shall give the
same bytes of a sample as ever. It must not know what they turn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.surfels import Floats

Reals = NDArray[np.floating]


def facing(normals: Reals) -> Floats:
    """Unit quaternions [N, 4], wxyz, whose third axis is the unit normal [N, 3]."""
    x, y, z = normals.T
    quats = np.stack([1.0 + z, -y, x, np.zeros_like(z)], axis=1)
    quats[z < -0.9999] = (0.0, 1.0, 0.0, 0.0)
    return (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)


def along(directions: Reals) -> Floats:
    """Unit quaternions [N, 4], wxyz, whose first axis is the unit direction [N, 3]."""
    x, y, z = directions.T
    quats = np.stack([1.0 + x, np.zeros_like(x), -z, y], axis=1)
    quats[x < -0.9999] = (0.0, 0.0, 1.0, 0.0)
    return (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)


def quat_product(a: Floats, b: Floats) -> Floats:
    """Hamilton products of quaternions [..., 4], wxyz."""
    w, x, y, z = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    product = [
        w * bw - x * bx - y * by - z * bz,
        w * bx + x * bw + y * bz - z * by,
        w * by - x * bz + y * bw + z * bx,
        w * bz + x * by - y * bx + z * bw,
    ]
    return np.stack(product, axis=-1).astype(np.float32)


def rotation_quat(rotation: NDArray[np.floating]) -> Floats:
    """The quaternion [4], wxyz, of a rotation [3, 3] by less than half a turn."""
    w = 0.5 * np.sqrt(max(1.0 + float(np.trace(rotation)), 1e-12))
    axis = [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    quat = np.array([w, *(float(a) / (4.0 * w) for a in axis)])
    return (quat / np.linalg.norm(quat)).astype(np.float32)
