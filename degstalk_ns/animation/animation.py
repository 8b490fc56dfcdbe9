"""A take: everything that one export shows, frame by frame - what drives the head, what lies behind it, from where it
is seen, and the sound - from a new sound, a part of the recording, or a camera path.

It must not know nerfstudio, how a frame is rendered, nor how a video is written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from degstalk_ns.animation.camera_path import CameraPath
from degstalk_ns.animation.new_sound import Performance
from degstalk_ns.animation.ping_pong import Rows
from degstalk_ns.audio.sound import Sound
from degstalk_ns.avatar.camera import View
from degstalk_ns.avatar.driving import DrivingTrack
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.export.writer import Soundtrack
from degstalk_ns.rates import FRAME_RATE

Split = Literal["train", "val", "all"]


@dataclass(frozen=True, eq=False)
class Take:
    """Attributes:
    track: what drives the head. rows: [N] its row at each frame.
    recorded: [N] row of the recording that lends camera and plate.
    freed: whether the plates must be free of the recorded jaw (new sound).
    views: one a frame, or None for the recorded cameras.
    soundtrack: or None for a silent video.
    spoken: what drives it, in words.
    notes: what the user should know, one line each.
    """

    track: DrivingTrack
    rows: Rows
    recorded: Rows
    freed: bool
    views: list[View] | None
    soundtrack: Soundtrack | None
    spoken: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def between(self, start: float, end: float | None) -> Take:
        """The part from ``start`` to ``end`` seconds, to the nearest frame.

        Raises:
            UserError: nothing lies between.
        """
        first = round(start * FRAME_RATE)
        last = len(self) if end is None else min(round(end * FRAME_RATE), len(self))
        if first < 0 or first >= last:
            raise UserError(
                f"--start {start:g} and --end {'the end' if end is None else f'{end:g}'}: nothing lies between them in "
                f"the {len(self) / FRAME_RATE:.2f} s there are"
            )
        sound = self.soundtrack
        if sound is not None:
            seconds = min((last - first) / FRAME_RATE, sound.seconds - first / FRAME_RATE)
            sound = replace(sound, start=sound.start + first / FRAME_RATE, seconds=seconds)
        cut = slice(first, last)
        views = None if self.views is None else self.views[cut]
        return replace(self, rows=self.rows[cut], recorded=self.recorded[cut], views=views, soundtrack=sound)

    def seen_from(self, path: CameraPath) -> Take:
        """The same, seen along a camera path that is spread over it."""
        return replace(self, views=path.at(len(self))[0])

    def fingerprint(self) -> str:
        """Of everything that its pictures and its sound depend on, but the head."""
        digest = hashlib.sha256()
        for part in (self.track.audio, self.track.expression, self.track.eyelids):
            digest.update(part.contiguous().numpy().tobytes())
        for rows in (self.rows, self.recorded):
            digest.update(rows.tobytes())
        for view in self.views or ():
            digest.update(torch.cat([view.viewmat.flatten(), view.K.flatten()]).numpy().tobytes())
            digest.update(f"{view.width} {view.height}".encode())
        digest.update(str((self.freed, self.spoken)).encode())
        return digest.hexdigest()


def take_of_sound(sound: Sound, performance: Performance) -> Take:
    """A new sound, performed."""
    return Take(
        track=performance.track,
        rows=np.arange(len(performance.rows)),
        recorded=performance.rows,
        freed=True,
        views=None,
        soundtrack=Soundtrack(sound.source, sound.name, 0.0, sound.seconds),
        spoken="new audio",
        notes=performance.notes,
    )


def take_of_recording(recording: Recording, track: DrivingTrack, split: Split) -> Take:
    """A part of the recording, as it was: every frame from the split's first to its last.

    Where a frame has no files (dropped by the dataset's maker), its neighbour's camera and plate are shown.
    """
    tables = {"train": (recording.train,), "val": (recording.val,), "all": (recording.train, recording.val)}[split]
    known = np.sort(np.concatenate([table.aud_ids for table in tables]))
    rows = np.arange(known[0], known[-1] + 1)
    return Take(
        track=track,
        rows=rows,
        recorded=_nearest(known, rows),
        freed=False,
        views=None,
        soundtrack=_recorded_sound(recording.layout.audio, int(rows[0]), len(rows)),
        spoken=f"the recorded track ({split})",
        notes=() if recording.layout.audio.exists() else (f"{recording.layout.audio}: missing; the video is silent",),
    )


def take_of_path(recording: Recording, track: DrivingTrack, path: CameraPath, name: Path) -> Take:
    """A camera path with times: moments of the recording as the path asks for them, at its speed, silent.

    Raises:
        UserError: the path has no times.
    """
    views, times = path.at(path.frames)
    if times is None:
        raise UserError(
            f"{name}: its cameras have no times, so they do not tell what the head does; add --audio or --track, over "
            "which the path is then spread, or export it with times (a keyframe's time in the viewer's Render tab)"
        )
    rows = np.array([track.frame_at(float(time)) for time in times], np.int64)
    known = np.sort(np.concatenate([recording.train.aud_ids, recording.val.aud_ids]))
    return Take(track, rows, _nearest(known, rows), False, views, None, "recorded moments along a camera path")


def _nearest(known: Rows, rows: Rows) -> Rows:
    """For each of ``rows`` the nearest of ``known`` (sorted, not empty); of two as near, the former."""
    after = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    before = known[np.maximum(after - 1, 0)]
    return np.where(rows - before <= known[after] - rows, before, known[after])


def _recorded_sound(path: Path, first: int, frames: int) -> Soundtrack | None:
    if not path.exists():
        return None
    return Soundtrack(path, path.name, first / FRAME_RATE, frames / FRAME_RATE)
