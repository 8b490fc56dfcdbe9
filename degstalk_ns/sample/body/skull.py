"""The shape of the head's skin at rest: a signed distance of blended ellipsoids, and points spread over it.

It must not know colours, eyelids' and lips' own surfaces, nor movement. All lengths in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from degstalk_ns.sample.body.design import EYE_CENTRE, EYE_RADIUS_MM, MM, NECK_END_Y, Design, Points
from degstalk_ns.sample.body.surfels import BACK_Z, CROWN_Y, SKULL_HALF_WIDTH, Floats

LID_THICKNESS: float = 1.2
"""Skin over the eyeball, mm."""
EYE_STRETCH: float = 1.42
"""How much wider than high the ball under the lids is: the corners of an eye lie beside the eyeball."""
CRANIUM_CENTRE: tuple[float, float, float] = (0.0, 20.0, -7.0)
"""Centre of the brain case, mm."""
NOSTRIL: tuple[float, float, float] = (5.0, -37.6, 85.0)
"""Middle of the nostril at positive x, mm."""
NOSTRIL_RADII: tuple[float, float, float] = (2.7, 3.4, 4.6)
_EPSILON = 0.05  # mm, for gradients


Columns = tuple[Points, Points, Points]
"""x, y and z of points, each [...]: several times faster than rows of three."""


def _ellipsoid(p: Columns, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Points:
    a, b = np.zeros_like(p[0]), np.zeros_like(p[0])
    for coordinate, c, r in zip(p, centre, radii, strict=True):
        q = (coordinate - c) / r
        q *= q
        a += q
        b += q / (r * r)
    a = np.sqrt(a)
    return a * (a - 1.0) / np.sqrt(np.maximum(b, 1e-18))


def _capsule(p: Columns, start: tuple[float, ...], end: tuple[float, ...], radii: tuple[float, float]) -> Points:
    way = [b - a for a, b in zip(start, end, strict=True)]
    length = sum(w * w for w in way)
    t = np.clip(sum((c - a) * w for c, a, w in zip(p, start, way, strict=True)) / length, 0.0, 1.0)
    off = sum((c - a - t * w) ** 2 for c, a, w in zip(p, start, way, strict=True))
    return np.sqrt(off) - (radii[0] + t * (radii[1] - radii[0]))


def _join(a: Points, b: Points, k: float) -> Points:
    h = np.maximum(k - np.abs(a - b), 0.0) / k
    return np.minimum(a, b) - h * h * k * 0.25


def _cut(a: Points, b: Points, k: float) -> Points:
    """``a`` without ``b``."""
    return -_join(-a, b, k)


def _cranium_radii() -> tuple[float, float, float]:
    return MM * SKULL_HALF_WIDTH, MM * CROWN_Y - CRANIUM_CENTRE[1], CRANIUM_CENTRE[2] - MM * BACK_Z


def skull_radius(directions: Floats) -> Floats:
    """Distance from the origin to the smooth brain case, for hair to lie on.

    Args:
        directions: [..., 3] any length but 0, head coordinates.

    Returns:
        [...] metres. Only the brain case (forehead, crown, sides, back): no face, jaw or ears.
    """
    unit = np.asarray(directions, dtype=np.float64)
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    radii, centre = np.array(_cranium_radii()), np.array(CRANIUM_CENTRE)
    d, c = unit / radii, centre / radii
    a, b = (d * d).sum(-1), d @ c
    radius = (b + np.sqrt(b * b - a * (c @ c - 1.0))) / a
    return np.asarray(radius / MM, dtype=np.float32)


@dataclass(frozen=True)
class Skull:
    """The head's skin as a signed distance."""

    design: Design

    def distance(self, points: Points) -> Points:
        """[...] signed distance of ``points`` [..., 3] to the skin, mm; negative inside. Nearly true near it."""
        d = self.design
        jaw, nose = d.jaw_width, d.nose_width
        # The face is symmetric; x is rounded so that there is no crease in the middle.
        p = (np.sqrt(points[..., 0] ** 2 + 0.04), points[..., 1] + 0.0, points[..., 2] + 0.0)
        f = _ellipsoid(p, CRANIUM_CENTRE, _cranium_radii())
        f = _join(f, _ellipsoid(p, (0, 36, 26), (58, 44, 52)), 14)  # forehead
        f = _join(f, _ellipsoid(p, (0, -20, 16), (58, 56, 53)), 18)  # middle of the face
        f = _join(f, _ellipsoid(p, (0, -48, 18), (48 * jaw, 44, 48)), 18)  # jaw
        f = _join(f, _capsule(p, (35 * jaw, -54, 8), (6 * jaw, -82, 56), (15, 12)), 26)  # its edge
        f = _join(f, _ellipsoid(p, (0, -82, 58), (15 * jaw, 15.5, 16.5)), 16)  # chin
        f = _join(f, _ellipsoid(p, (41, -15, 40), (19 * d.cheekbones, 14, 19)), 24)  # cheekbones
        f = _join(f, _ellipsoid(p, (25, -36, 46), (20, 24, 20)), 20)  # cheeks
        f = _join(f, _ellipsoid(p, (25, 22, 59), (26, 7.5, 15)), 15)  # brow ridge
        f = _join(f, _ellipsoid(p, (45, 6, 40), (9, 18, 15)), 20)  # outer rim of the eye sockets
        f = _join(f, _ellipsoid(p, (0, -57, 50), (27, 24, 25.5)), 16)  # around the mouth
        f = _cut(f, _ellipsoid(p, (30, 3, 85), (18, 13, 20)), 15)  # eye sockets
        x, y, z = EYE_CENTRE
        ball = EYE_RADIUS_MM + LID_THICKNESS
        f = _join(f, _ellipsoid(p, (x, y, z), (EYE_STRETCH * EYE_RADIUS_MM, ball, ball)), 6)
        f = _join(f, self._nose(p, nose), 8)
        f = _cut(f, _ellipsoid(p, NOSTRIL, NOSTRIL_RADII), 2.0)  # nostrils
        f = _cut(f, _capsule(p, (0.0, -43.0, 81.5), (0.0, -49.0, 81.0), (1.6, 2.4)), 5)  # groove of the upper lip
        f = _cut(f, _ellipsoid(p, (0, -72.5, 84), (15, 4.5, 9)), 9)  # under the lower lip
        f = _join(f, self._ear(p), 5)
        neck = np.maximum(_capsule(p, (0, -60, -14), (0, -130, -26), (40, 40)), NECK_END_Y - p[1])
        return _join(f, neck, 14)

    @staticmethod
    def _nose(p: Columns, width: float) -> Points:
        f = _capsule(p, (0, 14, 70.5), (0, -24, 84.5), (4.8, 5.8))  # bridge
        f = _join(f, _ellipsoid(p, (0, -28, 86.4), (7.4 * width, 7.0, 9.4)), 9)  # tip
        f = _join(f, _ellipsoid(p, (8.5 * width, -32.4, 79.0), (4.8 * width, 5.0, 8.0)), 9)  # wings
        return _join(f, _capsule(p, (0, -34.0, 87.0), (0, -38.5, 78), (3.2, 3.2)), 5)  # between the nostrils

    @staticmethod
    def _ear(p: Columns) -> Points:
        flare, tilt = np.radians(24.0), np.radians(12.0)
        px, py, pz = p[0] - 70.5, p[1] + 8.0, p[2] + 14.0
        x = px * np.cos(flare) + pz * np.sin(flare)
        pz = -px * np.sin(flare) + pz * np.cos(flare)
        local = (x, py * np.cos(tilt) + pz * np.sin(tilt), -py * np.sin(tilt) + pz * np.cos(tilt))
        f = _ellipsoid(local, (0, 4, 0), (5.5, 27, 17))
        f = _join(f, _ellipsoid(local, (0, -24, 6), (4.2, 8, 7)), 8)
        f = _cut(f, _ellipsoid(local, (5.5, 7, 1), (5, 18, 10)), 3)
        f = _cut(f, _ellipsoid(local, (5, -6, 4), (6, 8, 7)), 3)
        return _join(f, _ellipsoid(local, (2, -4, 12), (3, 5, 3.5)), 3)

    def normals(self, points: Points) -> Points:
        """[N, 3] unit normals at ``points`` [N, 3] on or near the skin."""
        corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=np.float64)
        gradient = np.zeros_like(points)
        for corner in corners:
            gradient += corner * self.distance(points + _EPSILON * corner)[:, None]
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-12)

    def project(self, points: Points, steps: int = 4) -> Points:
        """[N, 3] the points of the skin next to ``points`` [N, 3]."""
        for _ in range(steps):
            points = points - self.distance(points)[:, None] * self.normals(points)
        return points

    def front(self, x: Points, y: Points) -> Points:
        """[...] foremost z of the skin at x, y, mm, by marching backwards from in front of the face."""
        z = np.full(np.broadcast(x, y).shape, 110.0)
        for _ in range(40):
            z = z - 0.8 * np.clip(self.distance(np.stack(np.broadcast_arrays(x, y, z), axis=-1)), -2.0, 20.0)
        return z

    def occlusion(self, points: Points, normals: Points) -> Points:
        """[N] 0 (open sky) .. 1 (deep in a corner), by how much nearer the skin is than the way taken outwards."""
        total = np.zeros(len(points))
        for reach, weight in ((2.0, 0.30), (5.0, 0.16), (10.0, 0.09), (18.0, 0.05)):
            total += weight * np.maximum(reach - self.distance(points + reach * normals), 0.0) / reach * 2.0
        return np.clip(total, 0.0, 1.0)


