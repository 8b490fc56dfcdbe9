"""The fixed numbers of Gaussian splatting as gsplat 1.4 defines them, shared by every backend written here.

It must not know any backend. They are part of the meaning of a splat, not knobs: a portrait trained with one set of
numbers looks different with another.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Origin of each number: gsplat 1.4.0, cuda/csrc (`utils.cuh`, `fully_fused_projection_fwd.cu`, `isect_tiles.cu`,
    `rasterize_to_pixels_fwd.cu`).
    """

    tile_size: int = 16
    """Pixels. A Gaussian is blended in every tile that the square of its radius touches, and in no other."""
    radius_sigmas: float = 3.0
    """A Gaussian's radius, in standard deviations of its longest axis, rounded up to whole pixels."""
    min_eigen_spread: float = 0.01
    """pixel^4: floor under the root in the larger eigenvalue of the 2D covariance."""
    fov_margin: float = 0.3
    """The Jacobian is evaluated at most this many half fields of view outside the image."""
    max_alpha: float = 0.999
    """Opacity of one Gaussian at one pixel is clamped here; no gradient passes where it is."""
    min_alpha: float = 1.0 / 255.0
    """A Gaussian that is fainter than this at a pixel is skipped there."""
    min_transmittance: float = 1e-4
    """A Gaussian that would bring a pixel's transmittance to this or below is not blended, nor any behind it."""


RULES = Rules()

MIN_DETERMINANT, MAX_DETERMINANT = 1e-37, 1e37
"""pixel^4: a Gaussian whose 2D covariance has a determinant beyond these is culled, for its inverse has no place in
float32 (gsplat's own arithmetic, in float32, ends at about the same sizes)."""

MAX_RADIUS = 2**30
"""Pixels: radii are int32, and a larger one is drawn the same."""

MAX_SH_DEGREE = 3
"""Highest spherical-harmonics degree that the backends here evaluate."""
