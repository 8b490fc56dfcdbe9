"""The lips: two strips from the border of the skin over the fullest point to the inside of the mouth.

It must not know what is behind them. Lengths in millimetres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator, RectBivariateSpline

from degstalk_ns.sample.body import patches
from degstalk_ns.sample.body.design import MOUTH_HALF_WIDTH_MM, Design, Points, bump, smoothstep
from degstalk_ns.sample.body.mimic import Sheet, mouth_line
from degstalk_ns.sample.body.skin import colour, irregularity
from degstalk_ns.sample.body.skull import Skull
from degstalk_ns.sample.body.surfels import Floats, Part, Surfels

_COLUMNS, _ROWS = 112, 26
_CONTACT = 0.53
"""Where along a strip, 0 (border) .. 1 (inside), the lips touch."""
_UPPER = (
    (1, 0),
    (0.75, 0.42),
    (0.5, 0.80),
    (0.25, 1.0),
    (0.06, 0.92),
    (-0.06, 0.45),
    (0.0, -0.5),
    (0.35, -1.5),
    (0.8, -2.2),
)
_LOWER = (
    (1, 0),
    (0.82, 0.30),
    (0.58, 0.85),
    (0.32, 1.05),
    (0.10, 0.92),
    (0.0, 0.40),
    (0.0, -0.5),
    (0.30, -1.5),
    (0.8, -2.2),
)
"""Profiles: height over the line as part of the lip's, depth in units of its fullness."""


def height(s: Points, side: int, design: Design) -> Points:
    """[...] how far a lip's border is from the mouth's line, mm, over s = -1 .. 1 from corner to corner.

    Args:
        side: 1 for the upper lip, -1 for the lower.
    """
    if side > 0:
        bow = 0.9 * bump(np.abs(s), 0.23, 0.12) - 1.0 * bump(s, 0.0, 0.10)
        return design.lip_fullness * (6.6 * np.clip(1.0 - np.abs(s) ** 1.7, 0.0, 1.0) + bow)
    return design.lip_fullness * 8.8 * np.clip(1.0 - np.abs(s) ** 2.4, 0.0, 1.0)


