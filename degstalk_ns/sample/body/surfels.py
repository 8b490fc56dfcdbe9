"""What the sample head is made of: small flat Gaussians on surfaces and along strands, with material and region.

The one vocabulary that the face, hair, body and rendering of the sample share. It must not know what any of them looks
like, nor files.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Part(IntEnum):
    """Region that a surfel belongs to; the dataset's masks are made of them."""

    HEAD = 0
    HAIR = 1
    NECK = 2
    TORSO = 3
    MOUTH = 4
    TEETH = 5


@dataclass(frozen=True)
class Surfels:
    """N flat Gaussians.

    Attributes:
        means: [N, 3] centres, metres.
        quats: [N, 4] rotations, wxyz, unit. The first axis of a HAIR surfel runs along its strand.
        scales: [N, 3] standard deviations along the three axes, metres.
        normals: [N, 3] unit, out of the surface (hair: out of the mass of hair); what light falls on.
        albedo: [N, 3] diffuse colour in 0..1, gamma-encoded as in the picture, with baked occlusion.
        gloss: [N] 0 (matt) .. 1 (wet): strength of the highlight.
        opacities: [N] in 0..1.
        parts: [N] uint8, values of :class:`Part`.
    """

    means: Floats
    quats: Floats
    scales: Floats
    normals: Floats
    albedo: Floats
    gloss: Floats
    opacities: Floats
    parts: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.means)


def join(pieces: list[Surfels]) -> Surfels:
    """All surfels of ``pieces`` in one."""
    return Surfels(*(np.concatenate([getattr(piece, f.name) for piece in pieces]) for f in fields(Surfels)))


@dataclass(frozen=True)
class FaceState:
    """How the face is held at one moment; the rest face is all zeros.

    Attributes:
        jaw: opening, 0 (closed) .. 1 (a shout; speech stays below about 0.8).
        rounded: lips drawn together and forward, 0 .. 1 (an "oo" is 1).
        spread: corners drawn outwards, 0 .. 1 (an "ee" is 1).
        pressed: lips held together whatever the jaw does, 0 .. 1 (m, b, p).
        tongue: tip raised to the teeth, 0 .. 1 (l, t, d, n).
        smile: corners down .. up, -1 .. 1.
        brows: lowered .. raised, -1 .. 1.
        blink: 0 (open) .. 1 (closed).
        gaze: yaw and pitch of both eyes, radians; positive looks to the picture's right and up.
    """

    jaw: float = 0.0
    rounded: float = 0.0
    spread: float = 0.0
    pressed: float = 0.0
    tongue: float = 0.0
    smile: float = 0.0
    brows: float = 0.0
    blink: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


# Proportions, metres, in head coordinates: x to the picture's right, y up, z out of the face. At rest head coordinates
# are room coordinates, in which body, camera and lights stand still.
CROWN_Y: float = 0.100
SKULL_HALF_WIDTH: float = 0.073
BACK_Z: float = -0.090
EYE_CENTRES: tuple[tuple[float, float, float], ...] = ((-0.031, 0.004, 0.058), (0.031, 0.004, 0.058))
"""Centres of the eyeballs, the picture's left one first."""
EYE_RADIUS: float = 0.0118
MOUTH_CENTRE: tuple[float, float, float] = (0.0, -0.058, 0.078)
MOUTH_HALF_WIDTH: float = 0.025
HAIRLINE_Y: float = 0.072
"""Height of the hairline in the middle of the forehead."""
NECK_PIVOT: tuple[float, float, float] = (0.0, -0.070, -0.025)
"""The joint about which the head turns and nods."""
