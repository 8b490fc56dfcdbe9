"""The sound of a container, whatever its channels and rates, as blocks at one rate.

FFmpeg's own mixing is not used: it may exceed full scale, does not know every layout, and ends the process at eight
channels. It must not know what a sound is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.error import FFmpegError
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
MOST_DAMAGED: Final[int] = 100
"""Packets that may be broken before a stream counts as unreadable: every player skips some."""
_LAYOUTS: Final[dict[int, str]] = {1: "mono", 2: "stereo"}
_FULL_SCALE: Final[dict[str, float]] = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": float(1 << 63)}
"""Full scale of the formats that are whole numbers."""


@dataclass(frozen=True)
class Piece:
    """Decoded samples.

    Attributes:
        samples: [channels, n] float32; about -1 to 1.
        rate: Hz.
        start: timestamp of the first sample, seconds; None where the container has none.
    """

    samples: _Floats
    rate: int
    start: float | None


def pieces(container: av.container.InputContainer) -> Iterator[Piece]:
    """The first sound of ``container`` of which anything can be decoded, piece by piece; broken packets are skipped.

    Newer phones write a track in a format of their own before one that everybody reads.

    Raises:
        FFmpegError: no stream can be decoded, or one breaks off for good.
    """
    problem: FFmpegError | None = None
    for stream in container.streams.audio:
        found = False
        try:
            for piece in _decoded(container, stream):
                found = True
                yield piece
        except FFmpegError as error:
            if found:
                raise
            problem = error
        if found:
            return
        container.seek(0)
    if problem is not None:
        raise problem


def _decoded(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[Piece]:
    if stream.codec_context is None:  # PyAV 17 ends Python at its first packet
        raise av.error.DecoderNotFoundError(_NO_DECODER, "no decoder for its format")
    damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            damaged += 1
            if damaged > MOST_DAMAGED:
                raise
            continue
        except ValueError as error:  # so PyAV 19 tells of some formats that it has no decoder for
            raise av.error.DecoderNotFoundError(_NO_DECODER, str(error)) from None
        for frame in frames:
            start = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
            yield Piece(as_floats(frame), frame.sample_rate, start)


_NO_DECODER: Final[int] = av.error.tag_to_code(b"\xf8DEC")
"""FFmpeg's AVERROR_DECODER_NOT_FOUND."""


def as_floats(frame: av.AudioFrame) -> _Floats:
    """[channels, n] float32, 1 is full scale; what is no number is 0."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    kind = frame.format.name.removesuffix("p")
    full = _FULL_SCALE.get(kind)
    if full is None:
        return np.nan_to_num(samples.astype(np.float32), posinf=1.0, neginf=-1.0)
    return ((samples.astype(np.float64) - (full if kind == "u8" else 0.0)) / full).astype(np.float32)


def mixed(samples: _Floats, channels: int) -> _Floats:
    """[C, n] -> [channels, n]: as they are where they are as many, else the mean of all."""
    if len(samples) == channels:
        return samples
    return np.repeat(samples.mean(0, keepdims=True, dtype=np.float32), channels, 0)


class Resampler:
    """Blocks of any rate and any number of channels to blocks [channels, n] at one rate; both may change midway."""

    def __init__(self, rate: int, channels: int) -> None:
        """``channels``: 1 or 2."""
        self.rate, self.channels = rate, channels
        self._source_rate = 0
        self._resampler: AudioResampler | None = None

    def put(self, piece: Piece) -> list[_Floats]:
        """The blocks that ``piece`` completes."""
        done = self.rest() if piece.rate != self._source_rate else []
        if self._resampler is None:
            self._resampler = AudioResampler(format="fltp", layout=_LAYOUTS[self.channels], rate=self.rate)
            self._source_rate = piece.rate
        samples = np.ascontiguousarray(mixed(piece.samples, self.channels))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=_LAYOUTS[self.channels])
        frame.sample_rate = piece.rate
        return done + [_block(part) for part in self._resampler.resample(frame)]

    def rest(self) -> list[_Floats]:
        """The blocks that are left, before a gap or at the end."""
        left = [] if self._resampler is None else [_block(part) for part in self._resampler.resample(None)]
        self._resampler, self._source_rate = None, 0
        return left


def _block(frame: av.AudioFrame) -> _Floats:
    return np.asarray(frame.to_ndarray(), np.float32)
