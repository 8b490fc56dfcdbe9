"""How skin and lips move: fields of displacement over the face, and sheets of points that follow them.

A face state gives one weight per field; a point moves by the weighted sum. The fields are torn along the slit of the
mouth and smooth elsewhere. It must not know colours, nor what the sheets show. Lengths in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.design import MOUTH_HALF_WIDTH_MM, MOUTH_Y, Points, bump, smoothstep
from degstalk_ns.sample.body.surfels import FaceState, Floats

HINGE: tuple[float, float] = (-14.0, -4.0)
"""y and z of the axis about which the jaw turns: before the ears, mm."""
JAW_ANGLE: float = 0.27
"""Turn of the jaw at ``FaceState.jaw`` = 1, radians: about 22 mm between the lips."""
PRESSED_LIPS_FOLLOW: float = 0.25
"""How far pressed lips go down with the jaw, as part of its way."""
_STILL = 0.04  # mm: what no field moves further is taken to be at rest
_STEP = 0.25  # mm, for derivatives along the surface


def mouth_line(x: Points) -> Points:
    """[...] y of the closed mouth's line at x, mm."""
    s = np.clip(x / MOUTH_HALF_WIDTH_MM, -1.0, 1.0)
    return MOUTH_Y - 0.9 * bump(s, 0.0, 0.2) + 0.5 * bump(np.abs(s), 0.5, 0.2) + 0.9 * s * s


def jaw_turned(points: Points, jaw: float) -> Points:
    """[..., 3] ``points`` fixed to the jaw, at an opening of 0..1."""
    y, z = points[..., 1] - HINGE[0], points[..., 2] - HINGE[1]
    c, s = np.cos(JAW_ANGLE * jaw), np.sin(JAW_ANGLE * jaw)
    return np.stack([points[..., 0], HINGE[0] + c * y - s * z, HINGE[1] + s * y + c * z], axis=-1)


def weights(state: FaceState) -> Floats:
    """[K] weight of every field of :func:`fields` for a state."""
    angle = JAW_ANGLE * state.jaw
    turn, bend = np.sin(angle), 1.0 - np.cos(angle)
    apart, pressed = 1.0 - state.pressed, state.pressed
    return np.array(
        [
            *(turn * apart, bend * apart, turn * pressed, bend * pressed),
            *(state.jaw * apart, pressed, state.rounded, state.spread, state.smile, state.brows),
        ],
        dtype=np.float32,
    )


def fields(points: Points, side: NDArray[np.int8]) -> Points:
    """Displacements of ``points`` [N, 3] at weight 1.

    Args:
        side: [N] 1 for the upper lip, -1 for the lower, 0 elsewhere: which bank of the mouth's slit a point belongs to.

    Returns:
        [K, N, 3] mm.
    """
    x, y, z = points.T
    height = y - mouth_line(x)
    height = np.where(side == 0, height, side * np.maximum(side * height, 1e-3))
    # Elliptic coordinates about the slit: its banks are mu = 0, nu in (0, pi) above and (-pi, 0) below.
    elliptic = np.arccosh((x + 1j * height) / MOUTH_HALF_WIDTH_MM)
    mu, up = elliptic.real, np.sin(elliptic.imag)
    far = np.exp(-((mu / 0.75) ** 2))
    near = np.exp(-((mu / 0.45) ** 2))

    below = smoothstep(-16.0, -54.0, y) * smoothstep(-12.0, 36.0, z) * (1.0 - smoothstep(-88, -106, y) * (z < 40))
    below = below * (1.0 - 0.45 * smoothstep(28.0, 58.0, np.abs(x)))
    torn = np.tanh(mu / 0.4)
    open_part = 0.5 * (1.0 - up) * below
    shut_part = 0.5 * (1.0 - up * torn - (1.0 - 2.0 * PRESSED_LIPS_FOLLOW) * (1.0 - torn)) * below
    turn = np.stack([0.0 * x, -(z - HINGE[1]), y - HINGE[0]], axis=1)
    bend = np.stack([0.0 * x, -(y - HINGE[0]), -(z - HINGE[1])], axis=1)

    def vector(dx: Points | float, dy: Points | float, dz: Points | float) -> Points:
        return np.stack(np.broadcast_arrays(dx + 0.0 * x, dy, dz), axis=1)

    upper = np.clip(up, 0.0, 1.0)
    beside = np.maximum(np.abs(x) - MOUTH_HALF_WIDTH_MM, 0.0)
    corner = np.minimum(np.abs(x) / MOUTH_HALF_WIDTH_MM, 1.0) ** 1.7 * bump(beside, 0.0, 10.0) * bump(height, 0.0, 11.0)
    cheek = bump(np.abs(x), 36.0, 12.0) * bump(y, -28.0, 11.0) * smoothstep(-6.0, -16.0, y)
    sign = np.tanh(x / 8.0)
    brow = bump(np.abs(x), 27.0, 20.0) * bump(y, 24.0, 13.0) * smoothstep(12.0, 20.0, y) * smoothstep(20.0, 45.0, z)
    return np.stack(
        [
            *(open_part[:, None] * turn, open_part[:, None] * bend),
            *(shut_part[:, None] * turn, shut_part[:, None] * bend),
            vector(0.0, 2.6 * upper * near, 0.6 * upper * near),
            vector(0.0, -0.32 * height * near, -1.6 * near),
            vector(-0.44 * x * far, 0.18 * height * near, 6.0 * near - 1.5 * near * (x / MOUTH_HALF_WIDTH_MM) ** 2),
            vector(5.5 * np.tanh(x / 14.0) * far, -0.12 * height * near, -3.0 * near * (x / 20.0) ** 2),
            vector(4.0 * sign * corner + sign * cheek, 4.6 * corner + 2.5 * cheek, -2.5 * corner + 2.6 * cheek),
            vector(0.0, 4.5 * brow, 0.3 * brow),
        ]
    )


