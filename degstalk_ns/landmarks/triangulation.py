"""Where on the head points lie that several frames show.

It must not know what the points are, nor how they were found.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_FloatArray = NDArray[np.float64]

PLACE_PRIOR: Final[float] = 1e-4
"""Weight of the place that a point is given before it is triangulated, relative to a frame that sees it: the squared
sine of an angle, so a head that turns by more than 0.6 degrees overrules it."""


def triangulated(
    points: NDArray[np.floating],
    seen: NDArray[np.bool_],
    c2w: NDArray[np.floating],
    focal: float,
    centre: tuple[float, float],
    before: NDArray[np.floating],
) -> _FloatArray:
    """Linear least squares over the rays on which points are seen.

    Args:
        points: [T, M, 2] x, y in pixels.
        seen: [T, M] whether a frame shows a point.
        c2w: [T, 4, 4] camera to world, OpenGL axes (x right, y up, looking down -z).
        focal: pixels.
        centre: x, y of the optical axis, pixels.
        before: [M, 3] where the points lie as far as is known, world units; a head that hardly turns shows no depth,
            and there they stay.

    Returns:
        [M, 3] world units; NaN for a point that no frame shows.
    """
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    c2w = np.asarray(c2w, np.float64)
    rays = np.stack([(x - centre[0]) / focal, (centre[1] - y) / focal, -np.ones_like(x)], axis=-1)
    rays = np.einsum("tij,tmj->tmi", c2w[:, :3, :3], rays)
    rays *= seen[..., None] / np.linalg.norm(rays, axis=-1, keepdims=True)  # zero where a point is not seen
    count, eyes = seen.sum(axis=0)[:, None], c2w[:, :3, 3]
    # The sum of I - d d^T over the rays d that see a point, and of its product with where they start.
    normal = (1.0 + PLACE_PRIOR) * count[..., None] * np.eye(3) - np.einsum("tmi,tmj->mij", rays, rays, optimize=True)
    towards = seen.T @ eyes - np.einsum("tmi,tm->mi", rays, np.einsum("tmi,ti->tm", rays, eyes))
    towards += PLACE_PRIOR * count * before
    there = count[:, 0] > 0
    places = np.full((len(there), 3), np.nan)
    places[there] = np.linalg.solve(normal[there], towards[there][..., None])[..., 0]
    return places
