"""Any sound file -> 16 kHz mono samples, with limits, and its own samples in blocks for a soundtrack.

It must not know features, networks, or where a sound comes from (a file, an upload).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from degstalk_ns.audio.streams import Resampler, pieces
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.reading.access import refuse_unreadable

FORMATS: Final[str] = "wav,w64,mp3,flac,ogg,aac,aiff,caf,au,mov,mp4,m4a,matroska,webm"
"""Containers that are opened. Playlists are not among them: they could name other files to be read."""
EXPECTED: Final[str] = "an audio file (wav, mp3, flac, ogg or m4a) or a video with an audio track"
"""What messages ask for."""
SHORTEST_SECONDS: Final[float] = 1.0 / FRAME_RATE
"""One frame of video: a shorter sound has nothing to show."""
SILENCE_LEVEL: Final[float] = 10 ** (-60 / 20)
"""Peak (full scale 1) under which a sound counts as silence: -60 dB."""


@dataclass(frozen=True)
class SoundLimits:
    """Limits on the audio that is accepted."""

    longest_minutes: float = 30.0
    """Maximum length of the audio, in minutes; longer audio is rejected."""
    largest_megabytes: float = 500.0
    """Maximum size of the audio file, in megabytes; a larger file is rejected before it is read."""


UNLIMITED: Final = SoundLimits(longest_minutes=math.inf, largest_megabytes=math.inf)
"""For ``aud.wav`` of a dataset: as long as the recording is."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded sound.

    Attributes:
        name: of the file, for messages.
        samples: [S] float32 in [-1, 1], 16 kHz, mono.
        source: the file, or its content.
        notes: what the user should know, one line each.
    """

    name: str
    samples: NDArray[np.float32]
    source: Path | bytes
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class Soundtrack:
    """A part of a sound, to accompany frames.

    Attributes:
        sound: the whole. start, seconds: of the part; it may reach beyond the sound's end, where there is silence.
    """

    sound: Sound
    start: float
    seconds: float

    def part(self, start: float, seconds: float) -> Soundtrack:
        """A part of this part, ``start`` counted from its own start; no longer than what is left of it."""
        return Soundtrack(self.sound, self.start + start, min(seconds, self.seconds - start))

    @property
    def samples(self) -> NDArray[np.float32]:
        """[S] float32 in [-1, 1], 16 kHz mono, exactly ``seconds`` long."""
        first, count = round(self.start * SAMPLE_RATE), round(self.seconds * SAMPLE_RATE)
        there = self.sound.samples[first : first + count]
        return np.pad(there, (0, count - len(there)))


def load_sound(
    source: Path | str | bytes,
    limits: SoundLimits | None = None,
    name: str | None = None,
    too_long: str = "cut it, or raise the limit with --sound.longest-minutes",
) -> Sound:
    """Decode a sound: wav (8 to 32 bit, float), mp3, flac, ogg, m4a and the sound of videos; any rate, any channels.

    Args:
        source: a file, or the content of one (an upload), which is decoded in memory.
        limits: defaults where None.
        name: what messages call it; the file's name where None.
        too_long: what to do with a sound that is.

    Raises:
        UserError: no such file, not a sound, no samples, shorter than a frame of video, or over the limits.
    """
    limits = limits or SoundLimits()
    source = Path(source) if isinstance(source, str) else source
    name = name or (str(source) if isinstance(source, Path) else "the sound")
    if isinstance(source, Path):
        refuse_unreadable(source)
        if not source.is_file():
            raise UserError(f"{name}: no such file; expected {EXPECTED}")
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size == 0:
        raise UserError(f"{name}: is empty; expected {EXPECTED}")
    if size > limits.largest_megabytes * 1e6:
        raise UserError(f"{name}: {size / 1e6:.0f} MB; at most {limits.largest_megabytes:g} MB are accepted")
    longest = limits.longest_minutes * 60 * SAMPLE_RATE
    blocks: list[NDArray[np.float32]] = []
    count = 0
    for block in decoded(source, SAMPLE_RATE, "mono", name):
        blocks.append(block[0])
        count += block.shape[1]
        if count > longest:
            raise UserError(f"{name}: is longer than {limits.longest_minutes:g} minutes; {too_long}")
    if count == 0:
        raise UserError(f"{name}: holds no samples; expected some audio")
    if count < SHORTEST_SECONDS * SAMPLE_RATE:
        raise UserError(f"{name}: lasts {1000 * count / SAMPLE_RATE:.2g} ms; expected at least one frame (40 ms)")
    samples = np.nan_to_num(np.concatenate(blocks)).clip(-1.0, 1.0).astype(np.float32)
    notes: tuple[str, ...] = ()
    if np.abs(samples).max() < SILENCE_LEVEL:
        notes = (f"{name}: is silent (nothing above -60 dB); the mouth will stay closed",)
    return Sound(name, samples, source, notes)


def decoded(source: Path | bytes, rate: int, layout: str, name: str) -> Iterator[NDArray[np.float32]]:
    """The sound in blocks [channels, n] float32 at ``rate`` Hz: "mono" is the mean of all channels, "stereo" is for
    sounds of two (as :func:`natural_format` has it). Rate and channels may change midway.

    Raises:
        UserError: not a sound that can be decoded.
    """
    resampler = Resampler(rate, 2 if layout == "stereo" else 1)
    try:
        with _opened(source, name) as container:
            for piece in pieces(container):  # gaps of timestamps must not shift what follows against the picture
                yield from resampler.put(piece)
            yield from resampler.rest()
    except FFmpegError as error:
        raise _unreadable(name, error) from None


def shifted(samples: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """The samples [S] (16 kHz) later by ``seconds`` (earlier where negative), with silence where nothing is left."""
    by = round(seconds * SAMPLE_RATE)
    moved = np.zeros_like(samples)
    first, end = max(by, 0), min(len(samples), len(samples) + by)
    moved[first:end] = samples[first - by : end - by]
    return moved


def natural_format(source: Path | bytes, name: str) -> tuple[int, str]:
    """Rate in Hz (44,100 or 48,000, which every player takes) and layout ("mono" or "stereo") for a soundtrack."""
    try:
        with _opened(source, name) as container:
            first = next(pieces(container), None)
    except FFmpegError as error:
        raise _unreadable(name, error) from None
    if first is None:
        raise UserError(f"{name}: holds no samples; expected some audio")
    return 48_000 if first.rate > 44_100 else 44_100, "stereo" if len(first.samples) == 2 else "mono"


def _opened(source: Path | bytes, name: str) -> Any:
    target = str(source) if isinstance(source, Path) else io.BytesIO(source)
    container = av.open(target, mode="r", options={"format_whitelist": FORMATS})
    if not container.streams.audio:
        container.close()
        raise UserError(f"{name}: holds no audio; expected {EXPECTED}")
    return container


def _unreadable(name: str, error: FFmpegError) -> UserError:
    reason = error.strerror or type(error).__name__
    return UserError(f"{name}: has no readable audio ({reason}); expected {EXPECTED}")
