"""Long parted hair combed over a head at rest: where every strand runs, from root to tip.

It must not know colours, surfels nor motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from degstalk_ns.sample.body.bust import Doubles, clothed_distance, gradient
from degstalk_ns.sample.body.design import smoothstep
from degstalk_ns.sample.body.scalp import CRANIUM_Z, face_opening, head_distance, scalp_points
from degstalk_ns.sample.body.surfels import CROWN_Y

NODES: int = 36
"""Points along a strand."""

_SHARPEST_BEND = 0.6  # cosine of the angle between neighbouring pieces of a strand
_LONGEST_PIECE = 1.6  # by the strand's median


@dataclass(frozen=True)
class HairStyle:
    """Lengths in metres. The defaults are the design; a seed varies what changes a person, not what makes it hair."""

    parting_x: float = 0.012
    """Where the parting meets the hairline; its sign is the side."""
    wave: float = 0.0062
    """Amplitude of the waves near the tips."""
    wavelength: float = 0.085
    volume: float = 1.0
    """Factor of the height above the scalp."""
    tip_y: float = -0.176
    """Height of the tips, in the mean."""
    front_side: int = 1
    """The side, by the sign of x, on which hair falls in front of the shoulder; on the other most falls behind."""

    @staticmethod
    def from_seed(seed: int) -> HairStyle:
        """Seed 0 is the design."""
        if seed == 0:
            return HairStyle()
        random = np.random.default_rng([seed, 0x57E])
        side = -1.0 if random.random() < 0.5 else 1.0
        return HairStyle(
            parting_x=side * float(random.uniform(0.006, 0.020)),
            wave=float(random.uniform(0.0015, 0.0065)),
            wavelength=float(random.uniform(0.065, 0.110)),
            volume=float(random.uniform(0.85, 1.2)),
            tip_y=float(random.uniform(-0.195, -0.168)),
            front_side=-1 if random.random() < 0.5 else 1,
        )


@dataclass(frozen=True)
class Strands:
    """S strands.

    Attributes:
        nodes: [S, NODES, 3] from root to tip, head coordinates at rest, metres.
        lock: [S] which lock a strand belongs to.
        centre: [S, NODES, 3] the middle of its lock beside every node.
        layer: [S] 0 (lies on the scalp) .. 1 (outermost).
        stray: [S] bool, strands that go their own way.
    """

    nodes: Doubles
    lock: NDArray[np.int64]
    centre: Doubles
    layer: Doubles
    stray: NDArray[np.bool_]


def _unit(v: Doubles) -> Doubles:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def _parting(points: Doubles, style: HairStyle) -> tuple[Doubles, Doubles]:
    """The way [N, 2] from the nearest point of the parting, in x and z, and where on it that is, 0 (front) .. 1."""
    start = np.array([style.parting_x, 0.078])
    end = np.array([0.4 * style.parting_x, -0.045])
    flat = points[:, [0, 2]]
    along = np.clip((flat - start) @ (end - start) / ((end - start) @ (end - start)), 0.0, 1.0)
    return flat - (start + along[:, None] * (end - start)), along


def _pushed(points: Doubles, heights: Doubles, margins: Doubles) -> Doubles:
    """Points [N, 3] moved to at least the height [N] above the head and the margin [N] off face and body."""
    for distance, clearance in ((head_distance, heights), (face_opening, margins * 0.4), (clothed_distance, margins)):
        depth = clearance - distance(points)
        inside = depth > 0
        if inside.any():
            normals, steepness = gradient(distance, points[inside])
            points = points.copy()
            points[inside] += (depth[inside] / steepness)[:, None] * normals
    return points


def _combed(
    roots: Doubles, style: HairStyle, layer: Doubles, lengths: Doubles, spread: Doubles, seed_noise: Doubles
) -> Doubles:
    """Paths [S, NODES, 3] of strands, without waves."""
    away, along = _parting(roots, style)
    side = np.where(away[:, 0] >= 0, 1.0, -1.0)
    front = smoothstep(-0.02, 0.05, roots[:, 2])
    outward = _unit(np.stack([away[:, 0], np.zeros(len(roots)), away[:, 1]], axis=1))
    # The front is combed sideways and back from the forehead; the sides hang; the back goes straight down.
    combed = outward + front[:, None] * np.stack(
        [0.2 * side, np.full(len(roots), 0.25), np.full(len(roots), -0.16)], axis=1
    )
    normals, _ = gradient(head_distance, roots)
    flatness = smoothstep(0.25, 0.85, normals[:, 1])[:, None]
    start = flatness * _unit(combed) + (1 - flatness) * np.array([0.0, -1.0, -0.25]) + seed_noise
    start[:, 0] = side * np.maximum(side * start[:, 0], 0.5 * flatness[:, 0] * (along < 1.0))  # never over the parting
    start = _unit(start - (start * normals).sum(1, keepdims=True) * normals)
    # Which strands fall in front of the shoulders.
    azimuth = np.degrees(np.arctan2(np.abs(roots[:, 0]), roots[:, 2] - CRANIUM_Z))
    limit = np.where(side == style.front_side, 112.0, 62.0)
    forward = smoothstep(8.0, -8.0, azimuth - limit)
    goal_x = np.where(forward > 0.5, side * (0.050 + 0.040 * spread), 1.05 * roots[:, 0])
    goal_z = np.where(forward > 0.5, 0.030 + 0.02 * front, -0.085)

    # The front falls forward along the face; hair behind it is led further over before it drops.
    turning = 0.080 - front * (0.034 + 0.012 * spread)
    step = lengths / (NODES - 1)
    paths = np.empty((len(roots), NODES, 3))
    place, heading = roots + 0.0014 * normals, _unit(start + 0.15 * normals)
    paths[:, 0] = place
    full_height = (0.0030 + 0.0080 * layer) * style.volume
    for k in range(1, NODES):
        travelled = step * k
        normals, _ = gradient(head_distance, place)
        turn = smoothstep(0.0, 1.0, (travelled - 0.008) / turning)[:, None]
        drop = np.zeros_like(place)
        drop[:, 1] = -1.0
        low = smoothstep(-0.02, -0.10, place[:, 1])
        drop[:, 0] = np.clip((goal_x - place[:, 0]) / 0.12, -0.35, 0.35) * smoothstep(-0.005, -0.09, place[:, 1])
        drop[:, 2] = np.clip((goal_z - place[:, 2]) / 0.08, -0.7, 0.7) * low
        wish = _unit((1 - turn) * start + turn * drop)
        inward = np.minimum((wish * normals).sum(1), 0.0) * smoothstep(0.03, 0.012, head_distance(place))
        wish = _unit(wish - inward[:, None] * normals)
        # It slides along the shoulders rather than against them.
        body, _ = gradient(clothed_distance, place)
        inward = np.minimum((wish * body).sum(1), 0.0) * smoothstep(0.025, 0.008, clothed_distance(place))
        wish = _unit(wish - inward[:, None] * body)
        heading = _unit(0.62 * heading + 0.38 * wish)
        place = place + step[:, None] * heading
        # Volume: most on top, yet a dome without a ditch along the parting.
        beside = np.abs(place[:, 0] - style.parting_x * 0.7)
        top = smoothstep(0.06, 0.10, place[:, 1])
        volume = 1.0 + 0.1 * top - 0.5 * top * smoothstep(0.060, 0.0, beside)
        height = full_height * volume * smoothstep(-0.020, 0.024, travelled)
        margins = 0.0020 + 0.006 * layer
        place = _pushed(place, height, margins)
        # On the upper head hair lies: it is drawn to its height, too.
        lying = smoothstep(0.02, 0.06, place[:, 1])
        excess = np.maximum(head_distance(place) - height, 0.0) * lying * 0.5
        place = place - excess[:, None] * normals
        heading = _unit(place - paths[:, k - 1])
        paths[:, k] = place
    return paths


def _frames(paths: Doubles) -> tuple[Doubles, Doubles]:
    """Two unit directions across every node of paths [S, K, 3], varying smoothly along a strand."""
    tangent = _unit(np.gradient(paths, axis=1))
    out = paths - np.array([0.0, 0.0, -0.02])
    out[..., 1] *= 0.35
    first = _unit(out - (out * tangent).sum(-1, keepdims=True) * tangent)
    return first, np.cross(tangent, first)


def comb(style: HairStyle, strands: int, locks: int, seed: int) -> Strands:
    """Roots, locks and paths.

    Args:
        style: the haircut. strands, locks: how many. seed: of everything random about single strands.
    """
    random = np.random.default_rng([seed, 0xC0B])
    points, _ = scalp_points(12 * strands)
    away, _ = _parting(points, style)
    from_parting = np.linalg.norm(away, axis=1)
    front = smoothstep(-0.06, 0.02, points[:, 2])
    weight = (0.30 + 0.70 * front) * (1.0 + 1.3 * np.exp(-from_parting / 0.016))
    chosen = np.sort(random.choice(len(points), strands, replace=False, p=weight / weight.sum()))
    roots = points[chosen]
    away, _ = _parting(roots, style)
    side = np.where(away[:, 0] >= 0, 1.0, -1.0)
    # Hair from the parting lies over hair from the sides.
    reach = np.abs(away[:, 0]) + 0.8 * np.maximum(CROWN_Y - roots[:, 1], 0.0)
    layer = np.clip(1.0 - reach / 0.11 + random.normal(0.0, 0.16, strands), 0.0, 1.0)

    # Locks: strands beside each other on one side, drawn to one of them.
    leaders = np.sort(random.choice(strands, locks, replace=False))
    place = np.concatenate([roots, 0.5 * side[:, None], 0.03 * layer[:, None]], axis=1)
    lock = cKDTree(place[leaders]).query(place)[1].astype(np.int64)
    lock_noise, own_noise = random.normal(0, 1, (locks, 3)), random.normal(0, 1, (strands, 3))
    stray = random.random(strands) < 0.055
    noise = 0.10 * lock_noise[lock] + np.where(stray, 0.22, 0.05)[:, None] * own_noise

    crown = np.maximum(roots[:, 1], 0.0)
    over = np.linalg.norm(roots[:, [0, 2]] - [0.0, CRANIUM_Z], axis=1)
    arc = np.maximum(0.085 - over, 0.0) * 1.25
    lengths = (crown - style.tip_y) + arc + 0.012
    lengths += (
        random.normal(0, 0.012, locks)[lock] + random.normal(0, 0.006, strands) - 0.02 * random.random(strands) ** 3
    )
    spread = np.clip(random.random(locks)[lock] + random.normal(0, 0.08, strands), 0.0, 1.0)
    paths = _combed(roots, style, layer, np.maximum(lengths, 0.12), spread, noise)

    centre = paths[leaders][lock]
    u = np.linspace(0.0, 1.0, NODES)
    clump = 0.42 * smoothstep(0.12, 0.85, u) * np.where(stray, 0.25, 1.0)[:, None]
    paths = paths + clump[..., None] * (centre - paths)

    # Waves: flat helices, in step within a lock.
    first, second = _frames(paths)
    arc_length = lengths[:, None] * u
    phase = random.uniform(0, 2 * np.pi, locks)[lock] + random.normal(0, 0.35, strands)
    wavelength = style.wavelength * random.uniform(0.8, 1.25, locks)[lock]
    angle = 2 * np.pi * arc_length / wavelength[:, None] + phase[:, None]
    amplitude = style.wave * random.uniform(0.5, 1.3, locks)[lock][:, None] * smoothstep(0.05, 0.20, arc_length)
    own = (
        0.0011
        * np.sin(2 * np.pi * arc_length / 0.045 + random.uniform(0, 6.3, strands)[:, None])
        * smoothstep(0.02, 0.1, arc_length)
    )
    own = own * np.where(stray, 3.2, 1.0)[:, None]
    wave_out, wave_side = 0.55 * amplitude * np.sin(angle), amplitude * np.cos(angle) + own
    nodes = paths + wave_out[..., None] * first + wave_side[..., None] * second
    wanted = (0.0022 + 0.003 * layer)[:, None] * smoothstep(0.0, 0.03, arc_length)
    flat = _pushed(nodes.reshape(-1, 3), wanted.reshape(-1), np.repeat(0.0015 + 0.005 * layer, NODES))
    flat = flat.reshape(nodes.shape)
    flat[:, 0] = paths[:, 0]
    for _ in range(2):  # no kinks where a strand was pushed
        flat[:, 1:-1] = 0.5 * flat[:, 1:-1] + 0.25 * (flat[:, :-2] + flat[:, 2:])
    return _trimmed(Strands(flat, lock, centre, layer, stray))


def _trimmed(strands: Strands) -> Strands:
    """Strands that a shoulder caught and bent are cut off before the bend, or left out where that is near the root."""
    pieces = np.diff(strands.nodes, axis=1)
    lengths = np.linalg.norm(pieces, axis=2)
    directions = _unit(pieces)
    bent = (directions[:, 1:] * directions[:, :-1]).sum(axis=2) < _SHARPEST_BEND
    bent[:, :2] = False  # hair may rise from its root as it likes
    bent |= lengths[:, 1:] > _LONGEST_PIECE * np.median(lengths, axis=1, keepdims=True)
    last = np.where(bent.any(axis=1), bent.argmax(axis=1), NODES - 1)
    nodes, centre = strands.nodes.copy(), strands.centre.copy()
    for strand in np.flatnonzero(last < NODES - 1):
        at = np.linspace(0.0, last[strand], NODES)
        low = np.minimum(at.astype(np.int64), NODES - 2)
        share = (at - low)[:, None]
        for array in (nodes, centre):
            array[strand] = (1 - share) * array[strand, low] + share * array[strand, low + 1]
    kept = last >= NODES // 2
    return Strands(nodes[kept], strands.lock[kept], centre[kept], strands.layer[kept], strands.stray[kept])
