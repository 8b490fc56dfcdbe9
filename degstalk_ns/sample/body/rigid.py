"""Moving surfels as one rigid piece. It must not know what they show."""

from __future__ import annotations

from dataclasses import replace

from degstalk_ns.sample.body.quaternions import quat_product, rotation_quat
from degstalk_ns.sample.body.surfels import Floats, Surfels


def moved(surfels: Surfels, room_from_head: Floats) -> Surfels:
    """Surfels of the head in room coordinates; ``room_from_head`` [4, 4] is rigid."""
    rotation, shift = room_from_head[:3, :3], room_from_head[:3, 3]
    return replace(
        surfels,
        means=surfels.means @ rotation.T + shift,
        normals=surfels.normals @ rotation.T,
        quats=quat_product(rotation_quat(rotation), surfels.quats),
    )
