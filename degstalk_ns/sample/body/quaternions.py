"""Rotations of surfels as quaternions, wxyz. It must not know what they turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.surfels import Floats

Doubles = NDArray[np.float64]


def frame_quats(normals: Doubles) -> Floats:
    """Unit quaternions [N, 4], wxyz, whose third axis is the normal [N, 3]."""
    half = np.stack([1.0 + normals[:, 2], -normals[:, 1], normals[:, 0], np.zeros(len(normals))], axis=1)
    half[normals[:, 2] < -0.9999] = (0.0, 1.0, 0.0, 0.0)
    return (half / np.linalg.norm(half, axis=1, keepdims=True)).astype(np.float32)


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
