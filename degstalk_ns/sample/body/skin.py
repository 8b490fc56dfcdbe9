"""Colour of skin: where a face is redder, darker or freckled, and its soft irregularity.

It must not know movement nor what is drawn with it. Lengths in millimetres.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.sample.body.design import EYE_CENTRE, MOUTH_HALF_WIDTH_MM, MOUTH_Y, Design, Points, bump, smoothstep
from degstalk_ns.sample.body.skull import NOSTRIL, NOSTRIL_RADII

_WAVES = 40
"""Random waves whose sum is the irregularity of the skin."""


def irregularity(points: Points, wavelength: float, seed: int) -> Points:
    """[N] smooth random field of about unit deviation at ``points`` [N, 3], features about ``wavelength`` mm apart."""
    random = np.random.default_rng([seed, round(wavelength * 100)])
    direction = random.normal(size=(_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    frequency = direction * (2.0 * np.pi / wavelength) * random.uniform(0.6, 1.4, (_WAVES, 1))
    phase = random.uniform(0.0, 2.0 * np.pi, _WAVES)
    return np.sin(points @ frequency.T + phase).sum(axis=1) * np.sqrt(2.0 / _WAVES)


def colour(points: Points, occlusion: Points, design: Design) -> Points:
    """[N, 3] albedo of skin at ``points`` [N, 3] (rest), gamma-encoded; ``occlusion`` [N] 0 (open) .. 1 (hidden)."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = smoothstep(10.0, 45.0, z)
    cheeks = bump(x, 37.0, 13.0) * bump(y, -24.0, 13.0) * front
    nose = bump(x, 0.0, 11.0) * bump(y, -29.0, 9.0) * smoothstep(70.0, 84.0, z)
    ears = smoothstep(68.0, 74.0, x)
    chin = bump(x, 0.0, 14.0) * bump(y, -86.0, 8.0) * front
    red = 0.75 * cheeks + 0.65 * nose + 0.6 * ears + 0.3 * chin + 0.03 * irregularity(points, 22.0, design.seed)
    eyes = bump(x, EYE_CENTRE[0], 14.0) * bump(y, EYE_CENTRE[1] - 3.0, 8.5) * smoothstep(45.0, 60.0, z)
    corners = bump(x, MOUTH_HALF_WIDTH_MM + 1.0, 2.6) * bump(y, MOUTH_Y - 0.3, 2.2) * front
    fold = _fold(x, y) * front
    dark = (0.50 - 0.25 * ears) * occlusion + 0.07 * eyes + 0.18 * corners + 0.06 * fold
    dark += 0.10 * smoothstep(-84.0, -102.0, y)
    freckles = np.clip(irregularity(points, 4.2, design.seed) - 1.9, 0.0, 0.8) * (0.12 * cheeks + 0.10 * nose)
    pores = 0.007 * irregularity(points, 2.2, design.seed + 1) + 0.006 * irregularity(points, 8.0, design.seed)
    off = np.sqrt(sum(((c - m) / (1.12 * r)) ** 2 for c, m, r in zip((x, y, z), NOSTRIL, NOSTRIL_RADII, strict=True)))
    dark += 0.75 * smoothstep(1.05, 0.85, off)
    skin = np.array(design.skin)[None, :]
    tinted = skin * (1.0 + red[:, None] * np.array([0.015, -0.105, -0.095]))
    shadow = np.array([0.80, 1.0, 1.02])  # light that reaches corners has been through skin: red stays longest
    tinted = tinted * (1.0 - np.clip(dark, 0.0, 0.92)[:, None] * shadow)
    tinted = tinted * (1.0 + pores[:, None]) * (1.0 - freckles[:, None] * np.array([0.5, 0.8, 1.0]))
    return np.clip(tinted, 0.01, 0.98)


def gloss(points: Points) -> Points:
    """[N] gloss of skin at ``points`` [N, 3]: more on nose, forehead and cheekbones."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    shine = bump(x, 0.0, 9.0) * bump(y, -18.0, 16.0) * smoothstep(70.0, 82.0, z)
    shine += 0.6 * bump(x, 14.0, 22.0) * bump(y, 46.0, 14.0) + 0.4 * bump(x, 42.0, 10.0) * bump(y, -13.0, 8.0)
    return np.clip(0.14 + 0.10 * shine, 0.0, 1.0)


def _fold(x: Points, y: Points) -> Points:
    """The fold from the wing of the nose to beside the corner of the mouth."""
    t = np.clip((-36.0 - y) / 20.0, 0.0, 1.0)
    return bump(x, 16.0 + 15.0 * t, 2.2) * smoothstep(-30.0, -38.0, y) * smoothstep(-60.0, -50.0, y)
