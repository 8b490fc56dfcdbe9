"""Cuts the plate of a frame: the background image behind the rendered face, from the recorded frame and its masks.

Images and masks in, images out. It must not know Gaussians, fields, files or nerfstudio.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.plates.lengths import odd_window


@dataclass(frozen=True)
class FramePlateConfig:
    """How far the recorded face is cut out of its plate. All lengths are fractions of the image height, so that they
    mean the same at any frame size; they were tuned at 512 pixels."""

    erosion: float = 6 / 512
    """Distance inside the edge of the face region at which the cut runs (the reach of the erosion), so that hair at the
    border is preserved: 6 pixels at 512, a window of 13. Value of DEGSTalk (hair preservation)."""
    seam: float = 4 / 512
    """Distance beside the head mask up to which the edge of the recorded jaw is still visible (error of the mask and
    blur of the edge): 4 pixels at 512. Chosen for this project."""
    rise: float = 40 / 512
    """Distance by which a new jaw may be higher than the recorded one: the neck below the recorded jaw is continued
    that far behind it; 40 pixels at 512. Chosen for this project; a mouth opens by 30 pixels there."""
    continued: float = 32 / 512
    """Distance behind the face by which what is seen beside it goes on (hair as hair, skin as skin), so that nothing
    of another colour shows where face and plate fail to meet; over the same distance again it fades into the torso
    image: 32 pixels at 512. Chosen for this project; the official DEGSTalk code begins with the torso image at once."""
    smoothing: float = 3 / 512
    """Standard deviation of the blur of what is continued behind the face: 3 pixels at 512. Chosen for this
    project."""

    def erosion_window(self, height: int) -> int:
        """Side of the erosion's window (odd) in a picture of ``height``, pixels: 13 at 512."""
        return odd_window(self.erosion, height)


FRAME_PLATE: Final[FramePlateConfig] = FramePlateConfig()
"""The configuration of the plates of every dataset."""

EDGE_SIGMA: Final[float] = 1.0
"""Standard deviation, in pixels at any size, that softens the torso image's edge. Not a fraction of the height: the
edge goes from one pixel to the next, however large a pixel is. Chosen for this project."""


def _window(size: int) -> NDArray[np.uint8]:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a morphological window must be odd and positive, got {size}")
    return np.ones((size, size), np.uint8)


