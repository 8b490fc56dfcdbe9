"""Small videos that the tests of this folder encode for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000
TICKS = 1000
"""Timestamps are in milliseconds."""


def write_video(
    path: Path,
    times: Sequence[float],
    images: Sequence[NDArray[np.uint8]],
    sound: NDArray[np.float32] | None = None,
    sound_start: float = 0.0,
) -> Path:
    """Encode ``images`` (RGB [H, W, 3] uint8) to be shown at ``times`` (seconds), and ``sound`` ([S] at 16 kHz) from
    ``sound_start`` on. Codecs that need no even size and lose little: MPEG-4 at a high rate, PCM sound (.mkv)."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "bgr0"
        video.time_base = Fraction(1, TICKS)
        video.codec_context.time_base = Fraction(1, TICKS)
        audio = None
        if sound is not None:
            audio = container.add_stream("pcm_s16le", rate=RATE)
            audio.codec_context.layout = "mono"
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(time * TICKS)
            frame.time_base = Fraction(1, TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
            for start in range(0, len(samples), 1024):
                piece = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
                piece.sample_rate = RATE
                piece.pts = round(sound_start * RATE) + start
                piece.time_base = Fraction(1, RATE)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def grey(level: int, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A flat image."""
    return np.full((height, width, 3), level, np.uint8)


def tone(seconds: float, hertz: float = 440.0) -> NDArray[np.float32]:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)