def spread_over_skin(skull: Skull, finest: float) -> tuple[Points, NDArray[np.float64]]:
    """Points spread evenly over the skin: finest around the nostrils, fine on the face, coarse under the hair.

    Args:
        finest: spacing of the face, mm.

    Returns:
        [N, 3] points, mm, and [N] their spacing, mm. Mirror images of each other in x.
    """
    top = finest * 16.0
    low, high = np.array([0.5 * top, NECK_END_Y - top, -105.0]), np.array([90.0, 110.0, 105.0])
    axes = [np.arange(a, b + top, top) for a, b in zip(low, high, strict=True)]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    size, kept, sizes = top, [], []
    while len(cells):
        near = np.abs(skull.distance(cells)) < 0.95 * size
        cells = cells[near]
        done = size <= 1.01 * _spacing(cells, finest)
        leaves = cells[done]
        leaves = leaves[np.abs(skull.distance(leaves)) < 0.5 * size]
        kept.append(leaves)
        sizes.append(np.full(len(leaves), size))
        corners = (np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3, indexing="ij"), axis=-1)).reshape(-1, 3)
        cells = (cells[~done][:, None, :] + size * corners).reshape(-1, 3)
        size *= 0.5
    points, spacing = np.concatenate(kept), np.concatenate(sizes)
    points = _relaxed(skull, skull.project(points), spacing)
    inside = points[:, 1] > NECK_END_Y + 1.0  # no floor: the neck goes on below
    points, spacing = points[inside], spacing[inside]
    mirror = points * np.array([-1.0, 1.0, 1.0])
    return np.concatenate([points, mirror]), np.concatenate([spacing, spacing])


