"""The long hair of the sample head: strands and a dark underlayer as Gaussians, carried by the head and swaying.

It must not know the face, light or cameras.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.sample.body.bust import DistanceGrid, Doubles, clothed_distance, smoothstep
from degstalk_ns.sample.body.combing import NODES, HairStyle, Strands, comb
from degstalk_ns.sample.body.quaternions import along, facing, quat_product, rotation_quat
from degstalk_ns.sample.body.scalp import above_hairline, face_opening, head_distance, scalp_points
from degstalk_ns.sample.body.surfels import Floats, Part, Surfels, join
from degstalk_ns.sample.body.sway import AZIMUTHS, KINDS, LEVELS, azimuth_of

STRANDS: int = 1320
_STRANDS_PER_LOCK = 11
_COLOURS = ((0.40, 0.255, 0.16), (0.30, 0.19, 0.125), (0.58, 0.42, 0.27), (0.45, 0.235, 0.135), (0.20, 0.145, 0.115))
"""Of the middle of a strand, gamma-encoded: chestnut, dark brown, honey, auburn, nearly black."""
_WIDTH, _TIP_WIDTH = 0.00060, 0.00028  # standard deviations, metres
_UNDER_WIDTH = 0.0024
_OVERLAP = 0.62  # standard deviation along the strand by the distance of nodes
_SCALP_POINTS, _SCALP_SIGMA, _SCALP_HEIGHT = 11000, 0.0022, 0.0010
_SHOULDERS_Y = -0.075  # below, hair may touch neck and shoulders, metres
_SWAY_FREE = 0.055  # metres of a strand that do not sway, from the root


def _strand_quats(tangents: Floats) -> Floats:
    """Quaternions [N, 4] whose first axis is the unit tangent [N, 3], up to its sign."""
    return along(np.where(tangents[:, :1] < 0, -tangents, tangents))


class _Chains:
    """Strands as chains of elongated Gaussians that sway."""

    def __init__(
        self, nodes: Doubles, albedo: Doubles, widths: Doubles, opacities: Doubles, normals: Doubles, margin: Doubles
    ) -> None:
        count, length = nodes.shape[:2]
        self.rest = nodes.astype(np.float32)
        steps = np.linalg.norm(np.diff(nodes, axis=1), axis=2)
        self.steps = steps.astype(np.float32)[..., None]
        along = np.concatenate([steps[:, :1], 0.5 * (steps[:, 1:] + steps[:, :-1]), steps[:, -1:]], axis=1) * _OVERLAP
        self.scales = np.stack([along, widths, widths], axis=2).reshape(-1, 3).astype(np.float32)
        self.albedo = np.clip(albedo, 0.01, 1.0).reshape(-1, 3).astype(np.float32)
        self.opacities = opacities.reshape(-1).astype(np.float32)
        self.normals = normals.reshape(-1, 3).astype(np.float32)
        self.margin = np.repeat(margin.astype(np.float32), length)
        # How much of the offsets at a lock's middle and tip a node takes: two parabolas over its swaying part.
        arc = np.concatenate([np.zeros((count, 1)), np.cumsum(steps, axis=1)], axis=1)
        hanging = smoothstep(0.045, -0.02, nodes[..., 1])
        u = np.clip((arc - _SWAY_FREE) / np.maximum(arc[:, -1:] - _SWAY_FREE, 0.06), 0.0, 1.0) * hanging
        share = np.clip((arc[:, -1:] - _SWAY_FREE) / 0.20, 0.3, 1.15)
        self.weights = (np.stack([4 * u * (1 - u), u * (2 * u - 1)], axis=2) * share[..., None]).astype(np.float32)
        # The directions around the head between which a strand hangs.
        where = azimuth_of(nodes[:, int(0.7 * length)])
        kind = np.arange(count) % KINDS
        low = np.floor(where).astype(np.int64)
        self.share = (where - low).astype(np.float32)[:, None, None]
        self.low, self.high = (low % AZIMUTHS) * KINDS + kind, ((low + 1) % AZIMUTHS) * KINDS + kind

    def set_kind(self, kind: NDArray[np.int64]) -> None:
        """Which stiffness each strand has; strands of one lock should have the same."""
        self.low = self.low - self.low % KINDS + kind % KINDS
        self.high = self.high - self.high % KINDS + kind % KINDS

    def moved(self, matrix: Floats, sway: Floats, head: DistanceGrid, body: DistanceGrid) -> tuple[Floats, Floats]:
        """Nodes and unit tangents [N, 3] in room coordinates."""
        rotation = matrix[:3, :3]
        local = sway @ rotation  # along the head's axes
        offsets = (1 - self.share) * local[self.low] + self.share * local[self.high]
        swung = self.rest + np.matmul(self.weights, offsets)
        # Hair does not stretch: every piece keeps its length.
        pieces = np.diff(swung, axis=1)
        pieces *= self.steps / np.maximum(np.sqrt((pieces * pieces).sum(2, keepdims=True)), 1e-9)
        swung[:, 1:] = swung[:, :1] + np.cumsum(pieces, axis=1)
        swung = _outside(swung, self.rest, head)
        room = swung @ rotation.T + matrix[:3, 3]
        shape = room.shape
        flat = room.reshape(-1, 3)
        low = np.flatnonzero(flat[:, 1] < _SHOULDERS_Y)
        distances, slopes = body.look_up(flat[low])
        depth = np.maximum(self.margin[low] - distances, 0.0)
        flat[low] += depth[:, None] * slopes
        room = flat.reshape(shape)
        tangents = np.empty_like(room)
        tangents[:, 1:-1] = room[:, 2:] - room[:, :-2]
        tangents[:, 0], tangents[:, -1] = room[:, 1] - room[:, 0], room[:, -1] - room[:, -2]
        tangents = tangents.reshape(-1, 3)
        tangents /= np.maximum(np.sqrt((tangents * tangents).sum(1, keepdims=True)), 1e-9)
        return flat, tangents


def _outside(nodes: Floats, rest: Floats, head: DistanceGrid) -> Floats:
    """Swinging hair stays out of head and face: nodes are pushed back as far as they are deeper than at rest."""
    moved = np.flatnonzero(np.abs(nodes - rest).max(axis=2).reshape(-1) > 3e-4)
    if len(moved) == 0:
        return nodes
    flat = nodes.reshape(-1, 3)
    distances, slopes = head.look_up(flat[moved])
    depth = np.clip(0.0035 - distances, 0.0, np.linalg.norm(flat[moved] - rest.reshape(-1, 3)[moved], axis=1))
    flat[moved] += depth[:, None] * slopes
    return flat.reshape(nodes.shape)


class Hair:
    """Hair to the shoulders, parted off centre.

    Args:
        seed: colour, waves, side of the parting and every strand.
        strands: of the visible hair, each a chain of Gaussians.
    """

    def __init__(self, seed: int = 0, strands: int = STRANDS) -> None:
        random = np.random.default_rng([seed, 0x4A1])
        self.style = HairStyle.from_seed(seed)
        combed = comb(self.style, strands, max(2, strands // _STRANDS_PER_LOCK), seed)
        colour = np.array(_COLOURS[0 if seed == 0 else int(random.integers(len(_COLOURS)))])
        colour = colour * random.uniform(0.94, 1.06)
        self._visible = self._make_visible(combed, colour, random)
        self._under = self._make_under(combed, colour)
        self._scalp = self._make_scalp(colour)
        self._head = DistanceGrid(
            lambda p: np.minimum(head_distance(p), face_opening(p)), (-0.10, -0.16, -0.11), (0.10, 0.12, 0.12)
        )
        self._body = DistanceGrid(clothed_distance, (-0.18, -0.27, -0.15), (0.18, -0.05, 0.11))

    def surfels(self, room_from_head: Floats, sway: Floats) -> Surfels:
        """The hair at one moment, in room coordinates.

        Args:
            room_from_head: [4, 4] the head's pose.
            sway: [AZIMUTHS * KINDS, LEVELS, 3] one frame of :func:`~degstalk_ns.sample.body.sway.simulate_sway`.
        """
        matrix = np.asarray(room_from_head, dtype=np.float32)
        if np.shape(sway) != (AZIMUTHS * KINDS, LEVELS, 3):
            raise ValueError(f"sway must be {[AZIMUTHS * KINDS, LEVELS, 3]}, not {list(np.shape(sway))}")
        rotation = matrix[:3, :3]
        pieces = []
        for chains, gloss in ((self._visible, 0.6), (self._under, 0.1)):
            means, tangents = chains.moved(matrix, np.asarray(sway, dtype=np.float32), self._head, self._body)
            pieces.append(
                Surfels(
                    means=means,
                    quats=_strand_quats(tangents),
                    scales=chains.scales,
                    normals=chains.normals @ rotation.T,
                    albedo=chains.albedo,
                    gloss=np.full(len(means), gloss, dtype=np.float32),
                    opacities=chains.opacities,
                    parts=np.full(len(means), Part.HAIR, dtype=np.uint8),
                )
            )
        scalp = self._scalp
        pieces.append(
            Surfels(
                means=scalp.means @ rotation.T + matrix[:3, 3],
                quats=quat_product(rotation_quat(rotation), scalp.quats),
                scales=scalp.scales,
                normals=scalp.normals @ rotation.T,
                albedo=scalp.albedo,
                gloss=scalp.gloss,
                opacities=scalp.opacities,
                parts=scalp.parts,
            )
        )
        return join(pieces)

    @staticmethod
    def _normals(combed: Strands) -> Doubles:
        """Out of the mass of hair, tilted out of the lock, so that each lock is round in the light."""
        nodes = combed.nodes
        out = nodes - np.array([0.0, 0.005, -0.02])
        out[..., 1] = np.maximum(out[..., 1], 0.0) + 0.008
        out /= np.linalg.norm(out, axis=2, keepdims=True)
        across = (nodes - combed.centre) / 0.006
        across /= np.maximum(np.linalg.norm(across, axis=2, keepdims=True), 1.0)
        normals = out + 0.55 * across
        return normals / np.linalg.norm(normals, axis=2, keepdims=True)

    def _make_visible(self, combed: Strands, colour: Doubles, random: np.random.Generator) -> _Chains:
        count = len(combed.nodes)
        u = np.linspace(0.0, 1.0, NODES)
        lock_tone = random.normal(0.0, 0.13, combed.lock.max() + 1)[combed.lock]
        lock_warmth = random.normal(0.0, 0.05, combed.lock.max() + 1)[combed.lock]
        tone = np.exp(lock_tone + random.normal(0.0, 0.10, count))
        # Darker roots, lighter tips; what lies below is in the shade of what lies above.
        length = 0.74 + 0.20 * smoothstep(0.02, 0.35, u) + 0.26 * smoothstep(0.45, 1.0, u)
        shade = 0.58 + 0.42 * combed.layer
        albedo = colour * (tone * shade)[:, None, None] * length[:, None]
        albedo = albedo * np.stack([1 + lock_warmth, np.ones(count), 1 - 1.2 * lock_warmth], axis=1)[:, None]
        albedo = albedo * self._occlusion(combed.nodes)[..., None]
        width = _WIDTH * random.uniform(0.75, 1.2, count)[:, None] * np.where(combed.stray, 0.55, 1.0)[:, None]
        taper = 1.0 - (1.0 - _TIP_WIDTH / _WIDTH) * smoothstep(0.55, 1.0, u)
        opacity = 0.92 * (1.0 - 0.55 * smoothstep(0.86, 1.0, u)) * np.where(combed.stray, 0.6, 1.0)[:, None]
        chains = _Chains(
            combed.nodes, albedo, width * taper, opacity, self._normals(combed), 0.0010 + 0.005 * combed.layer
        )
        chains.set_kind(combed.lock)
        return chains

    @staticmethod
    def _occlusion(nodes: Doubles) -> Doubles:
        """Dark beside the neck, below the jaw, where hair shades itself."""
        x, y, z = nodes[..., 0], nodes[..., 1], nodes[..., 2]
        under = smoothstep(-0.03, -0.10, y) * smoothstep(0.075, 0.045, np.abs(x)) * smoothstep(0.045, 0.0, z)
        behind = smoothstep(0.0, -0.05, z) * smoothstep(0.02, -0.06, y)
        return (1.0 - 0.55 * under) * (1.0 - 0.35 * behind)

    def _make_under(self, combed: Strands, colour: Doubles) -> _Chains:
        """Wide dark strands below the visible ones, so that nothing shines through."""
        inner = np.flatnonzero((combed.layer < 0.6) & ~combed.stray)[::4]
        nodes = combed.nodes[inner, ::2]
        out = nodes - np.array([0.0, 0.0, -0.02])
        out[..., 1] *= 0.2
        nodes = nodes - 0.0012 * out / np.linalg.norm(out, axis=2, keepdims=True)
        u = np.linspace(0.0, 1.0, nodes.shape[1])
        albedo = colour * (0.42 * self._occlusion(nodes))[..., None]
        widths = np.broadcast_to(_UNDER_WIDTH * (1.0 - 0.7 * smoothstep(0.55, 0.95, u)), nodes.shape[:2])
        opacity = np.broadcast_to(0.85 * (1.0 - 0.9 * smoothstep(0.75, 0.98, u)), nodes.shape[:2])
        normals = self._normals(combed)[inner, ::2]
        chains = _Chains(nodes, albedo, widths, opacity, normals, np.full(len(inner), 0.0015))
        chains.set_kind(combed.lock[inner])
        return chains

    @staticmethod
    def _make_scalp(colour: Doubles) -> Surfels:
        """A dark shell on the skin; thinner towards the hairline, where single hairs stand on skin."""
        points, normals = scalp_points(_SCALP_POINTS)
        inside = above_hairline(points, 0.0015)
        kept = inside > 0
        points, normals, inside = points[kept], normals[kept], inside[kept]
        count = len(points)
        sigma = np.array([_SCALP_SIGMA, _SCALP_SIGMA, 0.15 * _SCALP_SIGMA], dtype=np.float32)
        return Surfels(
            means=(points + _SCALP_HEIGHT * normals).astype(np.float32),
            quats=facing(normals),
            scales=np.tile(sigma, (count, 1)),
            normals=normals.astype(np.float32),
            albedo=np.tile(0.50 * colour, (count, 1)).astype(np.float32),
            gloss=np.zeros(count, dtype=np.float32),
            opacities=(0.20 + 0.78 * smoothstep(0.0, 0.010, inside)).astype(np.float32),
            parts=np.full(count, Part.HAIR, dtype=np.uint8),
        )
