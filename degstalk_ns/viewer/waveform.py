"""A picture of audio: its envelope, column by column. It must not know files, players or viewers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

QUIET_PEAK: float = 0.1
"""Peak (of 1) below which a sound is drawn as if it had this one: silence looks like silence, not like noise at full
height."""


def envelope(waveform: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Peak and root mean square of each of ``columns`` equal parts: float32 [columns, 2] in 0..1.

    Args:
        waveform: [S] samples in [-1, 1]; fewer samples than columns are repeated.
    """
    if columns < 1:
        raise ValueError(f"an envelope needs columns, got {columns}")
    waveform = np.asarray(waveform, np.float32)
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"a mono waveform [S] that is not empty is expected, got {waveform.shape}")
    edges = np.linspace(0, len(waveform), columns + 1)
    starts = np.minimum(edges[:-1].astype(np.int64), len(waveform) - 1)
    sizes = np.maximum(np.diff(np.append(starts, len(waveform))), 1)
    peaks = np.maximum.reduceat(np.abs(waveform), starts)
    power = np.add.reduceat(waveform.astype(np.float64) ** 2, starts) / sizes
    return np.stack([peaks, np.sqrt(power)], 1).clip(0, 1).astype(np.float32)


def waveform_picture(
    waveform: NDArray[np.float32],
    width: int = 640,
    height: int = 112,
    peak_colour: tuple[int, int, int] = (150, 125, 70),
    loud_colour: tuple[int, int, int] = (255, 211, 105),
) -> NDArray[np.uint8]:
    """The envelope of a sound, mirrored about the middle, on a transparent ground.

    Args:
        waveform: [S] samples in [-1, 1]. Loudest is full height, but see :data:`QUIET_PEAK`.
        peak_colour, loud_colour: RGB 0..255 of the peaks and of the root mean square within them.

    Returns:
        RGBA uint8 [height, width, 4].
    """
    levels = envelope(waveform, width)
    levels = levels / max(float(levels[:, 0].max()), QUIET_PEAK)
    middle = (height - 1) / 2
    away = np.abs(np.arange(height) - middle)[:, None]
    picture = np.zeros((height, width, 4), np.uint8)
    # Half a pixel at least, so that silence is a line.
    for column, colour in ((0, peak_colour), (1, loud_colour)):
        picture[away <= np.maximum(levels[:, column] * middle, 0.5)] = (*colour, 255)
    return picture


def png(picture: NDArray[np.uint8]) -> bytes:
    """An RGBA picture [H, W, 4] as a PNG file."""
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))
    if not done:
        raise RuntimeError("the picture could not be encoded")
    return data.tobytes()