def dilate(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Grow ``mask`` (bool [H, W]) by a square window of ``size`` pixels (odd)."""
    return cv2.dilate(mask.astype(np.uint8), _window(size)).astype(bool)


def erode(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Shrink ``mask`` (bool [H, W]) by a square window of ``size`` pixels (odd)."""
    return cv2.erode(mask.astype(np.uint8), _window(size)).astype(bool)


def frame_plate(
    frame: NDArray[np.uint8],
    head_region: NDArray[np.bool_],
    torso: NDArray[np.uint8],
    clean_plate: NDArray[np.uint8],
    config: FramePlateConfig = FRAME_PLATE,
) -> NDArray[np.uint8]:
    """The plate of one frame: everything but the face (DEGSTalk, hair preservation and equation 7).

    Outside the eroded head region it is the frame itself (hair, torso, background). Inside, what is seen beside it is
    continued, and farther in lies the torso image over the clean background plate, so that nothing of the recorded face
    is left behind the rendered one.

    Args:
        frame: RGB [H, W, 3], 0..255.
        head_region: bool [H, W], face and mouth interior together.
        torso: RGBA [H, W, 4], 0..255, straight (not premultiplied) alpha.
        clean_plate: RGB [H, W, 3], 0..255, the background without the person.
        config: how far inside the head region the cut runs.

    Returns:
        RGB [H, W, 3], 0..255.
    """
    inside = erode(head_region, config.erosion_window(len(frame)))
    plate = frame.copy()
    plate[inside] = _torso_over(torso[inside], clean_plate[inside])
    continue_over(plate, frame, ~inside, inside, len(frame), config)
    return plate


def torso_plate(torso: NDArray[np.uint8], clean_plate: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The plate of a head that holds its hair: the torso image RGBA [H, W, 4] over the clean plate RGB [H, W, 3], all
    0..255, RGB [H, W, 3]. That of TalkingGaussian, DEGSTalk's baseline."""
    height, width = clean_plate.shape[:2]
    return _torso_over(torso.reshape(-1, 4), clean_plate.reshape(-1, 3)).reshape(height, width, 3)


def _torso_over(torso: NDArray[np.uint8], clean_plate: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels of the torso image [n, 4] over those of the clean plate [n, 3]."""
    alpha = torso[:, 3:].astype(np.uint16)
    return ((torso[:, :3] * alpha + clean_plate * (255 - alpha) + 127) // 255).astype(np.uint8)


def freed_plate(
    frame: NDArray[np.uint8],
    head_region: NDArray[np.bool_],
    neck: NDArray[np.bool_],
    hair: NDArray[np.bool_],
    torso: NDArray[np.uint8],
    clean_plate: NDArray[np.uint8],
    config: FramePlateConfig = FRAME_PLATE,
) -> NDArray[np.uint8]:
    """The plate of one frame without any trace of the recorded jaw, for new audio, which moves the jaw otherwise.

    :func:`frame_plate` leaves a border of the recorded face, which the rendered face covers as long as it makes the
    same movement. With new audio the jaw is elsewhere, and the border would show as a second chin. Here the whole head
    region is cut out, except near hair, and what is visible beside it is continued behind it: above all the neck with
    the shadow on it, so that a higher jaw leaves no gap of another colour.

    Args:
        frame, head_region, torso, clean_plate, config: as :func:`frame_plate` takes them.
        neck, hair: bool [H, W], as they are seen.

    Returns:
        RGB [H, W, 3], 0..255.
    """
    plate = frame.copy()
    height = len(frame)
    erosion, seam = config.erosion_window(height), odd_window(config.seam, height)
    window = around(head_region, ceil(2 * (config.rise + config.seam) * height))
    if window is None:
        return plate
    result, plate = plate, plate[window]
    frame, torso, clean_plate = frame[window], torso[window], clean_plate[window]
    head_region, neck, hair = head_region[window], neck[window], hair[window]
    near, free_of_hair = dilate(head_region, seam), ~dilate(hair, erosion)
    opaque = torso[..., 3] == 255
    inside = erode(head_region, erosion)
    cut = inside | (near & (head_region | ~opaque) & free_of_hair)
    plate[cut] = _torso_over(torso[cut], clean_plate[cut])
    continue_over(plate, frame, ~near | (~free_of_hair & ~cut), cut, height, config)
    other, seen = plate.copy(), neck & ~near
    if seen.any():
        _continue_neck(plate, frame, seen, (head_region & opaque) | (neck & near), height, config)
    # The torso image ends from one pixel to the next; what lies free of the face now must not look cut out.
    share = cv2.GaussianBlur(opaque.astype(np.float32), (0, 0), EDGE_SIGMA)
    edge = near & ~seen & free_of_hair & (share > 0) & (share < 1)
    body = _smooth_inside(plate, opaque, EDGE_SIGMA)[edge]
    plate[edge] = (share[edge][:, None] * (body - other[edge]) + other[edge] + 0.5).astype(np.uint8)
    return result


def continue_over(
    image: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    height: int,
    config: FramePlateConfig = FRAME_PLATE,
) -> None:
    """What is ``seen`` of ``frame`` goes on over what is ``hidden`` of ``image``, evened out, and fades into the image
    where it is far. Changes ``image``.

    ``height``: of the whole picture, pixels; the arrays may be a part of it.
    """
    reach = config.continued * height
    window = around(hidden, ceil(4 * config.smoothing * height))
    if window is None or not seen[window].any():
        return
    image, frame, seen, hidden = image[window], frame[window], seen[window], hidden[window]
    distance, colours = _nearest_seen(frame, seen)
    even = _smooth_inside(colours, np.ones_like(seen), config.smoothing * height)
    share = _smoothstep(2.0 - distance[hidden] / reach)[:, None]
    image[hidden] = (share * even[hidden] + (1.0 - share) * image[hidden] + 0.5).astype(np.uint8)


def _nearest_seen(frame: NDArray[np.uint8], seen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """For every pixel the distance to the nearest one that is ``seen``, and the colour of that."""
    distance, labels = cv2.distanceTransformWithLabels(
        (~seen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    colours[labels[seen]] = frame[seen]
    return np.asarray(distance, np.float32), colours[labels]


def _smoothstep(share: NDArray[np.floating]) -> NDArray[np.floating]:
    """0 up to 0, 1 from 1 on, and smooth between."""
    share = np.clip(share, 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share))


def around(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice] | None:
    """Rows and columns that hold ``mask`` and ``margin`` pixels around it; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    down, across = (slice(max(int(i[0]) - margin, 0), int(i[-1]) + margin + 1) for i in (rows, columns))
    return down, across


def _continue_neck(
    plate: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    height: int,
    config: FramePlateConfig,
) -> None:
    """What is ``seen`` of the neck goes on over what is ``hidden``, evened out, ever fainter. Changes ``plate``.

    ``height``: of the whole picture, pixels; the arrays may be a part of it.
    """
    seam, rise = config.seam * height, config.rise * height
    distance, colours = _nearest_seen(frame, seen)
    hidden = hidden & (distance < rise + 2 * seam)
    even = _smooth_inside(colours, seen | hidden, config.smoothing * height)
    up = (distance - 2 * seam) / rise
    down = cv2.distanceTransform(seen.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) / (2 * seam)
    changed = hidden | (seen & dilate(hidden, odd_window(2 * config.seam, height)))
    share = _smoothstep(1.0 - np.where(seen, down, up)[changed])[:, None]
    plate[changed] = (share * even[changed] + (1.0 - share) * plate[changed] + 0.5).astype(np.uint8)


def _smooth_inside(image: NDArray[np.uint8], inside: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian mean of RGB [H, W, 3] over the pixels ``inside`` alone; zero where none is near."""
    weight = inside.astype(np.float32)
    sums = cv2.GaussianBlur(image * weight[..., None], (0, 0), sigma)
    share = cv2.GaussianBlur(weight, (0, 0), sigma)
    return sums / np.maximum(share, 1e-6)[..., None]
