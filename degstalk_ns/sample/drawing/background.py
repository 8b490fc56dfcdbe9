"""The still room behind the sample head: a wall, a window, a shelf and a plant, out of focus.

It must not know what stands in front of it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_WORK_SIZE = 512
"""Pixels: drawn at this size and resized, so that every size shows the same room."""
# Wall colours, sRGB 0..255: warm grey, sage, dusty blue, sand.
_WALLS = ((196, 188, 176), (170, 180, 164), (164, 176, 188), (204, 188, 164))
_BOOKS = ((150, 62, 48), (44, 82, 108), (206, 176, 112), (70, 96, 72), (120, 78, 96), (222, 212, 194), (52, 50, 58))
_FULL = (1.0,)  # of a mask
_BLUR_NEAR, _BLUR_FAR = 5.0, 9.0  # standard deviations, pixels of 512


def _blend(canvas: NDArray[np.float32], layer: NDArray[np.float32], mask: NDArray[np.float32], blur: float) -> None:
    """Put ``layer`` over ``canvas`` where ``mask`` is, both out of focus."""
    soft = cv2.GaussianBlur(mask, (0, 0), blur)[..., None]
    colour = cv2.GaussianBlur(layer * mask[..., None], (0, 0), blur) / np.maximum(soft, 1e-3)
    canvas += (colour - canvas) * soft


def _wall(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    colour = np.array(_WALLS[int(random.integers(len(_WALLS)))], dtype=np.float32)
    light = 1.06 - 0.34 * np.hypot(x - 0.12, 0.8 * (y - 0.18))  # daylight from the upper left, as on the head
    warmth = np.stack([1.0 + 0.05 * (y - x), np.ones_like(x), 1.0 - 0.06 * (y - x)], axis=-1)
    wall = colour * light[..., None] * warmth
    for blur, strength in ((24.0, 9.0), (6.0, 4.0), (2.0, 2.2)):  # uneven plaster
        patches = cv2.GaussianBlur(random.standard_normal((size, size)).astype(np.float32), (0, 0), blur)
        wall += (strength / 3.0) * (patches / patches.std())[..., None]
    return wall.astype(np.float32)


def _window(canvas: NDArray[np.float32], random: np.random.Generator, left: bool) -> None:
    size = len(canvas)
    x0, x1 = (-40, 96) if left else (size - 96, size + 40)
    top, bottom = 24 + int(random.integers(-10, 20)), 330
    layer = np.zeros_like(canvas)
    mask = np.zeros((size, size), dtype=np.float32)
    cv2.rectangle(mask, (x0, top), (x1, bottom), _FULL, -1)
    height = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None]
    layer[:] = (np.array([236, 241, 246]) * (1 - height) + np.array([196, 206, 178]) * height)[:, None]
    for _ in range(14):  # trees outside
        place = (int(random.integers(x0, x1)), int(random.integers(bottom - 130, bottom)))
        green = tuple(float(v) for v in np.array([148, 168, 120]) + random.integers(-20, 20, 3))
        cv2.circle(layer, place, int(random.integers(12, 34)), green, -1)
    frame = (238.0, 234.0, 226.0)
    cv2.rectangle(layer, (x0, top), (x1, bottom), frame, 9)
    cv2.line(layer, (x0, (top + bottom) // 2 - 20), (x1, (top + bottom) // 2 - 20), frame, 7)
    _blend(canvas, layer, mask, _BLUR_FAR * 0.7)
    curtain = np.zeros((size, size), dtype=np.float32)
    c0, c1 = (x1 - 8, x1 + 34) if left else (x0 - 34, x0 + 8)
    cv2.rectangle(curtain, (c0, -20), (c1, size), _FULL, -1)
    folds = 0.9 + 0.1 * np.sin(np.arange(size) / size * 2 * np.pi * 34 + random.uniform(0, 6))
    layer[:] = np.array([214.0, 204.0, 188.0]) * folds[None, :, None]
    _blend(canvas, layer, curtain * 0.92, _BLUR_NEAR * 0.8)


def _shelf(canvas: NDArray[np.float32], random: np.random.Generator, left: bool) -> None:
    size = len(canvas)
    x0, x1 = (-20, 150) if left else (size - 150, size + 20)
    layer, mask = np.zeros_like(canvas), np.zeros((size, size), dtype=np.float32)
    for board in (118, 232, 346):
        cv2.rectangle(layer, (x0, board), (x1, board + 9), (134.0, 98.0, 66.0), -1)
        cv2.rectangle(mask, (x0, board), (x1, board + 9), _FULL, -1)
        x = x0 + int(random.integers(0, 24))
        while x < x1 - 12:
            width, height = int(random.integers(9, 20)), int(random.integers(46, 82))
            if random.random() < 0.86:
                colour = np.array(_BOOKS[int(random.integers(len(_BOOKS)))]) * random.uniform(0.85, 1.1)
                cv2.rectangle(layer, (x, board - height), (x + width - 2, board - 1), tuple(map(float, colour)), -1)
                cv2.rectangle(mask, (x, board - height), (x + width - 2, board - 1), _FULL, -1)
            x += width
    shadow = np.roll(mask, (8, 10), axis=(0, 1))
    canvas *= 1.0 - 0.22 * cv2.GaussianBlur(shadow, (0, 0), _BLUR_FAR)[..., None]
    _blend(canvas, layer, mask, _BLUR_NEAR * 0.75)


def _plant(canvas: NDArray[np.float32], random: np.random.Generator, left: bool) -> None:
    size = len(canvas)
    foot = np.array([52.0 if left else size - 52.0, 505.0])
    layer, mask = np.zeros_like(canvas), np.zeros((size, size), dtype=np.float32)
    for _ in range(34):
        angle = random.uniform(-1.25, 1.25)
        length = random.uniform(70, 185)
        tip = foot + length * np.array([np.sin(angle), -np.cos(angle) * 0.95])
        green = np.array([66, 92, 62]) * random.uniform(0.75, 1.4) + np.array([16.0, 10.0, 0.0]) * random.random()
        middle, axes = (foot + 2.2 * tip) / 3.2, (int(length * 0.27), int(random.integers(6, 13)))
        turn = float(np.degrees(np.arctan2(tip[1] - foot[1], tip[0] - foot[0])))
        for image, colour in ((layer, tuple(map(float, green))), (mask, _FULL)):
            cv2.ellipse(image, (int(middle[0]), int(middle[1])), axes, turn, 0, 360, colour, -1)
    _blend(canvas, layer, mask, _BLUR_NEAR * 0.8)


def background(seed: int, size: int) -> NDArray[np.uint8]:
    """A still, blurred room.

    Args:
        seed: same seed, same room: colour of the wall, which side window and shelf are on, every book and leaf.
        size: pixels a side.

    Returns:
        [size, size, 3] sRGB.
    """
    random = np.random.default_rng([seed, 0x0B6])
    canvas = _wall(random, _WORK_SIZE)
    left = bool(random.random() < 0.7)
    _window(canvas, random, left)
    _shelf(canvas, random, not left)
    _plant(canvas, random, left)
    y, x = np.mgrid[0:_WORK_SIZE, 0:_WORK_SIZE].astype(np.float32) / _WORK_SIZE - 0.5
    canvas *= (1.0 - 0.22 * (x * x + y * y))[..., None]
    room = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 1.5))
    if size != _WORK_SIZE:
        shrinking = size < _WORK_SIZE
        room = np.asarray(
            cv2.resize(room, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
        )
    room = room + random.normal(0.0, 0.7, room.shape)  # grain, so that no gradient bands
    return np.clip(np.rint(room), 0, 255).astype(np.uint8)
