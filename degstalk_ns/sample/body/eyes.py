"""Eyes: balls whose colour turns with the gaze, lids that slide over them, lashes.

Designed for the eye at positive x and mirrored. It must not know the rest of the face but the skin's shape below the
lids. Lengths in millimetres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from degstalk_ns.sample.body import patches
from degstalk_ns.sample.body.design import EYE_CENTRE, EYE_RADIUS_MM, Design, Points, bump, smoothstep
from degstalk_ns.sample.body.skin import colour
from degstalk_ns.sample.body.skull import Skull
from degstalk_ns.sample.body.surfels import FaceState, Part, Surfels, join

HALF_WIDTH: float = 14.3
"""From the middle of an eye to its corners, mm."""
IRIS_RADIUS: float = 5.9
PUPIL_RADIUS: float = 2.1
LID_FOLLOWS_GAZE: float = 0.45
"""Part of the iris' way up and down that the upper lid goes along."""
_TILT = 0.9  # mm that the outer corner lies above the middle, and the inner below
_BALL_STRETCH = 1.36  # the white seen between the lids is wider than the ball: corners lie beside it
_LID_SPACING = 0.55  # mm
_CELL = 0.25  # mm, of the table of the skin below the lids
_COLUMNS, _UPPER_ROWS, _LOWER_ROWS = 68, 26, 11
_BALL_SPACING = 0.42  # mm


def _up(u: Points) -> Points:
    return np.clip(1.0 - u * u, 0.0, 1.0)