class Lips:
    """Both lips as sheets that follow the mimic fields."""

    def __init__(self, skull: Skull, design: Design) -> None:
        self._design = design
        x, y = np.arange(-27.0, 27.1, 1.0), np.arange(-74.0, -43.9, 1.0)
        front = skull.front(*np.meshgrid(x, y, indexing="ij"))
        self._base = RectBivariateSpline(x, y, front, s=0.5)
        points, normals, sides, albedo, gloss, size = [], [], [], [], [], []
        for side in (1, -1):
            p, n, row, s = self._strip(side)
            points.append(p)
            normals.append(n)
            sides.append(np.full(len(p), side, dtype=np.int8))
            albedo.append(self._colours(p, row, s, side))
            gloss.append(0.12 + 0.40 * smoothstep(0.02, 0.15, row) * (1.0 - 0.5 * smoothstep(0.5, 0.6, row)))
            size.append(np.full(len(p), 0.66))
        self.sheet = Sheet(np.concatenate(points), np.concatenate(normals), np.concatenate(sides))
        self._albedo, self._gloss = np.concatenate(albedo), np.concatenate(gloss)
        self._size = np.concatenate(size).astype(np.float32)
        at = np.array([-1.0, -0.56, -0.27, 0.0, 0.27, 0.56, 1.0, 0.75, 0.28, 0.0, -0.28, -0.75])
        bank = np.array([1] * 7 + [-1] * 5, dtype=np.int8)
        outer = np.stack([self._point(np.array([s]), np.array([0.0]), b)[0] for s, b in zip(at, bank, strict=True)])
        at_inner = np.array([-0.93, -0.45, 0.0, 0.45, 0.93, 0.45, 0.0, -0.45])
        bank_inner = np.array([1, 1, 1, 1, 1, -1, -1, -1], dtype=np.int8)
        inner = np.stack(
            [self._point(np.array([s]), np.array([_CONTACT]), b)[0] for s, b in zip(at_inner, bank_inner, strict=True)]
        )
        marks = np.concatenate([outer, inner])
        self._marks = Sheet(marks, np.tile([0.0, 0.0, 1.0], (20, 1)), np.concatenate([bank, bank_inner]))

    def covers(self, points: Points) -> NDArray[np.bool_]:
        """[N] which of ``points`` of the skin lie where the lips are."""
        s = points[:, 0] / MOUTH_HALF_WIDTH_MM
        above = points[:, 1] - mouth_line(points[:, 0])
        reach = [np.maximum(height(s, side, self._design) - 0.3, 0.7) for side in (1, -1)]
        return (above < reach[0]) & (above > -reach[1]) & (np.abs(s) < 1.01) & (points[:, 2] > 40.0)

    def _point(self, s: Points, t: Points, side: int) -> Points:
        """[N, 3] points of a lip at s, -1 .. 1, and t, 0 (border) .. 1 (inside)."""
        profile = np.array(_UPPER if side > 0 else _LOWER)
        knots = np.linspace(0.0, 1.0, len(profile))
        up, out = PchipInterpolator(knots, profile[:, 0])(t), PchipInterpolator(knots, profile[:, 1])(t)
        tall = height(s, side, self._design)
        inside = smoothstep(_CONTACT, 1.0, t)
        tall = tall + inside * np.maximum(4.0 * (1.0 - s**4) - tall, 0.0)
        x = MOUTH_HALF_WIDTH_MM * s
        y = mouth_line(x) + side * up * tall
        full = (3.1 if side > 0 else 3.6) * self._design.lip_fullness
        narrow = np.clip(1.0 - np.abs(s) ** 2.6, 0.0, 1.0)
        if side > 0:
            narrow = narrow * (1.0 + 0.10 * bump(s, 0.0, 0.14))
        else:
            narrow = narrow * (1.0 + 0.06 * bump(np.abs(s), 0.28, 0.18))
        border = mouth_line(x) + side * height(s, side, self._design)
        base = self._base.ev(x, border) * (1.0 - t) + self._base.ev(x, mouth_line(x)) * t
        z = base + np.where(out > 0, full * narrow * out, 3.4 * out)
        return np.stack([x, y, z], axis=1)

    def _strip(self, side: int) -> tuple[Points, Points, Points, Points]:
        """Points, normals, t and s of one lip's surfels."""
        even = np.linspace(-0.9995, 0.9995, _COLUMNS)
        s = 0.5 * (even + np.sin(0.5 * np.pi * even))  # closer together towards the corners, where lips stretch most
        t = np.linspace(0.0, 1.0, _ROWS)
        grid_s, grid_t = np.meshgrid(s, t, indexing="ij")
        points = self._point(grid_s.ravel(), grid_t.ravel(), side).reshape(_COLUMNS, _ROWS, 3)
        across, down = np.gradient(points, axis=0), np.gradient(points, axis=1)
        normals = np.cross(down, across) * side
        normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9)
        return points.reshape(-1, 3), normals.reshape(-1, 3), grid_t.ravel(), grid_s.ravel()

    def _colours(self, points: Points, row: Points, s: Points, side: int) -> Points:
        skin = colour(points, np.zeros(len(points)), self._design)
        red = np.array(self._design.lips)[None, :]
        wrinkles = irregularity(points * np.array([1.0, 0.12, 0.12]), 1.9, self._design.seed + 5)
        red = red * (1.0 + 0.016 * wrinkles * (1.0 - smoothstep(0.45, 0.55, row)))[:, None]
        red = red * (1.0 - (0.10 if side > 0 else 0.0))
        dark = 0.62 * bump(row, _CONTACT + 0.02, 0.055) + 0.45 * smoothstep(0.5, 0.9, row)
        dark = dark + 0.25 * smoothstep(0.80, 1.0, np.abs(s))
        red = red * (1.0 - np.clip(dark, 0.0, 0.85)[:, None] * np.array([0.85, 1.0, 1.0]))
        vermilion = smoothstep(0.015, 0.10, row) * smoothstep(1.0, 0.985, np.abs(s))
        return np.clip(skin + vermilion[:, None] * (red - skin), 0.01, 0.98)

    def surfels(self, weight: Floats) -> Surfels:
        """Both lips at the weights of the mimic fields."""
        posed = self.sheet.posed(weight)
        return patches.flat(
            posed.points, posed.normals, self._size * posed.stretch, self._albedo, self._gloss, Part.HEAD
        )

    def landmarks(self, weight: Floats) -> Floats:
        """[20, 3] outer and inner lips in iBUG order (48-67), mm."""
        return self._marks.posed(weight).points
