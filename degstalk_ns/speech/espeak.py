"""Text -> speech with the exact time of every phoneme, by the library of espeak-ng where it is installed.

It must not know faces, networks or what the phonemes are used for.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import POINTER, Structure, Union, c_char, c_char_p, c_int, c_short, c_uint, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import librosa
import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE

LIBRARY_VARIABLE: Final[str] = "DEGSTALK_ESPEAK"
"""Environment variable with the path of the library, where it is not found by its name."""
LONGEST_TEXT: Final[int] = 20_000
"""Characters that one call speaks at most: about 20 minutes."""
INSTALL: Final[str] = "install espeak-ng (Debian, Ubuntu: apt install espeak-ng; macOS: brew install espeak-ng)"

_SYNCHRONOUS: Final[int] = 2
_IPA_EVENTS: Final[int] = 1 | 2 | 0x8000  # phoneme events, in the IPA; do not end the process where voices are missing
_UTF8: Final[int] = 1
_PHONEME: Final[int] = 7
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4


class _Id(Union):
    _fields_ = (("number", c_int), ("name", c_char_p), ("string", c_char * 8))


class _Event(Structure):
    _fields_ = (
        ("type", c_int),
        ("unique_identifier", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(_Event))


@dataclass(frozen=True)
class SpeakerConfig:
    """How espeak-ng speaks."""

    voice: str = "en-us"
    """Name of a language or voice of espeak-ng, with a variant after a plus sign (en-us+f3 is a female voice)."""
    words_per_minute: int = 150
    """Speed, in words per minute (80 to 450); people talk at about 150."""
    pitch: int = 50
    """Pitch of the voice, 0 to 100."""
    pitch_range: int = 50
    """Liveliness of the intonation, 0 (monotone) to 100."""


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech and what is said in it.

    Attributes:
        samples: [S] float32 in [-1, 1], 16 kHz mono.
        starts: [P] second at which each phoneme starts, ascending; each lasts until the next one.
        phonemes: [P] espeak-ng's names of the phonemes; "" is a pause.
    """

    samples: NDArray[np.float32]
    starts: NDArray[np.float64]
    phonemes: tuple[str, ...]


def espeak_availability() -> str | None:
    """None if espeak-ng can speak here, else why not and what to do, in one line."""
    try:
        _library()
    except UserError as error:
        return str(error)
    return None


def speak(text: str, config: SpeakerConfig | None = None) -> Speech:
    """Speaks ``text``.

    Raises:
        UserError: espeak-ng is not installed, does not have the voice, the text is empty, too long or nothing in it
            can be spoken.
    """
    config = config or SpeakerConfig()
    if not text.strip():
        raise UserError("the text is empty; expected something to say")
    if len(text) > LONGEST_TEXT:
        raise UserError(f"the text has {len(text)} characters; at most {LONGEST_TEXT} are spoken at once")
    library, rate = _library()
    if library.espeak_SetVoiceByName(config.voice.encode()) != 0:
        raise UserError(
            f"espeak-ng has no voice {config.voice!r}; `espeak-ng --voices` lists the languages, and a variant follows "
            "a plus sign (en-us+f3)"
        )
    for parameter, value in (
        (_RATE, config.words_per_minute),
        (_PITCH, config.pitch),
        (_PITCH_RANGE, config.pitch_range),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    pieces: list[NDArray[np.int16]] = []
    events: list[tuple[float, str]] = []

    def receive(wave: Any, count: int, event: Any) -> int:
        if count > 0 and wave:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while event[index].type != 0:
            if event[index].type == _PHONEME:
                name = event[index].id.string.decode("utf-8", "replace")
                events.append((event[index].audio_position / 1000, name.strip("_:;, ")))
            index += 1
        return 0

    callback = _Callback(receive)  # held until the speech is done
    library.espeak_SetSynthCallback(callback)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    if not pieces or not events:
        raise UserError(f"espeak-ng ({config.voice}) has nothing to say for this text; expected words of that language")
    samples = np.concatenate(pieces).astype(np.float32) / 2**15
    samples = librosa.resample(samples, orig_sr=rate, target_sr=SAMPLE_RATE).clip(-1.0, 1.0).astype(np.float32)
    events.sort(key=lambda e: e[0])
    return Speech(samples, np.array([start for start, _ in events]), tuple(name for _, name in events))


@lru_cache(maxsize=1)
def _library() -> tuple[Any, int]:
    """The library, initialised once in a process, and its sample rate in Hz."""
    named = os.environ.get(LIBRARY_VARIABLE) or ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
    try:
        library = ctypes.CDLL(named)
    except OSError:
        raise UserError(f"espeak-ng's library is not installed; {INSTALL}, or name it in {LIBRARY_VARIABLE}") from None
    library.espeak_SetSynthCallback.argtypes = (_Callback,)
    library.espeak_Synth.argtypes = (
        c_char_p, ctypes.c_size_t, c_uint, c_int, c_uint, c_uint, POINTER(c_uint), c_void_p,
    )  # fmt: skip
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _IPA_EVENTS)
    if rate <= 0:
        raise UserError(f"espeak-ng cannot start: its voices are missing; {INSTALL}")
    return library, int(rate)
