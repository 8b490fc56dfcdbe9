"""The still body's shape, neck to shoulders, as a distance field: clothes lie on it and hair falls on it.

It must not know colours, surfels, nor the head above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.design import smoothstep

Doubles = NDArray[np.float64]
Distance = Callable[[Doubles], Doubles]

STUMP_Y: float = -0.064
"""Metres: where the neck ends, inside the head, closed by a cap."""
NECK_AXIS_Z: float = -0.026

# Neckline of the clothes: a plane that rises to the back. Metres.
_NECKLINE_FRONT, _NECKLINE_SLOPE = -0.1785, 0.30
_CLOTHES = 0.0065  # thickness for what lies on them


@dataclass(frozen=True)
class _Bone:
    """A round cone between two points, joined to the others with a fillet. Metres; x > 0 stands for both sides."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]
    fillet: float


# Placed by eye in front, side and three-quarter views, in the proportions of surfels.py.
_NECK = (
    _Bone((0.0, -0.050, -0.022), (0.0, -0.210, -0.036), (0.0430, 0.0500), 0.0),
    _Bone((0.038, -0.066, -0.030), (0.011, -0.188, 0.0155), (0.0085, 0.0065), 0.010),  # sternocleidomastoid
)
_TORSO = (
    _Bone((0.020, -0.165, -0.046), (0.175, -0.262, -0.042), (0.030, 0.040), 0.030),  # trapezius
    _Bone((0.170, -0.285, -0.040), (0.180, -0.285, -0.040), (0.058, 0.058), 0.030),  # shoulder joint
    _Bone((0.013, -0.192, 0.024), (0.150, -0.214, 0.000), (0.0065, 0.0065), 0.012),  # collarbone
)
_CHEST_CENTRE = (0.0, -0.340, -0.022)
_CHEST_RADII = (0.200, 0.172, 0.092)
_CHEST_FILLET = 0.022
_STUMP_FILLET = 0.010
_STEEPEST = 2.0  # change of a field by metre, at most: what :func:`surface_points` looks for


def _union(a: Doubles, b: Doubles, fillet: float) -> Doubles:
    """The nearer of two distances, blended over ``fillet`` metres (a polynomial smooth minimum)."""
    if fillet == 0.0:
        return np.minimum(a, b)
    h = np.maximum(fillet - np.abs(a - b), 0.0) / fillet
    return np.minimum(a, b) - h * h * fillet * 0.25


def _to_bone(points: Doubles, bone: _Bone) -> Doubles:
    start, axis = np.array(bone.start), np.array(bone.end) - np.array(bone.start)
    along = np.clip((points - start) @ axis / (axis @ axis), 0.0, 1.0)
    radius = bone.radii[0] + along * (bone.radii[1] - bone.radii[0])
    return np.linalg.norm(points - start - along[:, None] * axis, axis=1) - radius


def _neck(points: Doubles) -> Doubles:
    folded = np.abs(points) * [1.0, 0.0, 0.0] + points * [0.0, 1.0, 1.0]
    distance = _to_bone(folded, _NECK[0])
    for bone in _NECK[1:]:
        distance = _union(distance, _to_bone(folded, bone), bone.fillet)
    return -_union(-distance, STUMP_Y - points[:, 1], _STUMP_FILLET)


def body_distance(points: Doubles) -> Doubles:
    """Signed distance [N] to skin of neck and torso, metres, negative inside; a bound where shapes blend.

    Args:
        points: [N, 3] room coordinates.
    """
    folded = np.abs(points) * [1.0, 0.0, 0.0] + points * [0.0, 1.0, 1.0]
    inside = (folded - _CHEST_CENTRE) / _CHEST_RADII
    level = np.linalg.norm(inside, axis=1)
    slope = np.linalg.norm(inside / _CHEST_RADII, axis=1)
    distance = level * (level - 1.0) / np.maximum(slope, 1e-6)
    for bone in _TORSO:
        distance = _union(distance, _to_bone(folded, bone), bone.fillet)
    return _union(distance, _neck(points), _CHEST_FILLET)


