"""What makes one sample face differ from another: a few proportions and colours, drawn from a seed.

Also the constants of the face in millimetres, the unit in which it is designed. It must not know how either is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body import surfels

Points = NDArray[np.float64]
Colour = tuple[float, float, float]

MM: float = 1000.0
"""Millimetres in a metre: the design is in millimetres, surfels in metres."""

EYE_CENTRE: tuple[float, float, float] = tuple(MM * v for v in surfels.EYE_CENTRES[1])  # type: ignore[assignment]
"""Centre of the eyeball at positive x, mm; the other one is its mirror image."""
EYE_RADIUS_MM: float = MM * surfels.EYE_RADIUS
MOUTH_Y: float = MM * surfels.MOUTH_CENTRE[1]
MOUTH_HALF_WIDTH_MM: float = MM * surfels.MOUTH_HALF_WIDTH
NECK_END_Y: float = -105.0
"""How far the surface under the chin goes down into the neck, mm."""


@dataclass(frozen=True)
class Design:
    """Proportions (1 = as designed) and colours (gamma-encoded, 0..1) of one face."""

    jaw_width: float = 1.0
    nose_width: float = 1.0
    cheekbones: float = 1.0
    lip_fullness: float = 1.0
    brow_height: float = 0.0
    """Millimetres up."""
    skin: Colour = (0.855, 0.665, 0.565)
    lips: Colour = (0.735, 0.430, 0.405)
    iris: Colour = (0.350, 0.450, 0.490)
    brow: Colour = (0.230, 0.150, 0.110)
    seed: int = 0

    @staticmethod
    def from_seed(seed: int) -> Design:
        """Seed 0 is the design itself; others vary it within what is plausible."""
        if seed == 0:
            return Design()
        random = np.random.default_rng(seed)
        irises = ((0.350, 0.450, 0.490), (0.330, 0.230, 0.150), (0.370, 0.400, 0.290), (0.330, 0.410, 0.500))
        tone = float(random.uniform(-1.0, 0.35))

        def near(colour: Colour, spread: float) -> Colour:
            red, green, blue = (np.clip(np.array(colour) + random.normal(0.0, spread, 3), 0.05, 0.95)).tolist()
            return red, green, blue

        def shaded(colour: Colour, strength: tuple[float, float, float]) -> Colour:
            red, green, blue = (c * (1.0 + tone * s) for c, s in zip(colour, strength, strict=True))
            return red, green, blue

        return Design(
            jaw_width=float(random.uniform(0.96, 1.05)),
            nose_width=float(random.uniform(0.94, 1.10)),
            cheekbones=float(random.uniform(0.92, 1.06)),
            lip_fullness=float(random.uniform(0.88, 1.12)),
            brow_height=float(random.uniform(-1.0, 1.2)),
            skin=shaded(near(Design.skin, 0.008), (0.14, 0.20, 0.24)),
            lips=shaded(near(Design.lips, 0.02), (0.12, 0.16, 0.16)),
            iris=near(irises[int(random.integers(len(irises)))], 0.01),
            brow=shaded(Design.brow, (0.35, 0.35, 0.35)),
            seed=seed,
        )


def smoothstep(low: float, high: float, value: Points) -> Points:
    """0 at ``low`` .. 1 at ``high`` without kinks; ``low`` may be the larger."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(value: Points, centre: Points | float, width: float) -> Points:
    """Gaussian hill of height 1."""
    return np.exp(-0.5 * ((value - centre) / width) ** 2)
