"""An animation: everything that one video or one open page shows, frame by frame. It holds the driving signals, the
recorded moment that provides camera and plate, the views and the audio.

It must not know nerfstudio, how a frame is rendered, nor how a video or a page shows it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from degstalk_ns.animation.camera_path import CameraPath
from degstalk_ns.animation.new_sound import NewSoundConfig, UpperFace, driven_by_sound
from degstalk_ns.animation.ping_pong import Rows
from degstalk_ns.audio.features import silent_windows
from degstalk_ns.audio.sound import UNLIMITED, Sound, Soundtrack, load_sound
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import Conditions, DrivingTrack, windows_tensor
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE

Split = Literal["train", "val", "all"]
_HASHED = 500
"""Frames that are hashed at once."""


@dataclass(frozen=True, eq=False)
class Animation:
    """N frames at 25 a second.

    Attributes:
        name: in words, for menus and messages.
        track: driving signals.
        rows: [N] row of the track at each frame.
        recorded: [N] row of the recording that provides camera and plate of each frame.
        freed: whether plates must be free of the recorded jaw. True with new audio; then no recorded frame shows what
            should be seen, so there is no ground truth either.
        sound: audio that accompanies the frames, or None for silence.
        views: [N] cameras, or None for the recorded ones.
        spoken: description of the driving signals for the metadata of a video; without file names, which are private.
        notes: what the user should know, one line each.

    Raises:
        ValueError: no frame, or parts of different lengths.
    """

    name: str
    track: DrivingTrack
    rows: Rows
    recorded: Rows
    freed: bool
    sound: Soundtrack | None
    views: list[View] | None = None
    spoken: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.rows), len(self.recorded), len(self.rows if self.views is None else self.views)}
        if len(lengths) != 1 or not len(self.rows):
            raise ValueError(f"an animation needs frames, and as many rows, recorded rows and views: got {lengths}")

    # --- where one comes from ---------------------------------------------------------------------------------------

    @staticmethod
    def from_sound(
        sound: Sound,
        recording: Recording,
        *,
        upper_face: UpperFace = "source",
        features: Path | str | None = None,
        config: NewSoundConfig | None = None,
    ) -> Animation:
        """New audio, spoken by the person of ``recording``; arguments and errors are those of
        :func:`~degstalk_ns.animation.new_sound.driven_by_sound`."""
        track, recorded, notes = driven_by_sound(sound, recording, upper_face, features, config)
        return Animation(
            name=sound.name,
            track=track,
            rows=np.arange(len(recorded)),
            recorded=recorded,
            freed=True,
            sound=Soundtrack(sound, 0.0, sound.seconds),
            spoken="new audio",
            notes=notes,
        )

    @staticmethod
    def from_recording(recording: Recording, split: Split = "all") -> Animation:
        """A part of the recording, as it was: every frame from the split's first to its last.

        Where a frame has no files (dropped by the dataset's maker), its neighbour's camera and plate are shown. Audio
        that is missing or cannot be read is replaced by silence, and a note says so.
        """
        parts = {"train": (recording.train,), "val": (recording.val,), "all": (recording.train, recording.val)}
        if split not in parts:
            raise ValueError(f"a recording has the parts {', '.join(parts)}, not {split!r}")
        tables = parts[split]
        known = np.sort(np.concatenate([table.aud_ids for table in tables]))
        rows = np.arange(known[0], known[-1] + 1)
        sound, notes = _recorded_sound(recording, int(rows[0]), len(rows))
        return Animation(
            name={"train": "training track", "val": "validation track", "all": "whole track"}[split],
            track=recorded_track(recording),
            rows=rows,
            recorded=_nearest(known, rows),
            freed=False,
            sound=sound,
            spoken=f"the recorded track ({split})",
            notes=notes,
        )

    @staticmethod
    def from_path(recording: Recording, path: CameraPath, name: str = "the camera path") -> Animation:
        """A camera path with times: the moments of the recording that the path asks for, at its speed, silent.

        Args:
            name: of the path, for messages.

        Raises:
            UserError: the path has no times.
        """
        views, times = path.at(path.frames)
        if times is None:
            raise UserError(
                f"{name}: its cameras have no times, so they do not tell what the head does; add --audio or --track, "
                "over which the path is then spread, or export it with times (a keyframe's time in the viewer's "
                "Render tab)"
            )
        track = recorded_track(recording)
        rows = np.array([track.frame_at(float(time)) for time in times], np.int64)
        known = np.sort(np.concatenate([recording.train.aud_ids, recording.val.aud_ids]))
        spoken = "recorded moments along a camera path"
        return Animation(name, track, rows, _nearest(known, rows), False, None, views, spoken)

    # --- parts of it ------------------------------------------------------------------------------------------------

    def between(self, start: float, end: float | None = None) -> Animation:
        """The part from ``start`` to ``end`` in seconds (None is the end), each to the nearest frame.

        Raises:
            UserError: nothing lies between.
        """
        if not (math.isfinite(start) and (end is None or math.isfinite(end))):
            raise UserError(f"--start {start:g} and --end {end}: expected finite numbers of seconds")
        first = round(start * FRAME_RATE)
        last = len(self) if end is None else min(round(end * FRAME_RATE), len(self))
        if first < 0 or first >= last:
            raise UserError(
                f"--start {start:g} and --end {'the end' if end is None else f'{end:g}'}: nothing lies between them in "
                f"the {self.duration:.2f} s there are"
            )
        cut = slice(first, last)
        views = None if self.views is None else self.views[cut]
        sound = self.sound and self.sound.part(first / FRAME_RATE, (last - first) / FRAME_RATE)
        return replace(self, rows=self.rows[cut], recorded=self.recorded[cut], views=views, sound=sound)

    def seen_from(self, path: CameraPath) -> Animation:
        """The same, seen along a camera path that is spread over it."""
        return replace(self, views=path.at(len(self))[0])

    # --- frames and moments -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def duration(self) -> float:
        """Seconds until the last frame has been shown."""
        return len(self) / FRAME_RATE

    def frame_at(self, seconds: float, loop: bool = False) -> int:
        """The frame nearest to a moment; outside, the first or last one, or with ``loop`` that of the next round."""
        frame = round(seconds * FRAME_RATE)
        return frame % len(self) if loop else min(max(frame, 0), len(self) - 1)

    def seconds_of(self, frame: int) -> float:
        """The moment that a frame stands for."""
        return frame / FRAME_RATE

    def conditions(self, frame: int) -> Conditions:
        """What drives the head at ``frame`` in 0..N-1."""
        return self.track.at_frame(int(self.rows[frame]))

    def fingerprint(self) -> str:
        """Of everything that its pictures depend on, except the trained avatar."""
        digest = hashlib.sha256()
        for part in (self.track.audio, self.track.expression, self.track.eyelids):
            for frames in part.split(_HASHED):
                digest.update(frames.cpu().contiguous().numpy())
        for rows in (self.rows, self.recorded):
            digest.update(rows.tobytes())
        for view in self.views or ():
            digest.update(torch.cat([view.viewmat.flatten(), view.K.flatten()]).cpu().numpy().tobytes())
            digest.update(f"{view.width} {view.height}".encode())
        digest.update(str((self.freed, self.spoken)).encode())
        return digest.hexdigest()


@lru_cache(maxsize=2)
def recorded_track(recording: Recording) -> DrivingTrack:
    """The driving signals of the whole recording; one track for all who ask for the same recording."""
    parts = (recording.expression, recording.eyelids, recording.jaw)
    return DrivingTrack(windows_tensor(recording.audio), *(torch.from_numpy(part.copy()) for part in parts))


def silent_track(recording: Recording) -> DrivingTrack | None:
    """The recorded track with silent audio; None for audio features whose silence is not known."""
    windows = silent_windows(recording.audio_name, recording.audio.shape)
    return None if windows is None else recorded_track(recording).with_audio(torch.from_numpy(windows))


def _nearest(known: Rows, rows: Rows) -> Rows:
    """For each of ``rows`` the nearest of ``known`` (sorted, not empty); of two as near, the former."""
    after = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    before = known[np.maximum(after - 1, 0)]
    return np.where(rows - before <= known[after] - rows, before, known[after])


@lru_cache(maxsize=2)
def _decoded(recording: Recording) -> Sound:
    """The recording's whole audio, once for all its parts."""
    return load_sound(recording.layout.audio, UNLIMITED)


def _recorded_sound(recording: Recording, first: int, frames: int) -> tuple[Soundtrack | None, tuple[str, ...]]:
    """The recording's audio during ``frames`` frames from ``first`` on, or None with a note that says why."""
    path = recording.layout.audio
    if not path.exists():
        return None, (f"{path}: missing; there is no audio",)
    try:
        sound = _decoded(recording)
    except UserError as error:
        return None, (f"{error}; there is no audio",)
    return Soundtrack(sound, first / FRAME_RATE, frames / FRAME_RATE), ()
