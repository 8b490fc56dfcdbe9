"""One frame of the sample: surfels drawn into a picture, and with the same weights into masks, torso and landmarks.

It must not know what the surfels show, nor files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.dataparsers.layout import PALETTE
from degstalk_ns.rasterization.api import rasterize
from degstalk_ns.sample.body.surfels import Floats, Part, Surfels
from degstalk_ns.sample.drawing.shading import LightConfig, shade_surfels, visible_surfels

_Bytes = NDArray[np.uint8]

EPS2D: Final = 0.3
"""Blur of each surfel at and above :data:`EPS2D_SIZE`, pixel^2: gsplat's."""
EPS2D_SIZE: Final = 512
"""Below this size the blur shrinks with the picture: the surfels are smaller than pixels there, and with gsplat's blur
each would cover more than its own share, the lips all of the mouth."""
MASK_REGIONS: Final[tuple[str, ...]] = tuple(PALETTE)
"""Regions of the dataset's masks; a code is a place in this order."""
REGION_OF: Final[dict[Part, str]] = {
    Part.HEAD: "head",
    Part.HAIR: "hair",
    Part.NECK: "neck",
    Part.TORSO: "torso",
    Part.MOUTH: "mouth",
    Part.TEETH: "mouth",
}


@dataclass(frozen=True)
class Camera:
    """A square picture taken by a camera that stands still in the room and looks along -z.

    Attributes:
        size: pixels.
        place: room coordinates, metres.
        focal_sizes: focal length over ``size``; 3 is a portrait lens.
    """

    size: int
    place: tuple[float, float, float] = (0.0, -0.035, 1.2)
    focal_sizes: float = 3.0

    @property
    def focal(self) -> float:
        """Pixels."""
        return self.focal_sizes * self.size

    @property
    def eye(self) -> Floats:
        return np.asarray(self.place, np.float32)

    @property
    def viewmat(self) -> Floats:
        """[4, 4] room to camera, OpenCV axes."""
        matrix = np.diag([1.0, -1.0, -1.0, 1.0])
        matrix[:3, 3] = -matrix[:3, :3] @ np.asarray(self.place)
        return matrix.astype(np.float32)

    def head_c2w(self, room_from_head: Floats) -> NDArray[np.float64]:
        """[4, 4] camera to head coordinates, OpenGL axes: the pose that a dataset stores."""
        camera = np.eye(4)
        camera[:3, 3] = self.place
        return np.asarray(np.linalg.inv(room_from_head.astype(np.float64)) @ camera)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points [..., 3] in room coordinates -> [..., 2] x, y in pixels."""
        local = np.asarray(points, np.float64) - np.asarray(self.place)
        flipped: NDArray[np.float64] = local[..., :2] * np.array([1.0, -1.0])
        return self.size / 2 + self.focal * flipped / -local[..., 2:]


@dataclass(frozen=True)
class Picture:
    """One frame.

    Attributes:
        image: RGB uint8 [size, size, 3].
        codes: uint8 [size, size], places in :data:`MASK_REGIONS`: the region with the largest share of each pixel.
        teeth: bool [size, size], part of the mouth.
        torso: RGBA uint8 [size, size, 4], neck and clothes as if nothing were in front; straight alpha.
    """

    image: _Bytes
    codes: _Bytes
    teeth: NDArray[np.bool_]
    torso: _Bytes


def take(
    surfels: Surfels, room_from_head: Floats, camera: Camera, background: _Bytes, light: LightConfig | None = None
) -> Picture:
    """Draw one frame.

    Args:
        surfels: everything there is, room coordinates.
        room_from_head: [4, 4], for the head's shadow.
        background: RGB uint8 [size, size, 3].
    """
    visible, covered = visible_surfels(surfels, room_from_head, camera.eye)
    # The neck's end in the head counts in the torso, where nothing is in front of it.
    kept = np.flatnonzero(visible & (~covered | (surfels.parts == Part.NECK)))
    surfels, covered = _only(surfels, kept), covered[kept]
    colours = shade_surfels(surfels, room_from_head, camera.eye, light)
    body = np.flatnonzero(np.isin(surfels.parts, (Part.NECK, Part.TORSO)))
    torso, torso_alpha = _draw(_only(surfels, body), colours[body], camera)
    # The head's share is what the other parts leave: eight channels are drawn faster than nine.
    shares = np.zeros((len(surfels), len(Part)), np.float32)
    shares[np.arange(len(surfels)), surfels.parts] = 1.0
    front = replace(surfels, opacities=np.where(covered, np.float32(0), surfels.opacities))
    render, alpha = _draw(front, np.concatenate([colours, shares[:, 1:]], 1), camera)
    image = render[..., :3] + (1 - alpha) * (background.astype(np.float32) / 255)
    others = render[..., 3:]
    codes, teeth = _regions(np.concatenate([alpha - others.sum(-1, keepdims=True), others], -1), alpha)
    straight = torso / np.maximum(torso_alpha, 1e-6)
    return Picture(_bytes(image), codes, teeth, _bytes(np.concatenate([straight, torso_alpha], -1)))


def _draw(surfels: Surfels, channels: Floats, camera: Camera) -> tuple[Floats, Floats]:
    """Premultiplied channels [size, size, D] and alpha [size, size, 1]."""
    intrinsics = np.array(
        [[camera.focal, 0, camera.size / 2], [0, camera.focal, camera.size / 2], [0, 0, 1]], np.float32
    )
    with torch.no_grad():
        render, alpha, _ = rasterize(
            _tensor(surfels.means),
            _tensor(surfels.quats),
            _tensor(surfels.scales),
            _tensor(surfels.opacities),
            _tensor(channels),
            _tensor(camera.viewmat[None]),
            _tensor(intrinsics[None]),
            camera.size,
            camera.size,
            eps2d=EPS2D * min(1.0, (camera.size / EPS2D_SIZE) ** 2),
            backend="cpu",
        )
    return render[0].numpy(), alpha[0].numpy()


def _tensor(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _only(surfels: Surfels, which: NDArray[np.intp]) -> Surfels:
    return Surfels(*(getattr(surfels, name)[which] for name in Surfels.__dataclass_fields__))


def _regions(shares: Floats, alpha: Floats) -> tuple[_Bytes, NDArray[np.bool_]]:
    """Codes [H, W] and teeth [H, W] from the parts' shares [H, W, parts]."""
    regions = np.zeros((*shares.shape[:2], len(MASK_REGIONS)), np.float32)
    regions[..., MASK_REGIONS.index("background")] = 1 - alpha[..., 0]
    for part, region in REGION_OF.items():
        regions[..., MASK_REGIONS.index(region)] += shares[..., part]
    codes = regions.argmax(-1).astype(np.uint8)
    teeth = (codes == MASK_REGIONS.index("mouth")) & (shares[..., Part.TEETH] > shares[..., Part.MOUTH])
    return codes, teeth


def _bytes(image: Floats) -> _Bytes:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