@dataclass(frozen=True)
class Posed:
    """A sheet of N surfels in a state: [N, 3] points, mm, [N, 3] unit normals, [N] stretch of the surface (>= 1)."""

    points: Floats
    normals: Floats
    stretch: Floats


class Sheet:
    """Points with normals on skin or lips, following the fields."""

    def __init__(self, points: Points, normals: Points, side: NDArray[np.int8] | None = None) -> None:
        """
        Args:
            points: [N, 3] at rest, mm. normals: [N, 3] unit. side: [N] as in :func:`fields`; all 0 by default.
        """
        bank = np.zeros(len(points), dtype=np.int8) if side is None else side
        helper = np.where(np.abs(normals[:, :1]) < 0.8, np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
        first = np.cross(helper, normals)
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second = np.cross(normals, first)
        here = fields(points, bank)
        along = [(fields(points + _STEP * t, bank) - here) / _STEP for t in (first, second)]
        moving = np.abs(here).max(axis=(0, 2)) > _STILL
        self._moving = np.flatnonzero(moving)
        self._points, self._normals = points.astype(np.float32), normals.astype(np.float32)
        rest = np.stack([points, first, second])[:, moving]
        change = np.stack([here, *along], axis=1)[:, :, moving]
        self._rest = np.ascontiguousarray(rest, dtype=np.float32)  # [3, M, 3]: place and both tangents
        self._change = np.ascontiguousarray(change, dtype=np.float32).reshape(len(change), -1)

    def posed(self, weight: Floats) -> Posed:
        """The sheet at the weights of :func:`weights`."""
        used = np.flatnonzero(weight)
        moved = self._rest.copy().reshape(-1)
        for k in used:  # summed in a fixed order, so that equal states give equal bits
            moved += weight[k] * self._change[k]
        place, first, second = moved.reshape(self._rest.shape)
        normal = _cross(first, second)
        area = np.sqrt((normal * normal).sum(axis=1))
        points, normals = self._points.copy(), self._normals.copy()
        stretch = np.ones(len(points), dtype=np.float32)
        points[self._moving] = place
        normals[self._moving] = normal / np.maximum(area, 1e-6)[:, None]
        longest = np.sqrt(np.maximum((first * first).sum(axis=1), (second * second).sum(axis=1)))
        stretch[self._moving] = np.clip(longest, 1.0, 1.8)
        return Posed(points, normals, stretch)


def _cross(a: Floats, b: Floats) -> Floats:
    """Cross product of rows; several times faster than numpy's."""
    out = np.empty_like(a)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[:, i] = a[:, j] * b[:, k] - a[:, k] * b[:, j]
    return out
