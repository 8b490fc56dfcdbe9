"""What a recording and a new sound sound like to the model of the mouth: phonetic vectors a frame, from the same ears.

It must not know networks that render, images, or how the mouth is predicted.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.animation.mouth_model import Heard
from degstalk_ns.audio.mel import log_mel
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.audio.whisper import WhisperConfig, whisper_availability, whisper_vectors
from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.speech.lip_motion import lip_motion
from degstalk_ns.speech.lip_sync import recorded_lip_sync

Ears = Literal["auto", "whisper", "mel"]
ChosenEars = Literal["whisper", "mel", "own"]
"""Whisper's vectors, log-mel bands, or the features that the avatar was trained on."""
_AROUND: Final[NDArray[np.float64]] = np.array([0.25, 0.5, 0.25])
LIPS_AHEAD: Final[float] = 0.08
"""Seconds by which :func:`~degstalk_ns.speech.lip_motion.lip_motion` looks ahead: four vectors."""
SHORTEST_AHEAD: Final[float] = 0.04
"""Shortest look-ahead, seconds: a log-mel vector and the level of a frame hear so far."""
MOST_FRAMES_AFTER: Final[int] = 2
"""Most later frames whose vectors tell a mouth that may hear only so far ahead, as many as without a limit."""
MOST_WHISPER_AHEAD: Final[float] = 0.16
"""Most seconds of later sound that Whisper hears under a limit. On a recording of 45 s, vectors that heard 0.24 s told
the held-out opening worse (r 0.60 and not 0.76 with the neighbours): they differ more from part to part."""
_PER_FRAME: Final[int] = VECTORS_PER_SECOND // int(FRAME_RATE)


def check_look_ahead(ahead: float | None, ears: ChosenEars) -> None:
    """Refuse a look-ahead that cannot be kept.

    Raises:
        UserError: it is too short or not finite, or what is heard is not computed here.
    """
    if ahead is None:
        return
    if ears == "own":
        raise UserError(
            "a look-ahead needs the recording's aud.wav: how far the avatar's own features look is not known"
        )
    if not SHORTEST_AHEAD <= ahead < math.inf:
        raise UserError(f"a look-ahead of {ahead:g} s: expected at least {SHORTEST_AHEAD:g} s")


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
    if not sound.is_file():
        return "own", (
            f"{sound}: missing, and so is a Whisper model ({missing}); the lips follow the avatar's own audio features "
            f"({recording.audio_name})",
        )
    return "mel", (
        "without a Whisper model the lips follow log-mel bands: they know this voice only, shut less at p, b and m, "
        f"and the sound's offset is not checked ({missing})",
    )


def frames_heard(
    samples: NDArray[np.float32], windows: NDArray[np.float32], ears: ChosenEars, ahead: float | None = None
) -> Heard:
    """What is heard of the N frames of a sound.

    Args:
        samples: [S], 16 kHz. windows: [N, L, C] the avatar's own features of the sound.
        ahead: seconds of later sound that a frame may depend on; None for no limit.
    """
    if ears == "own":
        return _of_windows(windows)
    return _of_vectors(_vectors(samples, ears, ahead), len(windows), ears, 0.0, ahead)


def _vectors(samples: NDArray[np.float32], ears: ChosenEars, ahead: float | None) -> NDArray[np.float32]:
    if ears == "mel":
        return log_mel(samples)
    if ahead is None:
        return whisper_vectors(samples)
    heard = _whisper_ahead(ahead)
    step = min(max(heard, 1 / VECTORS_PER_SECOND), WhisperConfig().causal_step_seconds)
    return whisper_vectors(samples, WhisperConfig(look_ahead_seconds=heard, causal_step_seconds=step))


def _frames_after(ahead: float) -> int:
    """Of the time that a frame may hear ahead, the later frames whose vectors tell its mouth too. They come first: on a
    recording of 45 s, 240 ms ahead, they told the held-out opening with r = 0.76, and the same time in Whisper's own
    context with 0.64."""
    return min(int((ahead - SHORTEST_AHEAD) * FRAME_RATE + 1e-6), MOST_FRAMES_AFTER)


