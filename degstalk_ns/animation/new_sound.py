"""New sound -> what drives the head over its length, and which recorded moments lend head motion, eyes and plate.

It must not know nerfstudio, images or files but the one of precomputed features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.animation.mouth_model import MouthModel, MouthModelConfig
from degstalk_ns.animation.ping_pong import PingPongConfig, Rows, calm_turns, longest_run, ping_pong
from degstalk_ns.audio.features import read_windows
from degstalk_ns.audio.loudness import frame_levels, speech_level
from degstalk_ns.audio.mel import frame_count, mel_windows
from degstalk_ns.audio.sound import Sound
from degstalk_ns.avatar.driving import DrivingTrack
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError

UpperFace = Literal["source", "neutral"]
MOUTH_NAMES: Final[tuple[str, ...]] = ("jaw", "mouth", "innerLip")
"""How the names of expression values that belong to the mouth begin."""
MOST_GAIN_DB: Final[float] = 20.0
"""A new sound is brought to the recording's level of speech by at most so much: noise must not become speech."""
FEATURES_TOLERANCE: Final[int] = 10
"""Frames by which precomputed features may be shorter or longer than the sound."""


@dataclass(frozen=True)
class NewSoundConfig:
    """How a new sound drives the head."""

    mouth: MouthModelConfig = field(default_factory=MouthModelConfig)
    ping_pong: PingPongConfig = field(default_factory=PingPongConfig)


def driven_by_sound(
    sound: Sound,
    recording: Recording,
    upper_face: UpperFace = "source",
    features: Path | None = None,
    config: NewSoundConfig | None = None,
) -> tuple[DrivingTrack, Rows, tuple[str, ...]]:
    """What drives the head over a new sound.

    Audio: the windows that the avatar was trained on, at the recording's level of speech (see :data:`MOST_GAIN_DB`).
    Mouth: expression values that :class:`~degstalk_ns.animation.mouth_model.MouthModel` predicts from the audio; none
    of the recorded mouth is left in them. Where the dataset does not name its expression values (each coefficient of a
    3DMM moves everything), what audio and opening explain of them is exchanged instead, and a trace of the recorded
    mouth stays; a note says so. Eyelids, head motion and plate: the training part of the recording, forward and
    backward in turn, so blinks go on.

    Args:
        upper_face: "source" takes brows, eyes and cheeks from the recorded moment too, "neutral" holds them at the
            recording's mean.
        features: windows of the sound computed elsewhere (.npy [N, L, C]), for avatars trained on other features than
            log-mel.

    Returns:
        The track, as long as the sound at 25 frames a second; [N] row of the recording whose camera, plate, eyes and
        upper face accompany each frame; notes for the user, one line each.

    Raises:
        UserError: features that cannot be computed here and were not given, or do not fit.
    """
    config = config or NewSoundConfig()
    rows, first, last = _moments(recording, frame_count(len(sound.samples)), config.ping_pong)
    windows, levels, notes = _heard(sound, recording, features)
    columns = mouth_columns(recording)
    if not named_columns(recording):
        notes += (
            f"{recording.layout.root}: the dataset does not name its expression values, so all of them follow the new "
            "audio and a trace of the recorded mouth stays; `degstalk process` names them",
        )
    train = recording.train.aud_ids
    values = recording.expression[train][:, columns]
    openings = recording.mouth_opening[train]
    mouth = MouthModel.fit(recording.audio[train], openings, values, config.mouth)
    spoken, _ = mouth.values(windows, levels)
    held = recording.expression[train].mean(0)
    expression = recording.expression[rows] if upper_face == "source" else np.tile(held, (len(rows), 1))
    expression = expression.copy()
    if len(columns) < expression.shape[1]:
        expression[:, columns] = spoken
    elif upper_face == "source":
        stretch = recording.audio[first : last + 1], recording.mouth_opening[first : last + 1]
        expression += spoken - mouth.explained(*stretch)[rows - first]
    else:
        expression = spoken
    track = DrivingTrack(
        audio=torch.from_numpy(windows),
        expression=torch.from_numpy(np.ascontiguousarray(expression, np.float32)),
        eyelids=torch.from_numpy(recording.eyelids[rows]),
        jaw=torch.from_numpy(recording.jaw[rows]),
    )
    return track, rows, (*sound.notes, *notes)


def named_columns(recording: Recording) -> list[int]:
    """Columns of the expression whose names say that they belong to the mouth."""
    return [k for k, name in enumerate(recording.expression_names) if name.startswith(MOUTH_NAMES)]


def mouth_columns(recording: Recording) -> Rows:
    """Columns of the expression that belong to the mouth; all of them where the dataset does not name them."""
    return np.asarray(named_columns(recording) or range(recording.expression.shape[1]), np.int64)


def _moments(recording: Recording, count: int, config: PingPongConfig) -> tuple[Rows, int, int]:
    """Rows of the recording for ``count`` frames, and the stretch of consecutive rows that they are taken from."""
    table = recording.train
    first, last = longest_run(table.aud_ids)
    place = int(np.searchsorted(table.aud_ids, first))
    c2w = table.c2w[place : place + last - first + 1]
    start, end = calm_turns(c2w, recording.blink[first : last + 1], config)
    return ping_pong(first + start, first + end, count), first, last


def _heard(
    sound: Sound, recording: Recording, features: Path | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
    """Windows [N, L, C] for the head, levels [N] over the level of speech in dB, and notes."""
    heard = mel_windows(sound.samples)
    levels = frame_levels(heard)
    own = speech_level(levels)
    mel = recording.audio_name == "mel"
    reference = speech_level(frame_levels(recording.audio)) if mel else own
    gain = float(np.clip(reference - own, -MOST_GAIN_DB, MOST_GAIN_DB))
    notes: tuple[str, ...] = ()
    if features is not None:
        windows = _fitted(read_windows(features), len(heard), recording, features)
    elif mel:
        windows = mel_windows((sound.samples * 10 ** (gain / 20)).astype(np.float32))
        if windows.shape[1:] != recording.audio.shape[1:]:
            raise UserError(
                f"this head listens to windows of {list(recording.audio.shape[1:])}, and log-mel windows are "
                f"{list(windows.shape[1:])}: its dataset was made by another version of degstalk-ns; process it again"
            )
        levels = frame_levels(windows)
    else:
        raise UserError(
            f"this head listens to {recording.audio_name!r} features, which degstalk-ns cannot compute: give them with "
            f"--audio-features FILE.npy (as aud_{recording.audio_name}.npy, made by its extractor for this sound), or "
            "train a head on log-mel (ns-train ... talking-head --audio mel)"
        )
    if abs(reference - own) > MOST_GAIN_DB and not sound.notes:
        change = "louder" if reference > own else "softer"
        notes = (f"{sound.name}: was made only {MOST_GAIN_DB:g} dB {change}; its level is far from the recording's",)
    return windows, levels - reference, notes


def _fitted(windows: NDArray[np.float32], count: int, recording: Recording, path: Path) -> NDArray[np.float32]:
    if windows.shape[1:] != recording.audio.shape[1:]:
        raise UserError(
            f"{path}: windows are {list(windows.shape[1:])}, this head listens to {list(recording.audio.shape[1:])} "
            f"({recording.audio_name})"
        )
    if abs(len(windows) - count) > FEATURES_TOLERANCE:
        raise UserError(
            f"{path}: holds {len(windows)} frames, the sound lasts {count} at 25 a second; not of this sound?"
        )
    if len(windows) < count:
        windows = np.concatenate([windows, windows[-1:].repeat(count - len(windows), 0)])
    return np.ascontiguousarray(windows[:count])
