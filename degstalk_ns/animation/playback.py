"""What is played to someone who watches: a sound, and for each of its frames what drives the head and whose camera and
plate it borrows from the recording. It must not know viewers, files or how anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.animation.new_sound import Performance
from degstalk_ns.avatar.driving import Conditions, DrivingTrack
from degstalk_ns.rates import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.viewer.sync import Timeline

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Playback:
    """A sound with the head that goes with it.

    Attributes:
        track: what drives the head. rows: [n] its row at each frame of the playback.
        recorded: [n] frame of the recording that lends camera and plate.
        waveform: [S] samples at 16 kHz in [-1, 1].
        true: whether the recorded frames show what should be seen (not so with a new sound, whose plates must also be
            freed of the recorded jaw).
        notes: what the user should know, one line each.
    """

    name: str
    track: DrivingTrack
    rows: Rows
    recorded: Rows
    waveform: NDArray[np.float32]
    true: bool
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.recorded) or not len(self.rows):
            raise ValueError(f"a playback needs frames, got {len(self.rows)} rows and {len(self.recorded)} cameras")

    @property
    def timeline(self) -> Timeline:
        return Timeline(len(self.rows), float(FRAME_RATE))

    def conditions(self, frame: int) -> Conditions:
        """What drives the head at ``frame`` of the playback."""
        return self.track.at_frame(int(self.rows[frame]))


def of_recording(
    name: str, track: DrivingTrack, first: int, last: int, waveform: NDArray[np.float32] | None
) -> Playback:
    """A stretch of the recording itself, from frame ``first`` to ``last`` (inclusive).

    Args:
        waveform: of the whole recording, [S] at 16 kHz; None plays silence.
    """
    rows = np.arange(first, last + 1)
    per_frame = SAMPLE_RATE / float(FRAME_RATE)
    start, end = round(first * per_frame), round((last + 1) * per_frame)
    sound = np.zeros(0, np.float32) if waveform is None else waveform[start:end]
    if len(sound) < end - start:
        sound = np.concatenate([sound, np.zeros(end - start - len(sound), np.float32)])
    return Playback(name, track, rows, rows, sound, true=True)


def of_new_sound(name: str, waveform: NDArray[np.float32], performance: Performance) -> Playback:
    """A new sound as :func:`degstalk_ns.animation.new_sound.perform` performs it.

    Args:
        waveform: [S] samples at 16 kHz in [-1, 1].
    """
    rows = np.arange(len(performance.track))
    return Playback(name, performance.track, rows, performance.rows, waveform, true=False, notes=performance.notes)
