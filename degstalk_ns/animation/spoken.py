"""The recorded track with a mouth that follows the recorded sound alone, and the controls that such a test needs.

It must not know how frames are rendered or measured.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degstalk_ns.animation.animation import recorded_track, silent_track
from degstalk_ns.animation.hearing import choose_ears
from degstalk_ns.animation.new_sound import (
    NewSoundConfig,
    check_features_alone,
    fitted_mouth,
    follows_features_alone,
    mouth_columns,
    named_columns,
    recorded_levels,
)
from degstalk_ns.audio.features import FEATURES, computed_windows
from degstalk_ns.avatar.driving import DrivingTrack, no_sound, windows_tensor
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE

HUSHED_DB = -200.0
"""Level of a frame in which nothing is said."""


def spoken_tracks(
    recording: Recording, config: NewSoundConfig | None = None
) -> tuple[dict[str, DrivingTrack], tuple[str, ...]]:
    """Tracks in which the mouth of the held-out frames is driven by sound alone; all else is as recorded.

    The model of the mouth is fitted to the training part. Where expression values have no names, what the sound
    explains of them is exchanged (:func:`~degstalk_ns.animation.new_sound.driven_by_sound`).

    Returns:
        "spoken": by the sound of the frame itself. "shuffled": by that of another held-out moment, half of the held-out
        part away. "still": the mouth is held at its mean. "hushed": lips shut, in silence. And notes, one line each.
    """
    config = config or NewSoundConfig()
    if follows_features_alone(recording):
        check_features_alone(recording, config.look_ahead)
        return _by_features_alone(recording), ()
    ears, notes = choose_ears(recording, config.ears)
    mouth, heard, more = fitted_mouth(recording, ears, config.mouth, config.look_ahead)
    rows, columns = recording.val.aud_ids.copy(), mouth_columns(recording)
    moved = np.roll(rows, len(rows) // 2)
    levels = recorded_levels(recording)
    base = recorded_track(recording)
    if config.look_ahead is not None:
        base = replace(base, audio=no_sound(tuple(base.audio.shape)))

    def exchanged(values: NDArray[np.floating], audio: Tensor) -> DrivingTrack:
        expression = base.expression.clone()
        if named_columns(recording):
            expression[np.ix_(rows, columns)] = torch.from_numpy(values.astype(np.float32))
        else:
            explained = mouth.explained(heard.rows(rows), recording.mouth_opening[rows])
            expression[rows] += torch.from_numpy((values - explained).astype(np.float32))
        return replace(base, expression=expression, audio=audio)

    def spoken(by: NDArray[np.integer], quieter: float = 0.0) -> NDArray[np.float32]:
        return mouth.values(heard.rows(by), levels[by] + quieter)[0]

    other = base.audio.clone()
    other[rows] = base.audio[moved]
    mean = recording.expression[recording.train.aud_ids][:, columns].mean(0)
    tracks = {
        "spoken": exchanged(spoken(rows), base.audio),
        "shuffled": exchanged(spoken(moved), other),
        "still": exchanged(np.tile(mean, (len(rows), 1)), base.audio),
        "hushed": exchanged(spoken(rows, HUSHED_DB), _silence(recording, base)),
    }
    return tracks, (*notes, *more)


def _by_features_alone(recording: Recording) -> dict[str, DrivingTrack]:
    """The same where no expression value is of the mouth: only the audio windows are exchanged, and without any the
    mouth is still."""
    rows, base = recording.val.aud_ids.copy(), recorded_track(recording)
    other = base.audio.clone()
    other[rows] = base.audio[np.roll(rows, len(rows) // 2)]
    return {
        "spoken": base,
        "shuffled": base.with_audio(other),
        "still": base.with_audio(no_sound(tuple(base.audio.shape))),
        "hushed": base.with_audio(_silence(recording, base)),
    }


def _silence(recording: Recording, base: DrivingTrack) -> Tensor:
    """The avatar's audio windows of silence; none at all where its features do not know one."""
    silence = silent_track(recording)
    if silence is not None:
        return silence.audio
    if recording.audio_name not in FEATURES:
        return no_sound(tuple(base.audio.shape))
    quiet = np.zeros(round(recording.num_frames * SAMPLE_RATE / FRAME_RATE), np.float32)
    return windows_tensor(computed_windows(recording.audio_name, quiet, recording.num_frames))
