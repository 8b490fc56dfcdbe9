"""Whether a video can be heard: its whole track, and all the time. It must not know what is driven by the sound."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.sound import SILENCE_LEVEL
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.preprocess.steps.decode import VideoInfo, read_audio

LONGEST_HUSH: Final[float] = 3.0
"""Seconds without any sound, not even a room's noise, that are still a pause: some programs mute what is no speech."""
_NAMED: Final[int] = 3


def check_heard(info: VideoInfo) -> None:
    """Refuse a video without any sound to be heard.

    Raises:
        UserError: as said.
    """
    peak = float(np.abs(read_audio(info)).max(initial=0.0))
    if peak < SILENCE_LEVEL:
        raise UserError(
            f"{info.path}: its sound is silent (nothing above -60 dB), and speech drives the avatar; was the right "
            "track recorded? --allow-silence takes it as it is"
        )


def hushes(samples: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Stretches of ``samples`` [S] at 16 kHz, longer than :data:`LONGEST_HUSH`, in which every one is 0; from and to,
    seconds. So is what a track lacks that begins later or ends sooner than the picture."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], samples == 0, [False]])))
    found = edges.reshape(-1, 2) / SAMPLE_RATE
    return [(float(low), float(high)) for low, high in found if high - low > LONGEST_HUSH]


def hush_notes(samples: NDArray[np.float32]) -> list[str]:
    """A line where there are such stretches, unless there is nothing else: that is refused, or was asked for."""
    found = hushes(samples)
    if not found or not samples.any():
        return []
    named = ", ".join(f"{low:.1f} to {high:.1f} s" for low, high in found[:_NAMED])
    more = f" and in {len(found) - _NAMED} more stretches" if len(found) > _NAMED else ""
    return [
        f"there is no sound at all from {named}{more}: the track is shorter than the picture, or was muted; what the "
        "lips do there is learnt as silence, so cut it out if somebody speaks"
    ]
