"""Sound files that come as bytes, from whoever sends them: decoded in memory, within limits, or refused with words.

It must not know files on disk, features or networks.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from degstalk_ns.dataparsers.layout import SAMPLE_RATE
from degstalk_ns.errors import UserError


@dataclass(frozen=True)
class SoundLimits:
    """How much sound is taken from one who sends it."""

    bytes: int = 64 << 20
    """Size of the file: ten minutes of 16-bit stereo at 48 kHz are 110 MB, of anything compressed far less."""
    seconds: float = 600.0
    """Length: more is for `degstalk render`, which needs not keep it."""
    demuxers: tuple[str, ...] = ("wav", "mp3", "flac", "ogg", "mov", "aac", "w64", "matroska")
    """Containers that are opened (FFmpeg's names): those of sound files, none that reads other files or the network."""


def decode_sound(data: bytes, name: str, limits: SoundLimits | None = None) -> NDArray[np.float32]:
    """The sound of a file in memory as 16 kHz mono float32 [S] in [-1, 1].

    Args:
        data: of a wav, mp3, flac, ogg, m4a, ... file. name: for messages.

    Raises:
        UserError: too large, too long, not sound, damaged, or empty.
    """
    limits = limits or SoundLimits()
    if not data:
        raise UserError(f"{name} is empty; expected a sound file")
    if len(data) > limits.bytes:
        raise UserError(f"{name} is larger than {limits.bytes >> 20} MB; cut or compress it")
    pieces: list[NDArray[np.float32]] = []
    samples, most = 0, round(limits.seconds * SAMPLE_RATE)
    try:
        with av.open(io.BytesIO(data), "r", options={"format_whitelist": ",".join(limits.demuxers)}) as container:
            if not container.streams.audio:
                raise UserError(f"{name} holds no sound; expected wav, mp3, flac, ogg or m4a")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for packet in container.demux(container.streams.audio[0]):
                for frame in [None] if packet.size == 0 and packet.pts is None else packet.decode():
                    for out in resampler.resample(frame):
                        pieces.append(out.to_ndarray()[0])
                        samples += len(pieces[-1])
                if samples > most:
                    raise UserError(f"{name} is longer than {limits.seconds / 60:g} minutes; cut it first")
    except (FFmpegError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{name} is not a sound file that can be read ({reason}); expected wav, mp3, flac, ogg or m4a"
        ) from None
    if not samples:
        raise UserError(f"{name} holds no samples; expected some sound")
    return np.nan_to_num(np.concatenate(pieces)).clip(-1, 1).astype(np.float32)
