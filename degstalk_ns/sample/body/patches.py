"""Surfels from points with normals, and from strands: the orientation and size of small flat Gaussians.

It must not know what they show. Takes millimetres, gives metres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.design import MM
from degstalk_ns.sample.body.quaternions import Reals, along, facing
from degstalk_ns.sample.body.surfels import Part, Surfels

IN_PLANE: float = 0.62
"""Deviation of a surfel in its plane, as part of the spacing: wide enough to close the surface without ripples."""
ACROSS: float = 0.15
"""Deviation across the surface, as part of the spacing."""


def flat(
    points: Reals,
    normals: Reals,
    spacing: Reals,
    albedo: Reals,
    gloss: Reals,
    parts: NDArray[np.uint8] | Part,
) -> Surfels:
    """Surfels on a surface.

    Args:
        points: [N, 3] mm. normals: [N, 3] unit. spacing: [N] distance to the neighbours, mm.
        albedo: [N, 3] and gloss: [N] as in :class:`Surfels`. parts: of each, or of all.
    """
    n = len(points)
    size = np.array([IN_PLANE, IN_PLANE, ACROSS], dtype=np.float32) / np.float32(MM)
    return Surfels(
        means=(points / MM).astype(np.float32),
        quats=facing(normals),
        scales=(np.asarray(spacing)[:, None] * size).astype(np.float32),
        normals=normals.astype(np.float32),
        albedo=albedo.astype(np.float32),
        gloss=gloss.astype(np.float32),
        opacities=np.full(n, 0.98, dtype=np.float32),
        parts=np.full(n, parts, dtype=np.uint8) if isinstance(parts, Part) else parts,
    )


def strands(
    points: Reals,
    directions: Reals,
    normals: Reals,
    length: Reals,
    width: float,
    albedo: Reals,
    opacity: float,
) -> Surfels:
    """Short pieces of hair on the head.

    Args:
        points: [N, 3] centres, mm. directions: [N, 3] unit. normals: [N, 3] unit, of the skin below.
        length: [N] deviation along, mm. width: deviation across, mm. albedo: [N, 3].
    """
    n = len(points)
    scales = np.stack([length, np.full(n, width), np.full(n, width)], axis=1) / MM
    return Surfels(
        means=(points / MM).astype(np.float32),
        quats=along(directions),
        scales=scales.astype(np.float32),
        normals=normals.astype(np.float32),
        albedo=albedo.astype(np.float32),
        gloss=np.full(n, 0.1, dtype=np.float32),
        opacities=np.full(n, opacity, dtype=np.float32),
        parts=np.full(n, Part.HEAD, dtype=np.uint8),
    )
