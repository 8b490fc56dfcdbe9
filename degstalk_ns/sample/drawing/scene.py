"""Everything that stands before the sample's camera, put together for each frame. It must not know how it is drawn."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.sample.acting.performance import Performance
from degstalk_ns.sample.body.body import Body
from degstalk_ns.sample.body.design import Design
from degstalk_ns.sample.body.face import Face
from degstalk_ns.sample.body.hair import Hair
from degstalk_ns.sample.body.rigid import moved
from degstalk_ns.sample.body.surfels import Floats, Surfels, join
from degstalk_ns.sample.body.sway import simulate_sway
from degstalk_ns.sample.drawing.background import background

SKIN_SPACING: Final = 0.0009
"""Between the skin's surfels, metres, in pictures of :data:`SPACING_SIZE` pixels and more: a pixel there is 0.8 mm."""
SPACING_SIZE: Final = 512
COARSEST: Final = 3.0
"""Small pictures are drawn with a skin up to this much coarser."""


class SampleScene:
    """Head, hair and body of a seed, acting a performance before a background.

    Attributes:
        performance: what is acted.
        background: RGB uint8 [size, size, 3].
    """

    def __init__(self, performance: Performance, seed: int, size: int) -> None:
        self.performance = performance
        self.background: NDArray[np.uint8] = background(seed, size)
        spacing = SKIN_SPACING * min(max(SPACING_SIZE / size, 1.0), COARSEST)
        self._face, self._hair = Face(seed, spacing), Hair(seed)
        self._body = Body(seed, Design.from_seed(seed).skin)
        self._sway = simulate_sway(performance.room_from_head, FRAME_RATE)

    def surfels(self, i: int) -> Surfels:
        """All surfels of frame ``i``, room coordinates."""
        pose = self.performance.room_from_head[i]
        face = moved(self._face.surfels(self.performance.states[i]), pose)
        return join([face, self._hair.surfels(pose, self._sway[i]), self._body.surfels(pose)])

    def landmarks(self, i: int) -> Floats:
        """The 68 landmarks of frame ``i``, [68, 3] in head coordinates."""
        return self._face.landmarks(self.performance.states[i])
