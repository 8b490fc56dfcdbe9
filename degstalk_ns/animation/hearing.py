"""What a recording and a new sound sound like to the model of the mouth: phonetic vectors a frame, from the same ears.

It must not know networks that render, images, or how the mouth is predicted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.animation.mouth_model import Heard
from degstalk_ns.audio.mel import log_mel
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.audio.whisper import VECTORS_PER_SECOND, whisper_availability, whisper_vectors
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.speech.lip_motion import lip_motion
from degstalk_ns.speech.lip_sync import LipSync, recorded_lip_sync

Ears = Literal["auto", "whisper", "mel"]
ChosenEars = Literal["whisper", "mel", "own"]
"""Whisper's vectors, log-mel bands, or the features that the avatar was trained on."""
_PER_FRAME: Final[int] = VECTORS_PER_SECOND // int(FRAME_RATE)


def choose_ears(recording: Recording, ears: Ears) -> tuple[ChosenEars, tuple[str, ...]]:
    """Which vectors the mouth of this recording is predicted from, and a note where "auto" had to do without Whisper's.

    Raises:
        UserError: Whisper was asked for, and its model or the recording's sound cannot be had.
    """
    sound = recording.layout.audio
    if not sound.is_file() and (recording.phonetic is None or ears == "mel"):
        if ears != "auto":
            raise UserError(f"{sound}: missing; expected the recording's sound, for what the mouth follows ({ears})")
        return "own", (f"{sound}: missing; the lips follow the avatar's own audio features ({recording.audio_name})",)
    if ears == "mel":
        return "mel", ()
    missing = whisper_availability()
    if missing is None:
        return "whisper", ()
    if ears == "whisper":
        raise UserError(missing)
    return "mel", (
        "without a Whisper model the lips follow log-mel bands: they know this voice only, shut less at p, b and m, "
        f"and the sound's offset is not checked ({missing})",
    )


def frames_heard(samples: NDArray[np.float32], windows: NDArray[np.float32], ears: ChosenEars) -> Heard:
    """What is heard of the N frames of a sound.

    Args:
        samples: [S], 16 kHz. windows: [N, L, C] the avatar's own features of the sound.
    """
    if ears == "own":
        return _of_windows(windows)
    return _of_vectors(whisper_vectors(samples) if ears == "whisper" else log_mel(samples), len(windows), ears, 0.0)


@lru_cache(maxsize=4)
def recording_heard(recording: Recording, ears: ChosenEars) -> tuple[Heard, LipSync | None, tuple[str, ...]]:
    """What is heard of each frame of a recording, in step with its picture.

    Returns:
        What is heard; the offset of the recording's sound, None where it is not known; a note where it is noticeable.

    Raises:
        UserError: the recording's ``aud.wav`` cannot be read, and its vectors are not stored.
    """
    if ears == "own":
        return _of_windows(recording.audio), None, ()
    vectors: NDArray[np.floating]
    if ears == "whisper" and recording.phonetic is not None:
        vectors = recording.phonetic
    else:
        samples = load_sound(recording.layout.audio, UNLIMITED).samples
        vectors = whisper_vectors(samples) if ears == "whisper" else log_mel(samples)
    count = recording.num_frames
    if ears == "mel":
        return _of_vectors(vectors, count, ears, 0.0), None, ()
    width = recording.lips_rect[:, 3] - recording.lips_rect[:, 2]
    found = recorded_lip_sync(recording.mouth_opening, width, lip_motion(vectors), FRAME_RATE)
    if found is None or not found.noticeable:
        return _of_vectors(vectors, count, ears, 0.0), found, ()
    note = (
        f"{recording.layout.root}: the recorded sound is {found}; new audio is spoken in step (`degstalk process` "
        "mends the dataset)"
    )
    return _of_vectors(vectors, count, ears, found.seconds), found, (note,)


def _of_windows(windows: NDArray[np.float32]) -> Heard:
    middle = windows.shape[1] // 2
    return Heard(windows[:, max(middle - 1, 0) : middle + 1].mean(1), phonetic=False)


def _of_vectors(vectors: NDArray[np.floating], count: int, ears: str, late: float) -> Heard:
    """Vectors at the moments of the frames; ``late`` seconds after them where the sound is that late."""
    whisper = ears == "whisper"
    lips = lip_motion(vectors) if whisper and vectors.shape[1] == 512 else None
    shift = round(late * VECTORS_PER_SECOND)
    return Heard(_at_frames(vectors, count, shift), whisper, None if lips is None else _at_frames(lips, count, shift))


def _at_frames(vectors: NDArray[np.floating], count: int, shift: int) -> NDArray[np.float32]:
    """[count, C] the vectors around each frame's moment, weighed 1 : 2 : 1."""
    centre = _PER_FRAME * np.arange(count) + shift
    parts = [vectors[np.clip(centre + k, 0, len(vectors) - 1)].astype(np.float32) for k in (-1, 0, 1)]
    return 0.25 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2]
