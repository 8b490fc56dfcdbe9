"""What stands behind the face: the clean background plate, and the torso with the neck continued under the chin.

It must not know files of a dataset, nor how regions are found: frames and region codes in, images out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.preprocess.steps.parsing import BACKGROUND, HAIR, HEAD, MOUTH, NECK, TORSO, Codes, Mask


@dataclass(frozen=True)
class PlatesConfig:
    """Options of the background images (plates): what is behind the face in each frame. Lengths are fractions of the
    height of the frame; the values were chosen for this project at 512 pixels."""

    samples: int = 64
    """Number of evenly spaced frames whose median gives the clean background image, without the person."""
    rim: float = 0.016
    """Distance from the person within which background pixels are ignored, because of soft edges and shadows; 8 pixels
    at 512."""
    neck_extension: float = 0.18
    """Distance by which the neck is extended upward behind the head, so that no gap opens when the chin rises or the
    head moves; 92 pixels at 512. A rising chin needs less than half of it, and so does the motion of the head."""
    torso_extension: float = 0.06
    """Distance by which clothes that touch the head, such as a collar or scarf, are extended upward behind it; 31
    pixels at 512."""
    reference: float = 0.045
    """Height of the strip below the edge of the chin from which the colour of the extended neck or clothes is taken; 23
    pixels at 512."""
    seam: float = 0.006
    """Height of the rows directly below the edge of the chin that are painted over with the extended colour, because
    they mix with the chin; 3 pixels at 512."""
    darkening: float = 0.15
    """Fraction by which the extended neck is darker at its upper end, because it lies in the shadow of the jaw."""
    blur: float = 0.03
    """Standard deviation of the horizontal blur of the extended colour, which avoids vertical streaks; 15 pixels at
    512."""
    shadow: float = 0.02
    """Height of the rows below the edge of the chin that do not count for the colour, because the dark line there
    belongs to the jaw; 10 pixels at 512."""


def clean_plate(
    frames: Iterable[tuple[NDArray[np.uint8], Codes]], config: PlatesConfig | None = None
) -> tuple[NDArray[np.uint8], Mask]:
    """The background without the person: the temporal median where it was ever seen, smoothly filled elsewhere.

    Args:
        frames: pairs of RGB [H, W, 3] uint8 and region codes [H, W], about ``config.samples`` of them.

    Returns:
        RGB [H, W, 3] uint8, and where it was ever seen [H, W] bool. Where that is nowhere, the plate means nothing.
    """
    config = config or PlatesConfig()
    images, seen = [], []
    for image, codes in frames:
        radius = max(round(config.rim * codes.shape[0]), 1)
        person = (codes != BACKGROUND).astype(np.uint8)
        window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        seen.append(cv2.dilate(person, window) == 0)
        images.append(image)
    stack, visible = np.stack(images), np.stack(seen)
    plate = np.zeros_like(stack[0])
    count = visible.sum(0)
    for rows in np.array_split(np.arange(len(plate)), 8):  # in strips: sorting needs a copy
        # Unseen samples sort to the end; the median is then the middle of the first `count`.
        values = np.where(visible[:, rows, :, None], stack[:, rows], 255)
        values.sort(0)
        middle = np.maximum(count[rows] - 1, 0) // 2
        plate[rows] = np.take_along_axis(values, middle[None, :, :, None], 0)[0]
    return fill(plate, count > 0), count > 0


def fill(image: NDArray[np.uint8], known: Mask) -> NDArray[np.uint8]:
    """Fill the pixels of RGB [H, W, 3] that are not ``known`` ([H, W] bool) smoothly from those that are.

    Averages of the known pixels at ever coarser scales: each unknown pixel takes the finest scale that has any.
    """
    if known.all() or not known.any():
        return image
    weight = known.astype(np.float32)
    colour = image.astype(np.float32) * weight[..., None]
    levels: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = [(colour, weight)]
    while min(levels[-1][1].shape) > 1:
        colour, weight = levels[-1]
        size = (-(-weight.shape[1] // 2), -(-weight.shape[0] // 2))
        levels.append((_resized(colour, size, cv2.INTER_AREA), _resized(weight, size, cv2.INTER_AREA)))
    filled = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)[..., None]
    for colour, weight in reversed(levels[:-1]):
        coarse = _resized(filled, (weight.shape[1], weight.shape[0]), cv2.INTER_LINEAR)
        own = np.minimum(weight, 1.0)[..., None]
        filled = colour + (1 - own) * coarse
    return np.where(known[..., None], image, np.clip(np.round(filled), 0, 255).astype(np.uint8))


def _resized(image: NDArray[np.floating], size: tuple[int, int], kind: int) -> NDArray[np.float32]:
    return cv2.resize(image, size, interpolation=kind).astype(np.float32, copy=False)


def torso_image(frame: NDArray[np.uint8], codes: Codes, config: PlatesConfig | None = None) -> NDArray[np.uint8]:
    """Torso and neck, with both continued upward behind the head so that no hole shows when the jaw rises.

    Args:
        frame: RGB [H, W, 3] uint8.
        codes: region codes [H, W].

    Returns:
        RGBA [H, W, 4] uint8, alpha 0 or 255, colours not premultiplied; transparent pixels are black.
    """
    config = config or PlatesConfig()
    height = codes.shape[0]
    neck, torso = codes == NECK, codes == TORSO
    image = np.zeros((*codes.shape, 4), np.uint8)
    body = neck | torso
    image[..., :3][body] = frame[body]
    image[..., 3][body] = 255
    hidden = (codes == HEAD) | (codes == MOUTH) | (codes == HAIR)
    # The neck after the clothes: where both continue, the neck is in front of the collar's inside.
    for part, extension in ((torso, config.torso_extension), (neck, config.neck_extension)):
        _continue_upward(image, frame, part, hidden, round(extension * height), config)
    return image


def _continue_upward(
    image: NDArray[np.uint8],
    frame: NDArray[np.uint8],
    part: Mask,
    hidden: Mask,
    reach: int,
    config: PlatesConfig,
) -> None:
    """Paint ``part`` upward, column by column, over at most ``reach`` hidden pixels; changes ``image``."""
    height = part.shape[0]
    columns = np.flatnonzero(part.any(0))
    if not len(columns) or reach < 1:
        return
    top = part[:, columns].argmax(0)
    # Only where the head itself covers it: beside the neck the background is behind the head.
    columns, top = (array[hidden[np.maximum(top - 1, 0), columns] & (top > 0)] for array in (columns, top))
    if not len(columns):
        return
    left, right = int(columns[0]), int(columns[-1]) + 1
    seam, depth = max(round(config.seam * height), 1), max(round(config.reference * height), 2)
    rows = top[None] + round(config.shadow * height) + np.arange(depth)[:, None]
    rows = np.minimum(rows, height - 1)
    usable = part[rows, columns[None]].astype(np.float32)
    # A column with too little of the part takes its neighbours' colour; its own only if they have none either.
    short = ~usable.any(0)
    rows[0, short] = top[short]
    usable[0, short] = 1e-4
    # Colour and, as the fourth channel, how many pixels it comes from: blurred together, then divided.
    sums = np.zeros((1, right - left, 4), np.float32)
    sums[0, columns - left, :3] = (frame[rows, columns[None]] * usable[..., None]).sum(0)
    sums[0, columns - left, 3] = usable.sum(0)
    blurred = cv2.GaussianBlur(sums, (0, 0), sigmaX=config.blur * height, sigmaY=1e-3)[0, columns - left]
    colour = blurred[:, :3] / np.maximum(blurred[:, 3:], 1e-9)

    first = max(int(top.min()) - reach, 0)
    last = min(int(top.max()) + seam, height)
    y = np.arange(first, last)[:, None]
    above = top[None] - y  # how many rows over the part's top
    paint = (above > 0) & (above <= reach) & hidden[first:last, columns]
    paint |= (above <= 0) & (above > -seam) & part[first:last, columns]
    shade = 1 - config.darkening * np.clip(above / reach, 0, 1)
    values = np.clip(colour[None] * shade[..., None], 0, 255).astype(np.uint8)
    window = image[first:last, columns]
    window[..., :3][paint] = values[paint]
    window[..., 3][paint] = 255
    image[first:last, columns] = window
