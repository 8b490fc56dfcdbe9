"""The face of the sample head in a state: skin, brows, eyes, lips and mouth as surfels, and its 68 exact landmarks.

Puts the parts together. It must not know light, pose of the head, hair or neck.
"""

from __future__ import annotations

import numpy as np

from degstalk_ns.sample.body import brows, patches, skin
from degstalk_ns.sample.body.brows import Brows
from degstalk_ns.sample.body.design import MM, Design
from degstalk_ns.sample.body.eyes import Eyes
from degstalk_ns.sample.body.lips import Lips
from degstalk_ns.sample.body.mimic import Sheet, weights
from degstalk_ns.sample.body.mouth import Mouth
from degstalk_ns.sample.body.skull import Skull, spread_over_skin
from degstalk_ns.sample.body.surfels import FaceState, Floats, Part, Surfels, join

_JAW: tuple[tuple[float, float, float], ...] = (
    *((71.0, 4.2, 20.4), (69.8, -9.0, 16.9), (67.8, -22.9, 15.9), (59.7, -53.3, 17.0), (53.2, -65.9, 23.6)),
    *((45.7, -75.2, 32.8), (29.0, -88.9, 50.5), (12.5, -97.4, 63.9), (0.0, -98.3, 66.7)),
)
"""The outline from the ear to the chin: points next to the skin, mm. Where MediaPipe sees them from several sides."""
_NOSE: tuple[tuple[float, float, float], ...] = (
    *((0.0, 5.3, 80.3), (0.0, -9.6, 86.7), (0.0, -22.3, 92.5), (0.0, -34.4, 94.5)),
    *((-14.5, -38.0, 78.5), (-7.2, -40.1, 82.4), (0.0, -40.5, 84.0), (7.2, -40.1, 82.4), (14.5, -38.0, 78.5)),
)
"""Bridge to tip, then the wings from left to right: points next to the skin, mm; likewise."""


class Face:
    """One face, built once and posed for every frame."""

    def __init__(self, seed: int = 0, spacing: float = 0.0009) -> None:
        """
        Args:
            seed: of proportions, colours and irregularities; equal seeds give equal bits.
            spacing: of the skin's surfels on the face, metres; finer at eyes, lips and nostrils, coarser under hair.
        """
        design = Design.from_seed(seed)
        skull = Skull(design)
        self._eyes, self._brows = Eyes(skull, design), Brows(skull, design)
        self._lips, self._mouth = Lips(skull, design), Mouth()
        points, size = spread_over_skin(skull, MM * spacing)
        kept = ~(self._eyes.covers(points) | self._lips.covers(points))
        points, size = points[kept], size[kept]
        normals = skull.normals(points)
        hidden = skull.occlusion(points, normals)
        albedo = skin.colour(points, hidden, design)
        under_brows = (0.45 * brows.brow_shadow(points, design))[:, None]
        self._albedo = albedo + under_brows * (np.array(design.brow) * 1.3 - albedo)
        self._gloss = skin.gloss(points) * (1.0 - hidden)
        self._size = size.astype(np.float32)
        self._sheet = Sheet(points, normals)
        jaw = np.array(_JAW)
        outline = np.concatenate([jaw * np.array([-1.0, 1.0, 1.0]), jaw[-2::-1]])
        marks = skull.project(np.concatenate([outline, np.array(_NOSE)]), steps=8)
        self._marks = Sheet(marks, skull.normals(marks))

    def surfels(self, state: FaceState) -> Surfels:
        """The face in ``state``, in head coordinates: parts HEAD, MOUTH and TEETH."""
        weight = weights(state)
        posed = self._sheet.posed(weight)
        skin_surfels = patches.flat(
            posed.points, posed.normals, self._size * posed.stretch, self._albedo, self._gloss, Part.HEAD
        )
        return join(
            [
                skin_surfels,
                self._brows.surfels(weight),
                self._eyes.surfels(state),
                self._lips.surfels(weight),
                self._mouth.surfels(state),
            ]
        )

    def landmarks(self, state: FaceState) -> Floats:
        """[68, 3] exact points of the iBUG convention in ``state``, metres, head coordinates."""
        weight = weights(state)
        marks = self._marks.posed(weight).points
        pieces = [marks[:17], self._brows.landmarks(weight), marks[17:], self._eyes.landmarks(state)]
        return (np.concatenate([*pieces, self._lips.landmarks(weight)]) / MM).astype(np.float32)