class Eyes:
    """Both eyes with lids and lashes."""

    def __init__(self, skull: Skull, design: Design) -> None:
        self._design = design
        cx, cy, _ = EYE_CENTRE
        self._x, self._y = cx - 20.0, cy - 14.0
        self._table = self._skin_table(skull)
        self._u_lid, self._v_upper, self._v_lower = self._lid_grids()
        self._ball = self._ball_points()
        random = np.random.default_rng([design.seed, 11])
        self._iris_waves = random.uniform(0.0, 2.0 * np.pi, 6)
        self._lash_u = np.sort(random.uniform(-0.86, 0.99, 56))
        self._lash_length = random.uniform(0.8, 1.15, 56) * (3.5 + 1.1 * self._lash_u)
        self._lower_u = np.sort(random.uniform(-0.6, 0.95, 26))
        ones = np.ones_like(self._ball[:, 0])
        self._ball_size = (_BALL_SPACING * ones).astype(np.float32)

    # Curves, all in y relative to the head, over u = -1 (inner corner) .. 1 (outer corner)

    @staticmethod
    def _edges(u: Points, state: FaceState) -> tuple[Points, Points]:
        """Edges of the upper and the lower lid."""
        line = EYE_CENTRE[1] + _TILT * u
        upper = line + 4.8 * _up(u) ** 0.85 * (1.0 - 0.10 * u)
        lower = line - 4.9 * _up(u) ** 0.95 * (1.0 + 0.12 * u)
        pitch = float(np.clip(state.gaze[1], -0.6, 0.6))
        upper = upper + LID_FOLLOWS_GAZE * EYE_RADIUS_MM * np.sin(pitch) * _up(u)
        lower = lower + 0.2 * EYE_RADIUS_MM * np.sin(pitch) * _up(u)
        squint = 1.2 * max(state.smile, 0.0) * _up(u)
        shut = lower + 1.3 * _up(u)
        lower = lower + squint + (1.3 * _up(u) - squint) * state.blink
        return upper + (shut - upper) * state.blink, lower

    @staticmethod
    def _outline(u: Points) -> tuple[Points, Points]:
        """Where the lids end and the skin of the face goes on, above and below."""
        line = EYE_CENTRE[1] + _TILT * u
        return line + 10.0 * _up(u) ** 0.6, line - 9.0 * _up(u) ** 0.6

    def covers(self, points: Points) -> NDArray[np.bool_]:
        """[N] which of ``points`` of the skin lie where the lids are."""
        u = (np.abs(points[:, 0]) - EYE_CENTRE[0]) / HALF_WIDTH
        above, below = self._outline(u)
        inside = (np.abs(u) < 1.0) & (points[:, 1] < above - 0.35) & (points[:, 1] > below + 0.35)
        return inside & (points[:, 2] > 45.0)

    def _lid_grids(self) -> tuple[tuple[Points, Points], Points, Points]:
        """u of both lids' points and v, 0 at the edge .. 1 at the outline."""
        columns = np.sin(np.linspace(-np.pi / 2, np.pi / 2, _COLUMNS))
        upper_v, lower_v = np.linspace(0.0, 1.0, _UPPER_ROWS), np.linspace(0.0, 1.0, _LOWER_ROWS)
        a, b = np.meshgrid(columns, upper_v, indexing="ij")
        c, d = np.meshgrid(columns, lower_v, indexing="ij")
        return (a.ravel(), c.ravel()), b.ravel(), d.ravel()

    def _ball_points(self) -> Points:
        """[N, 3] the part of the ball that can be seen, relative to its centre."""
        x, y = np.meshgrid(np.arange(-15.2, 15.3, _BALL_SPACING), np.arange(-8.0, 8.1, _BALL_SPACING), indexing="ij")
        x = x + 0.5 * _BALL_SPACING * (np.arange(x.shape[1]) % 2)
        inside = 1.0 - (x / (_BALL_STRETCH * EYE_RADIUS_MM)) ** 2 - (y / EYE_RADIUS_MM) ** 2
        good = inside > 0.02
        return np.stack([x[good], y[good], EYE_RADIUS_MM * np.sqrt(inside[good])], axis=1)

    def _ball_normals(self) -> Points:
        radii = np.array([_BALL_STRETCH * EYE_RADIUS_MM, EYE_RADIUS_MM, EYE_RADIUS_MM])
        normal = self._ball / radii**2
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    def _iris_centre(self, side: int, gaze: tuple[float, float]) -> Points:
        """Direction of the gaze in the frame of the eye at positive x."""
        yaw, pitch = side * gaze[0], gaze[1]
        return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])

    def _ball_colours(self, side: int, state: FaceState) -> tuple[Points, Points]:
        """Albedo and gloss of the ball's points. ``side``: 1 at positive x, -1 its mirror image."""
        p = self._ball
        gaze = self._iris_centre(side, state.gaze)
        unit = p * np.array([1.05, 1.0, 1.0])
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        right = np.array([gaze[2], 0.0, -gaze[0]]) / np.hypot(gaze[0], gaze[2])
        up = np.cross(gaze, right)
        a, b = EYE_RADIUS_MM * (unit @ right), EYE_RADIUS_MM * (unit @ up)
        r, angle = np.hypot(a, b), np.arctan2(b, side * a)
        waves = self._iris_waves
        streaks = sum(
            np.sin(k * angle + waves[i] + 0.5 * np.sin(2.0 * r + waves[-1 - i])) for i, k in enumerate((13, 23, 31))
        )
        ring = smoothstep(PUPIL_RADIUS, IRIS_RADIUS, r)
        iris = np.array(self._design.iris)[None, :] * (1.18 - 0.30 * ring + 0.10 * streaks)[:, None]
        iris = iris + (bump(r, PUPIL_RADIUS + 0.9, 0.7) * 0.10)[:, None] * np.array([1.1, 0.8, 0.4])
        iris = iris * (1.0 - 0.62 * smoothstep(IRIS_RADIUS - 1.3, IRIS_RADIUS, r))[:, None]
        iris = iris * (1.0 + 0.25 * (-b / IRIS_RADIUS))[:, None]  # light from above gathers in the lower half
        u = p[:, 0] / HALF_WIDTH
        pink = smoothstep(0.45, 1.0, np.abs(u)) * 0.45 + 0.5 * smoothstep(-0.80, -0.95, u)
        white = np.array([0.90, 0.88, 0.87]) * (1.0 - pink[:, None] * np.array([0.06, 0.42, 0.42]))
        out = white + smoothstep(IRIS_RADIUS + 0.35, IRIS_RADIUS - 0.35, r)[:, None] * (iris - white)
        out = out * (1.0 - 0.94 * smoothstep(PUPIL_RADIUS + 0.3, PUPIL_RADIUS - 0.3, r))[:, None]
        upper, lower = self._edges(u, state)
        y = p[:, 1] + EYE_CENTRE[1]
        shade = 0.55 * np.exp(-np.maximum(upper - y, 0.0) / 1.5) + 0.25 * np.exp(-np.maximum(y - lower, 0.0) / 1.2)
        shade = shade + 0.18 * smoothstep(0.5, 1.0, np.abs(u))
        out = out * (1.0 - np.clip(shade, 0.0, 0.8))[:, None] ** np.array([0.9, 1.0, 1.0])
        # The window in the eye: on the side of the key light, which shines from the picture's left.
        spot_x, spot_y = 0.5 * EYE_RADIUS_MM * gaze[0] - 1.8 * side, 0.5 * EYE_RADIUS_MM * gaze[1] + 2.1
        spot = smoothstep(1.25, 0.75, np.hypot(p[:, 0] - spot_x, (p[:, 1] - spot_y) * 0.9))
        out = out + spot[:, None] * (1.0 - out) * 0.95
        wet = np.where(r < IRIS_RADIUS, 0.30, 0.45)
        return np.clip(out, 0.005, 1.0), wet

    def _skin_table(self, skull: Skull) -> Points:
        """[X, Y, 7] z, normal and albedo of the skin over the ball, every ``_CELL`` mm."""
        coarse = 0.5
        x, y = self._x + np.arange(0.0, 40.1, coarse), self._y + np.arange(0.0, 30.1, coarse)
        grid_x, grid_y = (axis.ravel() for axis in np.meshgrid(x, y, indexing="ij"))
        points = np.stack([grid_x, grid_y, skull.front(grid_x, grid_y)], axis=1)
        hidden = skull.occlusion(points, skull.normals(points))
        surface, dark = (RectBivariateSpline(x, y, v.reshape(len(x), -1), s=0.3) for v in (points[:, 2], hidden))
        x, y = self._x + np.arange(0.0, 40.0, _CELL), self._y + np.arange(0.0, 30.0, _CELL)
        z = surface(x, y)
        normal = np.stack([-surface(x, y, dx=1), -surface(x, y, dy=1), np.ones_like(z)], axis=-1)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        points = np.stack([*np.meshgrid(x, y, indexing="ij"), z], axis=-1)
        albedo = colour(points.reshape(-1, 3), dark(x, y).ravel(), self._design).reshape(points.shape)
        return np.concatenate([z[..., None], normal, albedo], axis=-1)

    def _skin(self, x: Points, y: Points) -> Points:
        """[N, 7] the table at x, y, between its cells."""
        i, j = (x - self._x) / _CELL, (y - self._y) / _CELL
        a, b = i.astype(np.intp), j.astype(np.intp)
        s, t = (i - a)[:, None], (j - b)[:, None]
        table = self._table
        near = table[a, b] * (1.0 - t) + table[a, b + 1] * t
        return near * (1.0 - s) + (table[a + 1, b] * (1.0 - t) + table[a + 1, b + 1] * t) * s

    def _lids(self, state: FaceState) -> Surfels:
        """Lids of the eye at positive x."""
        pieces = []
        for upper in (True, False):
            u, v = (self._u_lid[0], self._v_upper) if upper else (self._u_lid[1], self._v_lower)
            edge = self._edges(u, state)[0 if upper else 1]
            open_edge = self._edges(u, FaceState(gaze=state.gaze))[0]
            out = self._outline(u)[0 if upper else 1]
            x, y = EYE_CENTRE[0] + HALF_WIDTH * u, edge + (out - edge) * v
            skin = self._skin(x, y)
            points, albedo = np.stack([x, y, skin[:, 0]], axis=1), skin[:, 4:]
            normal = skin[:, 1:4] / np.linalg.norm(skin[:, 1:4], axis=1, keepdims=True)
            from_edge = np.abs(y - edge)
            if upper:
                fold = open_edge + 3.6 * _up(u) ** 0.7
                crease = bump(y, fold, 0.55) * (1.0 - 0.75 * state.blink) * smoothstep(0.0, 0.25, _up(u))
                points[:, 2] -= 0.8 * crease
                normal[:, 1] += 0.7 * crease * np.clip((y - fold) / 0.5, -1.0, 1.0)
                normal /= np.linalg.norm(normal, axis=1, keepdims=True)
                albedo = albedo * (1.0 - 0.38 * crease)[:, None] ** np.array([0.8, 1.0, 1.0])
                line = np.exp(-((from_edge / 0.65) ** 2)) * smoothstep(-1.0, -0.6, u)
                albedo = albedo * (1.0 - 0.68 * line)[:, None]
            else:
                rim = np.exp(-((from_edge / 0.6) ** 2))
                albedo = albedo * (1.0 - rim[:, None] * np.array([0.08, 0.20, 0.20]))
                albedo = albedo * (1.0 - 0.10 * bump(from_edge, 4.5, 1.4))[:, None]
            gap = np.maximum(_LID_SPACING, 1.15 * np.abs(out - edge) / ((_UPPER_ROWS if upper else _LOWER_ROWS) - 1))
            pieces.append(patches.flat(points, normal, gap, albedo, np.full(len(x), 0.16), Part.HEAD))
        return join([*pieces, self._rims(state)])

    def _rims(self, state: FaceState) -> Surfels:
        """The thickness of the lids, from the skin back to the ball."""
        u = self._u_lid[0].reshape(_COLUMNS, _UPPER_ROWS)[:, 0]
        pieces = []
        for side, edge in zip((-1.0, 1.0), self._edges(u, state), strict=True):
            x = EYE_CENTRE[0] + HALF_WIDTH * u
            front = self._skin(x, edge)[:, 0]
            for depth in (0.35, 0.8, 1.3):
                points = np.stack([x, edge - 0.1 * side * depth, front - depth], axis=1)
                normal = np.broadcast_to(np.array([0.0, 0.8 * side, 0.6]), points.shape)
                tint = np.array([0.34, 0.22, 0.20]) if side < 0 else np.array([0.72, 0.52, 0.47])
                albedo = np.broadcast_to(tint * (1.0 - 0.2 * depth), points.shape)
                size = np.full(len(u), _LID_SPACING)
                pieces.append(patches.flat(points, normal, size, albedo, np.full(len(u), 0.3), Part.HEAD))
        return join(pieces)

    def _lashes(self, state: FaceState) -> Surfels:
        """Lashes of the eye at positive x."""
        pieces = []
        dark = np.array([0.09, 0.06, 0.05])
        for upper in (True, False):
            u = self._lash_u if upper else self._lower_u
            edge = self._edges(u, state)[0 if upper else 1]
            x = EYE_CENTRE[0] + HALF_WIDTH * u
            place = np.stack([x, edge, self._skin(x, edge)[:, 0] + 0.1], axis=1)
            reach = self._lash_length if upper else np.full(len(u), 2.2)
            steps = 4 if upper else 2
            for i in range(steps):
                t = (i + 0.5) / steps
                if upper:
                    lift = (-0.35 + 1.5 * t) * (1.0 - state.blink) + (-1.0 + 0.7 * t) * state.blink
                else:
                    lift = -0.6 - 0.6 * t
                way = np.stack([0.12 + 0.55 * u, np.full(len(u), lift), np.full(len(u), 0.9 - 0.3 * t)], axis=1)
                way /= np.linalg.norm(way, axis=1, keepdims=True)
                centre = place + 0.5 * (reach / steps)[:, None] * way
                place = place + (reach / steps)[:, None] * way
                normal = np.broadcast_to(np.array([0.0, 0.0, 1.0]), centre.shape)
                width = (0.11 if upper else 0.08) * (1.0 - 0.5 * t)
                tint = np.broadcast_to(dark if upper else dark * 2.2, centre.shape)
                piece = patches.strands(
                    centre, way, normal, 0.42 * reach / steps, width, tint, 0.6 - 0.4 * t if upper else 0.18
                )
                pieces.append(piece)
        return join(pieces)

    def surfels(self, state: FaceState) -> Surfels:
        """Both eyes, their lids and lashes in a state."""
        one_side = join([self._lids(state), self._lashes(state)])
        normals = self._ball_normals()
        pieces = [one_side, mirrored(one_side)]
        for side in (1, -1):
            albedo, gloss = self._ball_colours(side, state)
            points = self._ball + np.array(EYE_CENTRE)
            ball = patches.flat(points, normals, self._ball_size, albedo, gloss, Part.HEAD)
            pieces.append(ball if side > 0 else mirrored(ball))
        return join(pieces)

    def landmarks(self, state: FaceState) -> Points:
        """[12, 3] corners and lids of both eyes in iBUG order (36-47), mm."""
        u = np.array([0.95, 0.41, -0.30, -1.0, -0.35, 0.36])
        upper, lower = self._edges(u, state)
        corner = 0.5 * (upper[0] + lower[0])
        x, y = EYE_CENTRE[0] + HALF_WIDTH * u, np.array([corner, *upper[1:4], *lower[4:]])
        points = np.stack([x, y, self._skin(x, y)[:, 0]], axis=1)
        left = points * np.array([-1.0, 1.0, 1.0])
        return np.concatenate([left, points[[3, 2, 1, 0, 5, 4]]])


def mirrored(surfels: Surfels) -> Surfels:
    """The mirror image in x."""
    flip = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
    return Surfels(
        means=surfels.means * flip,
        quats=surfels.quats * np.array([1.0, 1.0, -1.0, -1.0], dtype=np.float32),
        scales=surfels.scales,
        normals=surfels.normals * flip,
        albedo=surfels.albedo,
        gloss=surfels.gloss,
        opacities=surfels.opacities,
        parts=surfels.parts,
    )