def below_neckline(points: Doubles) -> Doubles:
    """Metres [N] below the neckline's plane; negative is bare skin. points [N, 3]: room coordinates."""
    return _NECKLINE_FRONT + _NECKLINE_SLOPE * (0.03 - points[:, 2]) - points[:, 1]


def clothed_distance(points: Doubles) -> Doubles:
    """As :func:`body_distance`, to skin above the neckline and to the clothes below it."""
    return body_distance(points) - _CLOTHES * smoothstep(-0.006, 0.004, below_neckline(points))


def gradient(distance: Distance, points: Doubles, step: float = 2e-4) -> tuple[Doubles, Doubles]:
    """Unit gradients [N, 3] of a field and its steepness [N] (1 for a true distance), by central differences."""
    columns = [distance(points + axis) - distance(points - axis) for axis in np.eye(3) * step]
    slopes = np.stack(columns, axis=1) / (2.0 * step)
    steepness = np.maximum(np.linalg.norm(slopes, axis=1), 1e-9)
    return slopes / steepness[:, None], steepness


def surface_points(distance: Distance, low: Doubles, high: Doubles, spacing: float) -> tuple[Doubles, Doubles]:
    """Evenly strewn points on the zero level inside a box.

    Args:
        distance: field in metres. low, high: [3] corners of the box. spacing: of the points, metres.

    Returns:
        points [N, 3] and outward unit normals [N, 3].
    """
    block = 4
    coarse = spacing * block
    axes = [np.arange(lo, hi, coarse) + coarse / 2 for lo, hi in zip(low, high, strict=True)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = centres[np.abs(distance(centres)) < _STEEPEST * coarse]
    fine = (np.arange(block) - (block - 1) / 2) * spacing
    offsets = np.stack(np.meshgrid(fine, fine, fine, indexing="ij"), axis=-1).reshape(-1, 3)
    points = (centres[:, None] + offsets).reshape(-1, 3)
    points = points[np.abs(distance(points)) < _STEEPEST * spacing]
    normals, steepness = gradient(distance, points)
    # A naive digital plane: the field is linear at this size, so exactly one voxel of each column passes.
    kept = np.abs(distance(points)) <= 0.5 * spacing * np.abs(normals).max(axis=1) * steepness
    points, normals, steepness = points[kept], normals[kept], steepness[kept]
    for _ in range(2):
        points = points - (distance(points) / steepness)[:, None] * normals
        normals, steepness = gradient(distance, points)
    return points, normals


class DistanceGrid:
    """A distance field tabulated on a grid, to push many points out of it fast.

    Outside of the box nothing is pushed.
    """

    def __init__(self, distance: Distance, low: tuple[float, float, float], high: tuple[float, float, float]) -> None:
        self.cell = 0.004  # metres: the shapes are rounder than that
        self.low = np.array(low, dtype=np.float32)
        self.shape = np.ceil((np.array(high) - low) / self.cell).astype(np.int64)
        index = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        self.centres = (np.array(low) + (index + 0.5) * self.cell).astype(np.float32)
        points = self.centres.astype(np.float64)
        self.values = distance(points).astype(np.float32)
        self.slopes = gradient(distance, points, step=self.cell / 2)[0].astype(np.float32)

    def look_up(self, points: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Distances [N] (a metre outside of the box) and unit gradients [N, 3] at points [N, 3]."""
        index = ((points - self.low) * np.float32(1.0 / self.cell)).astype(np.int64)
        outside = ((points < self.low) | (index >= self.shape)).any(axis=1)
        index[outside] = 0
        flat = (index[:, 0] * self.shape[1] + index[:, 1]) * self.shape[2] + index[:, 2]
        slopes = self.slopes[flat]
        distances = self.values[flat] + ((points - self.centres[flat]) * slopes).sum(axis=1)
        distances[outside] = 1.0
        return distances, slopes