def _whisper_ahead(ahead: float) -> float:
    """Of the time that is left to a frame, how far Whisper hears; the rest is for the lips of any speaker."""
    left = ahead - _frames_after(ahead) / FRAME_RATE
    return min(max(min(left, LIPS_AHEAD), left - LIPS_AHEAD), MOST_WHISPER_AHEAD)


@lru_cache(maxsize=4)
def recording_heard(
    recording: Recording, ears: ChosenEars, ahead: float | None = None
) -> tuple[Heard, tuple[str, ...]]:
    """What is heard of each frame of a recording, in step with its picture.

    Args:
        ahead: seconds of later sound that a frame may depend on; None for no limit.

    Returns:
        What is heard; a note where the recording's sound is out of step.

    Raises:
        UserError: the recording's ``aud.wav`` cannot be read, and its vectors are not stored.
    """
    if ears == "own":
        return _of_windows(recording.audio), ()
    vectors: NDArray[np.floating]
    if ears == "whisper" and recording.phonetic is not None and ahead is None:
        vectors = recording.phonetic
    else:
        vectors = _vectors(load_sound(recording.layout.audio, UNLIMITED).samples, ears, ahead)
    late = 0.0
    notes: tuple[str, ...] = ()
    if ears == "whisper":
        width = recording.lips_rect[:, 3] - recording.lips_rect[:, 2]
        found = recorded_lip_sync(recording.mouth_opening, width, lip_motion(vectors), FRAME_RATE)
        if found is not None and found.noticeable:
            late = found.seconds
            notes = (
                f"{recording.layout.root}: the recorded sound is {found}; new audio is spoken in step (`degstalk "
                "process` mends the dataset)",
            )
    return _of_vectors(vectors, recording.num_frames, ears, late, ahead), notes


def _of_windows(windows: NDArray[np.float32]) -> Heard:
    middle = windows.shape[1] // 2
    return Heard(windows[:, max(middle - 1, 0) : middle + 1].mean(1), phonetic=False)


def _of_vectors(vectors: NDArray[np.floating], count: int, ears: ChosenEars, late: float, ahead: float | None) -> Heard:
    """Vectors at the moments of the frames; ``late`` seconds after them where the sound is that late."""
    whisper = ears == "whisper"
    lips = lip_motion(vectors) if whisper else None
    shift = round(late * VECTORS_PER_SECOND)
    if ahead is None:
        at_frames = _at_frames(vectors, count, shift)
        return Heard(at_frames, whisper, None if lips is None else _at_frames(lips, count, shift))
    past = np.array([0.5, 0.5, 0.0])  # no later vector than the frame's own
    after = _frames_after(ahead) if whisper else int((ahead - SHORTEST_AHEAD) * FRAME_RATE + 1e-6)
    heard = _at_frames(vectors, count, shift, past)
    if lips is None:
        return Heard(heard, whisper, None, after)
    # Where the lips of any speaker would hear too far ahead, those of a moment before are taken.
    over = LIPS_AHEAD + _whisper_ahead(ahead) + after / FRAME_RATE - ahead
    delay = max(math.ceil(round(over * VECTORS_PER_SECOND, 6)), 0)
    return Heard(heard, whisper, _at_frames(lips, count, shift - delay, past), after)


def _at_frames(
    vectors: NDArray[np.floating], count: int, shift: int, weights: NDArray[np.float64] = _AROUND
) -> NDArray[np.float32]:
    """[count, C] mean of the vectors before, at and after each frame's moment."""
    centre = _PER_FRAME * np.arange(count) + shift
    parts = [vectors[np.clip(centre + k, 0, len(vectors) - 1)].astype(np.float32) for k in (-1, 0, 1)]
    mean = np.zeros_like(parts[0])
    for weight, part in zip(weights, parts, strict=True):
        mean += np.float32(weight) * part
    return mean
