"""What is behind the lips: teeth, gums, tongue and the dark cavity.

It must not know lips or skin; only how the jaw turns. Lengths in millimetres.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.sample.body import patches
from degstalk_ns.sample.body.design import MOUTH_Y, Points, bump, smoothstep
from degstalk_ns.sample.body.mimic import JAW_ANGLE, jaw_turned
from degstalk_ns.sample.body.surfels import FaceState, Part, Surfels, join

UPPER_EDGE: float = MOUTH_Y - 2.2
"""y of the upper front teeth's edges."""
LOWER_EDGE: float = MOUTH_Y - 3.2
_ARCH_Z = 69.5  # mm, front of the upper front teeth
_ARCH_BEND = 0.026  # 1/mm, how the row of teeth curves back
_UPPER_WIDTHS = (8.4, 6.6, 7.4, 6.8, 6.8, 8.0)
_LOWER_WIDTHS = (5.4, 5.8, 6.6, 6.8, 6.8, 8.0)
_TOOTH_SPACING = 0.7
_DARKEST = 0.35
"""Light that gets into a mouth opened by a crack, as part of that into an open one."""


def _arch(offset: Points, front: float) -> tuple[Points, Points, Points]:
    """x, z and outward angle at a way ``offset`` along the row of teeth."""
    fine = np.linspace(0.0, 45.0, 400)
    slope = 2.0 * _ARCH_BEND * fine
    length = np.concatenate([[0.0], np.cumsum(np.sqrt(1.0 + slope[:-1] ** 2) * np.diff(fine))])
    x = np.asarray(np.copysign(np.interp(np.abs(offset), length, fine), offset), dtype=np.float64)
    return x, front - _ARCH_BEND * x * x, np.arctan(2.0 * _ARCH_BEND * x)


def _row(upper: bool) -> tuple[Points, Points, Points]:
    """Points, normals and albedo of one row of teeth."""
    widths = _UPPER_WIDTHS if upper else _LOWER_WIDTHS
    front = _ARCH_Z if upper else _ARCH_Z - 2.4
    points, normals, albedo = [], [], []
    start = 0.0
    for i, width in enumerate(widths):
        tall = (9.2, 8.2, 9.0, 7.6, 7.2, 6.8)[i] if upper else (7.6, 7.8, 8.6, 7.6, 7.0, 6.6)[i]
        lift = (0.0, 0.7, 0.1, 0.8, 1.1, 1.4)[i] if upper else (0.0, 0.1, -0.2, 0.5, 0.8, 1.0)[i]
        a, b = np.meshgrid(
            np.linspace(-1.0, 1.0, round(width / _TOOTH_SPACING) + 1), np.linspace(0.0, 1.0, 12), indexing="ij"
        )
        a, b = a.ravel(), b.ravel()
        rounded = 0.9 * np.abs(a) ** 3 * (1.0 - b) ** 2 * (1.0 if upper else 0.6)  # corners of the edge
        slim = 1.0 - 0.10 * b
        for mirror in (1.0, -1.0):
            offset = mirror * (start + 0.5 * width * (1.0 + 0.97 * a * slim))
            x, z, angle = _arch(offset, front)
            belly = 0.9 * (1.0 - a**2) * (0.4 + 0.6 * np.sin(np.pi * np.clip(b + 0.25, 0, 1)))
            out = np.stack([np.sin(angle), 0.0 * x, np.cos(angle)], axis=1)
            y = (UPPER_EDGE + lift + tall * b + rounded) if upper else (LOWER_EDGE - lift - tall * b - rounded)
            points.append(np.stack([x, y, z], axis=1) + belly[:, None] * out)
            side = np.stack([np.cos(angle), 0.0 * x, -np.sin(angle)], axis=1)
            normal = out + (0.45 * mirror * a)[:, None] * side
            normal[:, 1] += (0.25 if upper else -0.25) * (b - 0.5)
            normals.append(normal / np.linalg.norm(normal, axis=1, keepdims=True))
            ivory = np.array([0.88, 0.84, 0.76]) * (1.0 - 0.02 * (i == 2))
            dark = 0.55 * smoothstep(0.80, 1.0, np.abs(a)) * (0.35 + 0.65 * smoothstep(0.9, 0.3, b))
            dark = dark + 0.25 * smoothstep(6.0, 24.0, np.abs(x)) + 0.10 * b
            tint = ivory * (1.0 - np.clip(dark, 0.0, 0.9))[:, None] ** np.array([0.85, 1.0, 1.1])
            albedo.append(tint)
        start += width
    return np.concatenate(points), np.concatenate(normals), np.concatenate(albedo)


def _gum(upper: bool) -> tuple[Points, Points, Points]:
    offset, b = np.meshgrid(np.linspace(-40.0, 40.0, 70), np.linspace(0.0, 1.0, 8), indexing="ij")
    offset, b = offset.ravel(), b.ravel()
    x, z, angle = _arch(offset, (_ARCH_Z if upper else _ARCH_Z - 2.4) - 0.6)
    scallop = 0.6 * np.cos(2.0 * np.pi * offset / 7.0)
    y = UPPER_EDGE + 8.0 + scallop + 7.0 * b if upper else LOWER_EDGE - 6.8 - scallop - 7.0 * b
    out = np.stack([np.sin(angle), 0.0 * x, np.cos(angle)], axis=1)
    points = np.stack([x, y, z], axis=1) + (1.0 * np.sin(np.pi * b))[:, None] * out
    pink = np.array([0.72, 0.40, 0.39]) * (1.0 - 0.35 * b - 0.35 * smoothstep(5.0, 24.0, np.abs(x)))[:, None]
    return points, out, pink


