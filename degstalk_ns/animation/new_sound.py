"""Turns new audio into the driving track of an avatar: audio windows, the mouth's expression (`mouth_model.py`) from
what is heard (`hearing.py`), and recorded moments that provide head motion, eyes and plate (`ping_pong.py`).

It must not know nerfstudio, images, or files other than precomputed audio features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.animation.hearing import ChosenEars, Ears, check_look_ahead, choose_ears, frames_heard, recording_heard
from degstalk_ns.animation.mouth_model import Heard, MouthModel, MouthModelConfig
from degstalk_ns.animation.ping_pong import PingPongConfig, Rows, calm_turns, longest_run, ping_pong
from degstalk_ns.audio.features import FEATURES, computed_windows, read_windows
from degstalk_ns.audio.loudness import frame_levels, speech_level
from degstalk_ns.audio.mel import frame_count, mel_windows
from degstalk_ns.audio.sound import UNLIMITED, Sound, load_sound
from degstalk_ns.avatar.driving import DrivingTrack, no_sound, windows_tensor
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.metrics.lips_and_eyes import CLOSED_LIPS

UpperFace = Literal["source", "neutral"]
MOUTH_NAMES: Final[tuple[str, ...]] = ("jaw", "mouth", "innerLip", "AU1", "AU2")
"""Beginnings of the names of expression coefficients that belong to the mouth: all action units from 10 on do, but
45."""
USUAL_LEVEL_DB: Final[float] = -4.0
"""Level of speech, in dB, where a recording does not tell its own. Three videos measured -5, -2 and -5."""
MOST_GAIN_DB: Final[float] = 20.0
"""Maximum change of level, in dB, by which new audio is brought to the speech level of the recording; a larger one
would turn noise into speech. Chosen for this project."""
FEATURES_TOLERANCE: Final[int] = 10
"""Number of video frames by which precomputed features may be shorter or longer than the audio. Chosen for this
project."""


@dataclass(frozen=True)
class NewSoundConfig:
    """These options control how new audio drives the avatar."""

    ears: Ears = "auto"
    """What the mouth follows: whisper (the phonetic vectors of Whisper's base model), mel (log-mel bands), or auto
    (whisper where its model is at hand or can be downloaded)."""
    look_ahead: float | None = None
    """Maximum time, in seconds, by which the mouth may depend on sound that comes later, as live use needs it. Then the
    face is driven by the mouth's values alone, for which it must have been trained without sound too (degstalk-fast).
    The level of the speech is still that of the whole sound. None for no limit."""
    mouth: MouthModelConfig = field(default_factory=MouthModelConfig)
    """How the mouth follows the audio. The defaults were chosen for this project on three recordings, unless an option
    says otherwise."""
    ping_pong: PingPongConfig = field(default_factory=PingPongConfig)
    """Where the recorded head motion reverses: it is played forward and backward in turn for as long as the audio
    lasts. The defaults were chosen for this project."""


def driven_by_sound(
    sound: Sound,
    recording: Recording,
    upper_face: UpperFace = "source",
    features: Path | str | None = None,
    config: NewSoundConfig | None = None,
) -> tuple[DrivingTrack, Rows, tuple[str, ...]]:
    """Computes the driving track of an avatar for new audio.

    Audio: the windows that the avatar was trained on, at the recording's level of speech (see :data:`MOST_GAIN_DB`).
    Mouth: expression values that :class:`~degstalk_ns.animation.mouth_model.MouthModel` predicts from the audio; none
    of the recorded mouth is left in them. Where the dataset does not name its expression values (each coefficient of a
    3DMM moves everything), what audio and opening explain of them is exchanged instead, and a trace of the recorded
    mouth stays; a note says so. Eyelids, head motion and plate: the training part of the recording, forward and
    backward in turn, so blinks go on.

    Args:
        sound: the new audio.
        recording: the dataset that the avatar was trained on.
        upper_face: "source" takes brows, eyes and cheeks from the recorded moment too, "neutral" holds them at the
            recording's mean.
        features: audio windows that were computed elsewhere (.npy [N, L, C]), for avatars that were trained on features
            which are not computed here.
        config: how the audio drives the avatar; the defaults for None.

    Returns:
        The track, as long as the audio at 25 frames per second; [N] row of the recording whose camera, plate, eyes and
        upper face accompany each frame; notes for the user, one line each.

    Raises:
        UserError: features that cannot be computed here and were not given, or do not fit.
    """
    config = config or NewSoundConfig()
    rows, first, last = _moments(recording, frame_count(len(sound.samples)), config.ping_pong)
    windows, samples, levels, notes = _heard(sound, recording, None if features is None else Path(features))
    held = recording.expression[recording.train.aud_ids].mean(0)
    expression = recording.expression[rows] if upper_face == "source" else np.tile(held, (len(rows), 1))
    expression = expression.copy()
    if follows_features_alone(recording):
        check_features_alone(recording, config.look_ahead)
    else:
        ears, ears_notes = choose_ears(recording, config.ears)
        mouth, heard, mouth_notes = fitted_mouth(recording, ears, config.mouth, config.look_ahead)
        notes += ears_notes + mouth_notes
        columns = mouth_columns(recording)
        spoken, _ = mouth.values(frames_heard(samples, windows, ears, config.look_ahead), levels)
        if len(columns) < expression.shape[1]:
            expression[:, columns] = spoken
        elif upper_face == "source":
            stretch = slice(first, last + 1)
            expression += spoken - mouth.explained(heard.rows(stretch), recording.mouth_opening[stretch])[rows - first]
        else:
            expression = spoken
        if not named_columns(recording):
            notes += (
                f"{recording.layout.root}: the dataset does not name its expression values, so all of them follow the "
                "new audio and a trace of the recorded mouth stays; `degstalk process` names them",
            )
    track = DrivingTrack(
        audio=windows_tensor(windows) if config.look_ahead is None else no_sound(windows.shape),
        expression=torch.from_numpy(np.ascontiguousarray(expression, np.float32)),
        eyelids=torch.from_numpy(recording.eyelids[rows]),
        jaw=torch.from_numpy(recording.jaw[rows]),
    )
    return track, rows, (*sound.notes, *notes)


@lru_cache(maxsize=4)
def fitted_mouth(
    recording: Recording, ears: ChosenEars, config: MouthModelConfig, look_ahead: float | None = None
) -> tuple[MouthModel, Heard, tuple[str, ...]]:
    """The model of the mouth, fitted to the training part of a recording; what is heard of all its frames; notes."""
    check_look_ahead(look_ahead, ears)
    heard, notes = recording_heard(recording, ears, look_ahead)
    train, columns = recording.train.aud_ids, mouth_columns(recording)
    names = [recording.expression_names[k] for k in named_columns(recording)]
    opening = recording.mouth_opening
    mouth = MouthModel.fit(heard.rows(train), opening[train], recording.expression[train][:, columns], names, config)
    if mouth.skill < config.least_skill:
        taught = "it speaks as any speaker would" if ears == "whisper" else "its lips hardly follow the audio"
        notes += (
            f"{recording.layout.root}: {len(train) / FRAME_RATE:.0f} s of speech teach too little of how this mouth "
            f"moves (r {mouth.skill:.2f} in cross-validation); {taught}",
        )
    least = float(np.percentile(opening[train], config.closed_percentile)) / max(mouth.widest, 1e-6)
    if least > CLOSED_LIPS:
        notes += (
            f"{recording.layout.root}: the recorded lips hardly ever shut; they close to {least:.0%} of their widest "
            "opening",
        )
    return mouth, heard, notes


def named_columns(recording: Recording) -> list[int]:
    """Columns of the expression that belong to the mouth by their names."""
    return [k for k, name in enumerate(recording.expression_names) if name.startswith(MOUTH_NAMES)]


def follows_features_alone(recording: Recording) -> bool:
    """Whether the lips follow the avatar's audio features and nothing else: where action units drive the face, and none
    of them is of the mouth."""
    return recording.options.signals == "action-units" and not named_columns(recording)


def check_features_alone(recording: Recording, look_ahead: float | None) -> None:
    """Refuse a look-ahead where lips follow the avatar's audio features alone.

    Raises:
        UserError: there is one.
    """
    if look_ahead is not None:
        raise UserError(
            f"a look-ahead needs expression values of the mouth: the lips of this avatar follow its audio features "
            f"({recording.audio_name}) alone, whose windows hear later sound"
        )


def mouth_columns(recording: Recording) -> Rows:
    """Columns of the expression that belong to the mouth; all of them if the dataset does not name them."""
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
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
    """Audio windows [N, L, C], samples [S] at the level of the recorded speech, levels [N] in dB relative to it, and
    notes."""
    heard = mel_windows(sound.samples)
    levels = frame_levels(heard)
    own = speech_level(levels)
    reference = recorded_level(recording)
    gain = float(np.clip(reference - own, -MOST_GAIN_DB, MOST_GAIN_DB))
    samples = (sound.samples * 10 ** (gain / 20)).astype(np.float32)
    notes: tuple[str, ...] = ()
    if features is not None:
        windows = _fitted(read_windows(features), len(heard), recording, features)
    elif recording.audio_name in FEATURES:
        windows = computed_windows(recording.audio_name, samples, len(heard))
        if windows.shape[1:] != recording.audio.shape[1:]:
            raise UserError(
                f"this avatar was trained on audio windows of {list(recording.audio.shape[1:])}, and those of "
                f"{recording.audio_name} are {list(windows.shape[1:])}: its dataset was made by another version of "
                "degstalk-ns; process it again"
            )
    else:
        raise UserError(
            f"this avatar was trained on {recording.audio_name!r} audio features, which degstalk-ns cannot compute: "
            f"give them with --audio-features FILE.npy (as aud_{recording.audio_name}.npy, made by its extractor for "
            f"this audio), or train an avatar on others (ns-train ... talking-head --audio {' or '.join(FEATURES)})"
        )
    levels = frame_levels(mel_windows(samples))
    if abs(reference - own) > MOST_GAIN_DB and not sound.notes:
        change = "louder" if reference > own else "softer"
        notes = (f"{sound.name}: was made only {MOST_GAIN_DB:g} dB {change}; its level is far from the recording's",)
    return windows, samples, levels - reference, notes


def recorded_level(recording: Recording) -> float:
    """Level of the recorded speech, dB; that of usual speech where the dataset holds no sound to tell it."""
    levels = _recorded_levels(recording)
    return USUAL_LEVEL_DB if levels is None else speech_level(levels)


def recorded_levels(recording: Recording) -> NDArray[np.float32]:
    """[T] level of each recorded frame relative to the recorded speech, dB; 0 where the dataset holds no sound."""
    levels = _recorded_levels(recording)
    return np.zeros(recording.num_frames, np.float32) if levels is None else levels - speech_level(levels)


@lru_cache(maxsize=2)
def _recorded_levels(recording: Recording) -> NDArray[np.float32] | None:
    if recording.audio_name == "mel":
        return frame_levels(recording.audio)
    if not recording.layout.audio.is_file():
        return None
    samples = load_sound(recording.layout.audio, UNLIMITED).samples
    return frame_levels(mel_windows(samples, recording.num_frames))


def _fitted(windows: NDArray[np.float32], count: int, recording: Recording, path: Path) -> NDArray[np.float32]:
    if windows.shape[1:] != recording.audio.shape[1:]:
        raise UserError(
            f"{path}: audio windows are {list(windows.shape[1:])}, but this avatar was trained on "
            f"{list(recording.audio.shape[1:])} ({recording.audio_name})"
        )
    if abs(len(windows) - count) > FEATURES_TOLERANCE:
        raise UserError(
            f"{path}: holds {len(windows)} frames, but the audio lasts {count} at 25 per second; give the features of "
            "this audio"
        )
    if len(windows) < count:
        windows = np.concatenate([windows, windows[-1:].repeat(count - len(windows), 0)])
    return np.ascontiguousarray(windows[:count])
