"""Eyebrows: short hairs on the skin above the eyes, moving with it.

It must not know the rest of the face but the skin's shape. Lengths in millimetres.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.sample.body import patches
from degstalk_ns.sample.body.design import Design, Points, smoothstep
from degstalk_ns.sample.body.mimic import Sheet
from degstalk_ns.sample.body.skull import Skull
from degstalk_ns.sample.body.surfels import Floats, Surfels

_INNER, _OUTER = 11.0, 49.0  # mm from the middle of the face
_HAIRS = 330
_MARKS = ((56.0, 17.8, 58.8), (50.4, 22.2, 66.3), (40.9, 24.6, 73.2), (28.4, 24.3, 79.0), (14.0, 22.8, 82.0))
"""Upper edge of a brow from its outer end: points next to the skin, mm. Where MediaPipe sees them."""


def middle(x: Points, design: Design) -> Points:
    """[...] y of the brow's middle at ``x`` > 0, mm."""
    t = (x - _INNER) / (_OUTER - _INNER)
    return 18.6 + design.brow_height + 9.5 * t - 8.8 * np.clip(t, 0.0, None) ** 2.6


def thickness(x: Points) -> Points:
    """[...] half the brow's height at ``x`` > 0, mm."""
    t = np.clip((x - _INNER) / (_OUTER - _INNER), 0.0, 1.0)
    return (2.5 - 1.8 * t**1.6) * smoothstep(-0.10, 0.14, t)


def brow_shadow(points: Points, design: Design) -> Points:
    """[N] how dark the skin at ``points`` [N, 3] is under the brows, 0 .. 1."""
    x = np.abs(points[:, 0])
    off = np.abs(points[:, 1] - middle(x, design)) / np.maximum(thickness(x), 0.3)
    along = smoothstep(_INNER - 1.0, _INNER + 9.0, x) * smoothstep(_OUTER, _OUTER - 4.0, x)
    return smoothstep(1.25, 0.25, off) * along * smoothstep(30.0, 45.0, points[:, 2])


class Brows:
    """Both brows."""

    def __init__(self, skull: Skull, design: Design) -> None:
        random = np.random.default_rng([design.seed, 7])
        t = random.uniform(0.0, 1.0, _HAIRS) ** 0.9
        x = _INNER + (_OUTER - _INNER) * t
        off = np.clip(random.normal(0.0, 0.5, _HAIRS), -1.0, 1.0)
        slope = (middle(x + 0.5, design) - middle(x - 0.5, design)) / 1.0
        y = middle(x, design) + off * thickness(x)
        upward = 1.25 * np.exp(-t / 0.16) - 0.35 * off * smoothstep(0.1, 0.5, t) + random.normal(0.0, 0.10, _HAIRS)
        place = np.stack([x, y, skull.front(x, y)], axis=1)
        normals = skull.normals(place)
        length = random.uniform(3.2, 4.8, _HAIRS) * (1.0 - 0.25 * t)
        points, ways, ups, sizes, tints = [], [], [], [], []
        for i, bend in enumerate((0.15, -0.25)):
            way = np.stack([np.ones(_HAIRS), slope + upward + bend * (0.5 + upward), np.zeros(_HAIRS)], axis=1)
            way -= (way * normals).sum(axis=1, keepdims=True) * normals
            way /= np.linalg.norm(way, axis=1, keepdims=True)
            centre = place + 0.25 * length[:, None] * way
            place = place + 0.5 * length[:, None] * way
            points.append(skull.project(centre, steps=2) + 0.25 * normals)
            ways.append(way)
            ups.append(normals)
            sizes.append(0.24 * length)
            lightness = random.uniform(0.85, 1.25, (_HAIRS, 1)) * (1.0 + 0.1 * i)
            tints.append(np.array(design.brow)[None, :] * lightness)
        flip = np.array([-1.0, 1.0, 1.0])
        one, way, normal = np.concatenate(points), np.concatenate(ways), np.concatenate(ups)
        self._sheet = Sheet(np.concatenate([one, one * flip]), np.concatenate([normal, normal * flip]))
        self._ways = np.concatenate([way, way * flip])
        self._sizes = np.tile(np.concatenate(sizes), 2)
        self._tints = np.tile(np.concatenate(tints), (2, 1))
        marks = np.array(_MARKS) + np.array([0.0, design.brow_height, 0.0])
        both = skull.project(np.concatenate([marks * flip, marks[::-1]]), steps=8)
        self._marks = Sheet(both, skull.normals(both))

    def surfels(self, weight: Floats) -> Surfels:
        """All hairs at the weights of the mimic fields."""
        posed = self._sheet.posed(weight)
        return patches.strands(posed.points, self._ways, posed.normals, self._sizes, 0.17, self._tints, 0.75)

    def landmarks(self, weight: Floats) -> Floats:
        """[10, 3] both brows in iBUG order (17-26), mm."""
        return self._marks.posed(weight).points
