"""Neck, shoulders and a knitted jumper of the sample head, in room coordinates.

The shoulders stand still, the neck bends between them and the head. It must not know the face, the hair,
light or cameras.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from degstalk_ns.sample.body.bust import (
    NECK_AXIS_Z,
    STUMP_Y,
    Doubles,
    below_neckline,
    body_distance,
    surface_points,
)
from degstalk_ns.sample.body.design import smoothstep
from degstalk_ns.sample.body.quaternions import facing, quat_product, rotation_quat
from degstalk_ns.sample.body.surfels import NECK_PIVOT, Floats, Part, Surfels

SKIN: tuple[float, float, float] = (205 / 255, 155 / 255, 130 / 255)
"""Skin in light, gamma-encoded; the face has the same."""

BODY_SPACING: float = 0.0011  # metres between surfels where the picture shows them
_COARSE_SPACING = 0.0024  # outside of the frame
_FRAME = 0.212  # metres: half the frame with a margin
_EXTENT = 0.255  # metres: how far the body goes on below and beside the frame
_FLATNESS = 0.15  # thickness of a surfel by its spacing
_REACH = 0.6  # standard deviation in the surface by spacing

# The bend of the neck: it follows the head above the first height and stands still below the second. Metres.
_FOLLOWS_Y, _STILL_Y = -0.074, -0.158

# Jumper, metres.
_CLOTH = 0.0035
_COLLAR_WIDTH, _COLLAR_THICKNESS = 0.0125, 0.0030
_RIBS = 84
_WALES, _COURSE = 120, 0.0038  # stitches around the yoke; height of a row, metres
_YOKE_CENTRE = (0.0, -0.150, NECK_AXIS_Z)
_COLOURS = ((0.20, 0.33, 0.42), (0.52, 0.22, 0.22), (0.30, 0.36, 0.28), (0.74, 0.67, 0.57), (0.27, 0.25, 0.35))
"""Wool, gamma-encoded: petrol, madder, moss, oatmeal, aubergine."""


@dataclass(frozen=True)
class _Folds:
    """Soft folds of cloth: n plane waves. directions [n, 3] in radians a metre, phases [n], depths [n] in metres."""

    directions: Doubles
    phases: Doubles
    depths: Doubles

    def height(self, points: Doubles) -> Doubles:
        return np.sin(points @ self.directions.T + self.phases) @ self.depths


class Body:
    """Neck and clothed shoulders.

    Args:
        seed: colour of the jumper, its stripe and its folds.
        skin: [3] colour in light, 0..1, gamma-encoded.
    """

    def __init__(self, seed: int = 0, skin: tuple[float, float, float] = SKIN) -> None:
        random = np.random.default_rng([seed, 0x0B0D])
        self._skin = self._make_skin(random, np.array(skin))
        self._cloth = self._make_cloth(random)
        y = self._skin.means[:, 1].astype(np.float64)
        self._follow = smoothstep(_STILL_Y, _FOLLOWS_Y, y).astype(np.float32)

    def surfels(self, room_from_head: Floats) -> Surfels:
        """Neck (following the head at its top) and torso (always the same), in room coordinates.

        Args:
            room_from_head: [4, 4] rotation and translation; the identity at rest.
        """
        matrix, skin, w = np.asarray(room_from_head, dtype=np.float32), self._skin, self._follow[:, None]
        # A bend that is spread along the neck: each height turns by its share of the head's rotation about the pivot.
        identity = np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)
        quats = identity + w * (rotation_quat(matrix[:3, :3]) - identity)
        quats /= np.linalg.norm(quats, axis=1, keepdims=True)
        pivot = np.array(NECK_PIVOT, dtype=np.float32)
        shift = matrix[:3, :3] @ pivot + matrix[:3, 3] - pivot
        means = _rotated(quats, skin.means - pivot) + pivot + w * shift
        normals = _rotated(quats, skin.normals)
        moved = {"means": means, "normals": normals, "quats": quat_product(quats, skin.quats)}
        pieces = {f.name: moved.get(f.name, getattr(skin, f.name)) for f in fields(Surfels)}
        return Surfels(**{name: np.concatenate([value, getattr(self._cloth, name)]) for name, value in pieces.items()})

    def _make_skin(self, random: np.random.Generator, skin: Doubles) -> Surfels:
        low, high = np.array([-0.12, -0.215, -0.13]), np.array([0.12, STUMP_Y + 0.004, 0.09])
        points, normals = surface_points(body_distance, low, high, BODY_SPACING)
        kept = below_neckline(points) < 0.006
        kept &= normals[:, 2] > np.where(points[:, 1] < -0.15, -0.85, -2.0)
        points, normals = points[kept], normals[kept]
        x, y, z = points.T
        # Occlusion: the jaw hangs over the neck's upper front, hair over its sides and back, the collar over its foot.
        chin = smoothstep(-0.150, -0.088, y) * smoothstep(-0.02, 0.03, z)
        sides = smoothstep(0.030, 0.062, np.abs(x)) * smoothstep(-0.19, -0.15, y)
        back = smoothstep(0.01, -0.04, z)
        collar = smoothstep(-0.006, 0.001, below_neckline(points))
        light = (1 - 0.32 * chin) * (1 - 0.26 * sides) * (1 - 0.35 * back) * (1 - 0.25 * collar)
        # Hollows between muscles and bones are darker, ridges lighter: compare with the surface a little further out.
        hollow = 0.004 - body_distance(points + 0.004 * normals)
        light = light * np.clip(1.0 - 60.0 * hollow, 0.8, 1.08)
        mottle = sum(np.sin(points @ random.normal(0, 260, 3) + random.uniform(0, 6)) for _ in range(6)) / 6
        albedo = skin * (1.0 + 0.025 * mottle[:, None])
        red = np.array([0.75, 1.05, 1.12])  # light that went through skin loses blue and green: shadows are warm
        albedo = albedo * light[:, None] ** red
        return _flat_surfels(points, normals, albedo, BODY_SPACING, gloss=0.22, part=Part.NECK)

    def _make_cloth(self, random: np.random.Generator) -> Surfels:
        folds = _Folds(
            random.normal(0.0, 1.0, (5, 3)) * [60.0, 45.0, 45.0],
            random.uniform(0.0, 2 * np.pi, 5),
            random.uniform(0.0005, 0.0013, 5),
        )
        colour = np.array(_COLOURS[int(random.integers(len(_COLOURS)))]) * random.uniform(0.92, 1.08)
        stripe = random.uniform(0.65, 1.4)

        def outside(points: Doubles) -> Doubles:
            below = below_neckline(points)
            band = smoothstep(_COLLAR_WIDTH + 0.002, _COLLAR_WIDTH - 0.002, below)
            loose = smoothstep(_COLLAR_WIDTH, 0.05, below)
            thickness = _CLOTH + band * _COLLAR_THICKNESS + loose * (0.002 + folds.height(points))
            # The collar's rounded edge dives under the skin, so that the two meet in a clean line.
            return body_distance(points) + 0.0015 - (0.0015 + thickness) * smoothstep(-0.001, 0.004, below)

        inner_low, inner_high = np.array([-_FRAME, -_FRAME, -0.12]), np.array([_FRAME, -0.10, 0.10])
        points, normals = surface_points(outside, inner_low, inner_high, BODY_SPACING)
        kept = (below_neckline(points) > -0.001) & (normals[:, 2] > -0.3)
        inner = self._knit(points[kept], normals[kept], colour, stripe, BODY_SPACING)
        low, high = np.array([-_EXTENT, -_EXTENT, -0.12]), np.array([_EXTENT, -0.10, 0.12])
        points, normals = surface_points(outside, low, high, _COARSE_SPACING)
        kept = (np.abs(points[:, 0]) > _FRAME - BODY_SPACING) | (points[:, 1] < -_FRAME + BODY_SPACING)
        kept &= (below_neckline(points) > 0.0) & (normals[:, 2] > -0.3)
        outer = self._knit(points[kept], normals[kept], colour, stripe, _COARSE_SPACING)
        return Surfels(*(np.concatenate([getattr(inner, f.name), getattr(outer, f.name)]) for f in fields(Surfels)))

    @staticmethod
    def _knit(points: Doubles, normals: Doubles, colour: Doubles, stripe: float, spacing: float) -> Surfels:
        """Stitches that run out from the collar as in a round-yoke jumper, ribs on the collar itself."""
        from_centre = points - _YOKE_CENTRE
        angle = np.arctan2(from_centre[:, 0], from_centre[:, 2])
        radius = np.linalg.norm(from_centre, axis=1)
        below = below_neckline(points)
        in_collar = below < _COLLAR_WIDTH
        rib = np.cos(angle * _RIBS)
        wale = angle * _WALES / (2 * np.pi) * 2
        across = np.abs(wale - np.rint(wale)) * 2  # 0 in the middle of a column, 1 between two
        row = radius / _COURSE + 0.35 * across  # legs of a stitch meet in a V
        along = 0.5 + 0.5 * np.cos(2 * np.pi * row)
        stitch = 0.80 + 0.17 * (1 - across) + 0.09 * along
        light = np.where(in_collar, 0.90 + 0.13 * rib, stitch)
        light *= 1.0 - 0.42 * np.exp(-((np.abs(below - _COLLAR_WIDTH) / 0.0016) ** 2))  # seam below the collar
        light *= 1.0 - 0.35 * np.exp(-np.maximum(below, 0.0) / 0.0012)  # edge at the skin
        light *= 0.72 + 0.28 * smoothstep(0.085, 0.125, np.abs(points[:, 0]) + 0.5 * np.maximum(points[:, 2], 0.0))
        banded = np.where((radius > 0.072) & (radius < 0.081), stripe, 1.0)
        albedo = colour * (light * banded)[:, None]
        tangent = np.stack([np.cos(angle), np.zeros_like(angle), -np.sin(angle)], axis=1)
        lean = np.where(in_collar, 0.35 * np.sin(angle * _RIBS), 0.30 * np.sin(2 * np.pi * wale))
        shaded = normals + lean[:, None] * tangent
        return _flat_surfels(points, normals, albedo, spacing, gloss=0.04, part=Part.TORSO, shading=shaded)


def _rotated(quats: Floats, vectors: Floats) -> Floats:
    """Vectors [N, 3] turned by unit quaternions [N, 4]."""
    axis = quats[:, 1:]
    once = 2.0 * np.cross(axis, vectors)
    return vectors + quats[:, :1] * once + np.cross(axis, once)


def _flat_surfels(
    points: Doubles,
    normals: Doubles,
    albedo: Doubles,
    spacing: float,
    *,
    gloss: float,
    part: Part,
    shading: Doubles | None = None,
) -> Surfels:
    """Surfels that lie in a surface; ``shading`` are normals for the light where they differ from the surface's."""
    count = len(points)
    lit = normals if shading is None else shading / np.linalg.norm(shading, axis=1, keepdims=True)
    sigma = spacing * _REACH
    return Surfels(
        means=points.astype(np.float32),
        quats=facing(normals),
        scales=np.tile(np.array([sigma, sigma, spacing * _FLATNESS], dtype=np.float32), (count, 1)),
        normals=lit.astype(np.float32),
        albedo=np.clip(albedo, 0.0, 1.0).astype(np.float32),
        gloss=np.full(count, gloss, dtype=np.float32),
        opacities=np.full(count, 0.97, dtype=np.float32),
        parts=np.full(count, part, dtype=np.uint8),
    )