def _spacing(p: Points, face: float) -> Points:
    """[N] spacing wanted at ``p``: half around the nostrils, doubled on the sides, fourfold at the back."""
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    detail = (z > 76) & (x < 14) & (y > -43) & (y < -31)
    ears = (x > 66) & (z > -38) & (y > -50) & (y < 30)
    face_side = ears | ((z > 0) & (y > -97))
    out = np.where((z > 40) & (y > -94) & (y < 44), face, np.where(face_side, 2.0 * face, 4.0 * face))
    return np.where(detail, 0.5 * face, out)


def _relaxed(skull: Skull, points: Points, spacing: Points, rounds: int = 9) -> Points:
    """``points`` pushed apart along the skin until they lie evenly."""
    points = points + np.random.default_rng(5).uniform(-0.3, 0.3, points.shape) * spacing[:, None]  # breaks the lattice
    for _ in range(rounds):
        mirror = points * np.array([-1.0, 1.0, 1.0])
        near = points[:, 0] < 10.0
        both, sizes = np.concatenate([points, mirror[near]]), np.concatenate([spacing, spacing[near]])
        distances, index = cKDTree(both).query(points, k=8)
        away = points[:, None, :] - both[index[:, 1:]]
        gap = distances[:, 1:] / (1.15 * 0.5 * (spacing[:, None] + sizes[index[:, 1:]]))
        push = np.maximum(1.0 - gap, 0.0)[..., None] * away / np.maximum(distances[:, 1:, None], 1e-6)
        points = points + 0.45 * spacing[:, None] * push.sum(axis=1)
        points[:, 0] = np.maximum(points[:, 0], 0.3 * spacing)
        points = skull.project(points, steps=1)
    return points