def _tongue() -> tuple[Points, Points, Points]:
    u, v = np.meshgrid(np.linspace(-1.0, 1.0, 30), np.linspace(0.0, np.pi, 34), indexing="ij")
    u, v = u.ravel(), v.ravel()  # v: from the tip below, over the top, to the back
    radii = np.array([16.0, 7.0, 18.0])
    wide = np.sqrt(np.clip(1.0 - u * u, 0.0, 1.0))
    turn = -0.5 + v * 0.85
    unit = np.stack([u, wide * np.sin(turn), wide * np.cos(turn)], axis=1)
    points = unit * radii + np.array([0.0, MOUTH_Y - 10.0, 47.5])
    normals = unit / radii
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    groove = bump(points[:, 0], 0.0, 1.6) * np.clip(unit[:, 1], 0.0, 1.0)
    points[:, 1] -= 1.2 * groove
    depth = smoothstep(66.0, 38.0, points[:, 2])
    tint = np.array([0.68, 0.34, 0.33]) * (1.0 - 0.65 * depth - 0.2 * groove)[:, None]
    return points, normals, tint


def _cavity() -> tuple[Points, Points, Points]:
    turn, angle = np.meshgrid(
        np.linspace(0.02, 0.5 * np.pi, 22), np.linspace(0.0, 2 * np.pi, 56, endpoint=False), indexing="ij"
    )
    turn, angle = turn.ravel(), angle.ravel()  # turn: from the throat to behind the lips
    wide, q = np.sin(turn), 1.0 - np.cos(turn) ** 0.8
    x, y = 23.0 * wide * np.cos(angle), MOUTH_Y - 2.0 + 17.0 * wide * np.sin(angle)
    points = np.stack([x, y, 30.0 + 36.0 * q - 0.012 * x * x], axis=1)
    inward = np.array([0.0, MOUTH_Y - 4.0, 60.0]) - points
    normals = inward / np.linalg.norm(inward, axis=1, keepdims=True)
    tint = np.array([0.30, 0.085, 0.08]) * (0.25 + 0.75 * smoothstep(36.0, 66.0, points[:, 2]))[:, None]
    return points, normals, tint


class Mouth:
    """Everything behind the lips."""

    def __init__(self) -> None:
        self._fixed = [(_row(True), _TOOTH_SPACING, Part.TEETH, 0.45), (_gum(True), 1.1, Part.MOUTH, 0.35)]
        self._moving = [(_row(False), _TOOTH_SPACING, Part.TEETH, 0.45), (_gum(False), 1.1, Part.MOUTH, 0.35)]
        self._tongue, self._cavity = _tongue(), _cavity()

    def surfels(self, state: FaceState) -> Surfels:
        """Teeth (Part.TEETH), gums, tongue and cavity (Part.MOUTH) in a state."""
        opening = state.jaw * (1.0 - state.pressed)
        light = _DARKEST + (1.0 - _DARKEST) * float(np.tanh(opening / 0.22))
        light *= 1.0 - 0.4 * state.rounded
        pieces = []
        for group, jaw in ((self._fixed, 0.0), (self._moving, state.jaw)):
            for (points, normals, albedo), spacing, part, shine in group:
                pieces.append(
                    patches.flat(
                        jaw_turned(points, jaw),
                        _turned(normals, jaw),
                        np.full(len(points), 1.1 * spacing),
                        albedo * light,
                        np.full(len(points), shine * light),
                        part,
                    )
                )
        pieces.append(self._tongue_surfels(state, light))
        points, normals, albedo = self._cavity
        low = smoothstep(MOUTH_Y + 6.0, MOUTH_Y - 10.0, points[:, 1])[:, None]
        placed = points + low * (jaw_turned(points, state.jaw) - points)
        size = np.full(len(points), 2.6)
        pieces.append(patches.flat(placed, normals, size, albedo * light, np.zeros(len(points)), Part.MOUTH))
        return join(pieces)

    def _tongue_surfels(self, state: FaceState, light: float) -> Surfels:
        points, normals, albedo = self._tongue
        placed = jaw_turned(points, 0.9 * state.jaw)
        tip = smoothstep(48.0, 65.0, points[:, 2])
        body = smoothstep(34.0, 60.0, points[:, 2])
        target = UPPER_EDGE + 1.0  # the tip goes to behind the upper teeth's edges
        rise = state.tongue * np.maximum(target - (placed[:, 1] + 5.0 * (1.0 - tip)), 0.0) * (0.25 * body + 0.75 * tip)
        placed[:, 1] += rise
        turned = _turned(normals, 0.9 * state.jaw)
        shine = np.full(len(points), 0.45 * light)
        return patches.flat(placed, turned, np.full(len(points), 1.5), albedo * light, shine, Part.MOUTH)


def _turned(normals: Points, jaw: float) -> Points:
    if jaw == 0.0:
        return normals
    c, s = np.cos(JAW_ANGLE * jaw), np.sin(JAW_ANGLE * jaw)
    _, y, z = normals.T
    return np.stack([normals[:, 0], c * y - s * z, s * y + c * z], axis=1)
