"""Light on surfels: lamps that stand still in the room, highlights of skin, eyes and hair, and the head's soft shadow.

It must not know cameras beyond where the eye is, nor how surfels are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.kernels.threads import run
from degstalk_ns.sample.body.surfels import Floats, Part, Surfels
from degstalk_ns.sample.drawing import shading_kernels as kernels

Triple = tuple[float, float, float]

_TASKS: Final[int] = 16
"""Shares that the surfels are dealt out in, as in the rasterizer."""


@dataclass(frozen=True)
class Lamp:
    """A far lamp.

    Attributes:
        towards: direction to the lamp, room coordinates, any length.
        colour: linear intensity of red, green, blue.
        wrap: 0 (hard: dark where the surface turns away) .. 1 (soft: reaches around to the back).
        shine: strength of its highlights.
    """

    towards: Triple
    colour: Triple
    wrap: float
    shine: float

    @property
    def direction(self) -> Floats:
        vector = np.asarray(self.towards, np.float32)
        return vector / np.float32(np.linalg.norm(vector))


@dataclass(frozen=True)
class LightConfig:
    """A portrait studio: warm key lamp, cool fill, light from walls and floor. Tuned by eye."""

    key: Lamp = Lamp((-0.5, 0.95, 0.85), (0.98, 0.90, 0.80), wrap=0.3, shine=1.0)
    fill: Lamp = Lamp((0.95, 0.15, 0.6), (0.19, 0.22, 0.27), wrap=0.5, shine=0.35)
    sky: Triple = (0.30, 0.31, 0.34)
    """Ambient light from above."""
    ground: Triple = (0.14, 0.12, 0.11)
    """Ambient light from below."""
    rim: float = 0.16
    """Light from behind on surfaces seen edge-on, from above."""
    highlight: float = 0.5
    """Strength of the highlight where gloss is 1 and the sharpest."""
    hair_shift: float = 0.08
    """Tilt of the hair's scales, which moves its highlight towards the roots (Kajiya and Kay 1989, Marschner 2003)."""
    hair_highlight: float = 0.32
    shadow: float = 0.85
    """Part of the key lamp's light that the head takes from neck, clothes and hair right behind it."""
    contact: float = 0.75
    """Part of the ambient light that the head takes from what is close to it."""
    head_centre: Triple = (0.0, -0.008, -0.008)
    """The head as an ellipsoid that casts shadows: centre, head coordinates, metres."""
    head_radii: Triple = (0.069, 0.104, 0.088)
    penumbra: float = 0.4
    """Width of the shadow's soft edge, in radii of the ellipsoid."""


def shade_surfels(surfels: Surfels, room_from_head: Floats, eye: Floats, config: LightConfig | None = None) -> Floats:
    """Colours of surfels in room coordinates.

    Args:
        surfels: in room coordinates.
        room_from_head: [4, 4] where the head is; it casts the shadow.
        eye: [3] the camera's place, room coordinates.

    Returns:
        [N, 3] float32 in 0..1, gamma-encoded (gamma 2, which is a root).
    """
    config = config or LightConfig()
    lamps = np.zeros((2, kernels.LAMP), np.float32)
    for row, lamp in zip(lamps, (config.key, config.fill), strict=True):
        row[:] = (*lamp.direction, *lamp.colour, lamp.wrap, lamp.shine)
    settings = np.zeros(kernels.SETTINGS, np.float32)
    settings[kernels.SKY : kernels.SKY + 3] = config.sky
    settings[kernels.GROUND : kernels.GROUND + 3] = config.ground
    for place, value in (
        (kernels.RIM, config.rim),
        (kernels.HIGHLIGHT, config.highlight),
        (kernels.HAIR_SHIFT, config.hair_shift),
        (kernels.HAIR_HIGHLIGHT, config.hair_highlight),
        (kernels.SHADOW, config.shadow),
        (kernels.PENUMBRA, config.penumbra),
        (kernels.CONTACT, config.contact),
    ):
        settings[place] = value
    colours = np.empty((len(surfels), 3), np.float32)
    run(
        kernels.shade,
        _TASKS,
        *(_packed(array) for array in (surfels.means, surfels.normals, surfels.quats, surfels.albedo, surfels.gloss)),
        _shaded(surfels, room_from_head),
        surfels.parts == Part.HAIR,
        _packed(eye),
        lamps,
        settings,
        in_head(room_from_head, config.head_centre, config.head_radii),
        colours,
    )
    return colours


_CORE_CENTRE: Final[Triple] = (0.0, 0.0, -0.015)
_CORE_RADII: Final[Triple] = (0.058, 0.080, 0.062)
"""An ellipsoid well within every sample head, head coordinates, metres: nothing is seen through it."""
_TURNED_AWAY: Final = -0.3
"""Cosine of normal and view below which a piece of closed surface cannot be seen; some is left for uneven normals."""


def visible_surfels(
    surfels: Surfels, room_from_head: Floats, eye: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What the eye can see; the far side would cost as much to draw as the near one.

    Args:
        surfels, room_from_head, eye: as for :func:`shade_surfels`.

    Returns:
        visible: [N], False for closed surfaces that are turned away.
        covered: [N], True inside the head and right behind it.
    """
    visible, covered = np.empty(len(surfels), np.bool_), np.empty(len(surfels), np.bool_)
    parts = list(Part)
    run(
        kernels.seen,
        _TASKS,
        _packed(surfels.means),
        _packed(surfels.normals),
        surfels.parts,
        np.isin(parts, (Part.HEAD, Part.NECK, Part.TORSO)),
        np.isin(parts, (Part.HEAD, Part.HAIR, Part.NECK)),
        _packed(eye),
        in_head(room_from_head, _CORE_CENTRE, _CORE_RADII),
        np.float32(_TURNED_AWAY),
        visible,
        covered,
    )
    return visible, covered


_UNDER_Y: Final = (-0.086, -0.096)
_UNDER_Z: Final = (0.055, 0.035)
"""Where the skin of the face turns into that of the neck, head coordinates, metres: from none of the head's shadow to
all of it, so that the neck is not darker than the skin that it grows out of."""


def _shaded(surfels: Surfels, room_from_head: Floats) -> Floats:
    """How much of the head's shadow falls on each surfel, [N] in 0..1: the face itself gets none but under the jaw."""
    shaded = np.isin(surfels.parts, (Part.NECK, Part.TORSO, Part.HAIR)).astype(np.float32)
    face = np.flatnonzero(surfels.parts == Part.HEAD)
    local = (surfels.means[face] - room_from_head[:3, 3]) @ room_from_head[:3, 1:3]
    low = np.clip((local[:, 0] - _UNDER_Y[0]) / (_UNDER_Y[1] - _UNDER_Y[0]), 0, 1)
    back = np.clip((local[:, 1] - _UNDER_Z[0]) / (_UNDER_Z[1] - _UNDER_Z[0]), 0, 1)
    shaded[face] = low * back
    return shaded


def in_head(room_from_head: Floats, centre: Triple, radii: Triple) -> Floats:
    """An ellipsoid of the head as the kernels take it, [4, 3]: axes over their lengths, centre; room coordinates."""
    rotation = room_from_head[:3, :3]
    axes = rotation.T / np.asarray(radii)[:, None]
    return np.concatenate([axes, (rotation @ np.asarray(centre) + room_from_head[:3, 3])[None]]).astype(np.float32)


def _packed(array: Floats) -> Floats:
    return np.ascontiguousarray(array, np.float32)
