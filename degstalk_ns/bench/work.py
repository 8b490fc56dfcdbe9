"""The work that rendering a scene takes at least, counted and not estimated: what times are held against.

It counts what the picture needs, pixel by pixel, and must not know how any backend goes about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from degstalk_ns.bench.scene import Scene
from degstalk_ns.rasterization import rasterize
from degstalk_ns.rasterization.reference import tile_boxes
from degstalk_ns.rasterization.rules import RULES

# Operations of one evaluation: each multiplication, addition, division, comparison, minimum and shift is one; choosing
# between two values, moving data and finding out which pixels to visit are none.
OFFSETS, EXPONENT, EXPONENT_CHECKS, EXPONENTIAL, CAP = 2, 8, 1, 15, 1
"""dx, dy; the logarithm of alpha, brightness - (p dx + q dy)^2 - (r dy)^2; not too faint; 2^x by a polynomial of degree
5 (rounding 3, polynomial 10, exponent 2); capped."""
ALPHA = OFFSETS + EXPONENT + EXPONENT_CHECKS + EXPONENTIAL + CAP
LIGHT_FORWARD = 3
"""Light taken, light left, whether that is too little."""
LIGHT_BACK = 3 + 1 + 2 + 4 + 1
"""Light that reached the Gaussian; its weight; what lies behind it; d loss / d alpha; whether alpha was capped."""
MOMENTS = 11
"""Six sums of the gradient times 1, dx, dy, dx^2, dx dy, dy^2."""
PROJECTION, PROJECTION_BACK = 150, 330
"""Per Gaussian: rotation, camera, Jacobian, covariance, its inverse and radius; and the gradient of these."""
FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Work:
    """What one picture of a scene needs (float32), forward and for the gradient of it."""

    evaluations: int
    """Pairs of a pixel and a Gaussian that is drawn there: alpha at least 1 / 255 within gsplat's tiles, and the pixel
    not full before; the Gaussian that fills a pixel counts, for it must be looked at."""
    intersections: int
    """Pairs of a 16 x 16 tile and a Gaussian with an evaluation in it."""
    forward_operations: int
    backward_operations: int
    forward_bytes: int
    """Every input read once, every output (image, alpha, projection) written once."""
    backward_bytes: int
    """Inputs and the gradients of image and alpha read once, gradients of the inputs written once."""

    def floor(self, operations_per_second: float, bytes_per_second: float, backward: bool = False) -> float:
        """Seconds that a machine of these rates needs if it never waits: the longer of arithmetic and transport.

        With `backward`, of forward and backward together.
        """
        operations = self.forward_operations + backward * self.backward_operations
        moved = self.forward_bytes + backward * self.backward_bytes
        return max(operations / operations_per_second, moved / bytes_per_second)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _count(
    order: NDArray[Any],
    means2d: NDArray[Any],
    conics: NDArray[Any],
    opacities: NDArray[Any],
    boxes: NDArray[Any],
    light: NDArray[Any],
    tile: int,
    min_alpha: float,
    max_alpha: float,
    min_light: float,
) -> tuple[int, int]:
    """Blend over all of light [H, W] (ones on entry), nearest first; count evaluations and intersections."""
    height, width = light.shape
    full = np.zeros(light.shape, np.bool_)
    evaluations = intersections = 0
    for i in order:
        for tile_y in range(boxes[i, 2], boxes[i, 3]):
            for tile_x in range(boxes[i, 0], boxes[i, 1]):
                before = evaluations
                for y in range(tile_y * tile, min(tile_y * tile + tile, height)):
                    for x in range(tile_x * tile, min(tile_x * tile + tile, width)):
                        if full[y, x]:
                            continue
                        dx, dy = means2d[i, 0] - x - 0.5, means2d[i, 1] - y - 0.5
                        sigma = 0.5 * (conics[i, 0] * dx * dx + conics[i, 2] * dy * dy) + conics[i, 1] * dx * dy
                        alpha = min(max_alpha, opacities[i] * np.exp(-sigma))
                        if sigma < 0 or alpha < min_alpha:
                            continue
                        evaluations += 1
                        if light[y, x] * (1 - alpha) > min_light:
                            light[y, x] *= 1 - alpha
                        else:
                            full[y, x] = True
                intersections += evaluations > before
    return evaluations, intersections


def count_work(scene: Scene) -> Work:
    """Count by drawing the scene the plainest way, in float64, one Gaussian after the other.

    Not counted, though every rasterizer does it: sorting, finding the tiles and pixels that a Gaussian touches, looking
    at pixels that it turns out not to touch, and anything read or written in between.
    """
    arguments: dict[str, Any] = {
        k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.arguments().items()
    }
    with torch.no_grad():
        meta = rasterize(**arguments, backend="cpu")[2]
        means2d, conics, radii, depths = (meta[key][0] for key in ("means2d", "conics", "radii", "depths"))
        boxes = tile_boxes(means2d, radii, scene.width, scene.height).long()
        shown = torch.nonzero(radii > 0)[:, 0]
        order = shown[torch.sort(depths[shown], stable=True).indices]
    evaluations, intersections = _count(
        order.numpy(),
        means2d.numpy(),
        conics.numpy(),
        scene.opacities.double().numpy(),
        boxes.numpy(),
        np.ones((scene.height, scene.width)),
        RULES.tile_size,
        RULES.min_alpha,
        RULES.max_alpha,
        RULES.min_transmittance,
    )
    count, channels = scene.colors.shape
    parameters = count * (3 + 4 + 3 + 1 + channels)
    picture = scene.width * scene.height * (channels + 1)
    projected = count * (2 + 3 + 1 + 1)
    forward = ALPHA + LIGHT_FORWARD + 2 * channels
    backward = ALPHA + LIGHT_BACK + MOMENTS + (2 * channels - 1) + 2 * channels
    return Work(
        evaluations=int(evaluations),
        intersections=int(intersections),
        forward_operations=int(evaluations) * forward + count * PROJECTION,
        backward_operations=int(evaluations) * backward + count * PROJECTION_BACK,
        forward_bytes=FLOAT * (parameters + projected + picture),
        backward_bytes=FLOAT * (2 * parameters + picture),
    )
