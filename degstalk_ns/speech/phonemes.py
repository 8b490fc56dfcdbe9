"""What the lips do for each phoneme: classes of phonemes, and lip targets over time.

It must not know sound files, networks or a person's face.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

LIP_TARGETS: Final[tuple[str, ...]] = ("opening", "closure", "rounding", "spreading", "labiodental")
"""What a phoneme asks of the lips, each 0 to 1: how far they part; whether they press together; whether they round and
protrude; whether they spread; whether the lower one meets the upper teeth."""

_VOWELS: Final[dict[str, tuple[float, float, float]]] = {
    "a": (1.0, 0.0, 0.2), "ä": (1.0, 0.0, 0.1), "ɑ": (1.0, 0.0, 0.0), "æ": (1.0, 0.0, 0.4), "ɐ": (0.75, 0.0, 0.1),
    "ʌ": (0.75, 0.0, 0.1), "ɒ": (0.85, 0.4, 0.0), "ɔ": (0.7, 0.5, 0.0), "ɛ": (0.7, 0.0, 0.4), "ɜ": (0.55, 0.1, 0.1),
    "ə": (0.4, 0.0, 0.1), "ɚ": (0.4, 0.2, 0.0), "e": (0.5, 0.0, 0.5), "ø": (0.4, 0.7, 0.0), "œ": (0.6, 0.6, 0.0),
    "o": (0.45, 0.8, 0.0), "ɤ": (0.45, 0.0, 0.2), "ɪ": (0.4, 0.0, 0.4), "i": (0.3, 0.0, 0.8), "ɨ": (0.3, 0.0, 0.3),
    "y": (0.2, 0.9, 0.0), "ʏ": (0.3, 0.7, 0.0), "u": (0.2, 1.0, 0.0), "ʊ": (0.3, 0.7, 0.0), "ɯ": (0.3, 0.1, 0.2),
    "ʉ": (0.2, 0.8, 0.0), "ɵ": (0.4, 0.7, 0.0), "ᵻ": (0.35, 0.0, 0.3), "ɝ": (0.5, 0.2, 0.0),
}  # fmt: skip
"""Opening, rounding and spreading of vowels, from their places on the IPA's vowel chart (height, rounding, front or
back). Chosen for this project, as are the consonants' targets."""
_CONSONANTS: Final[dict[str, tuple[tuple[float, float, float, float, float], float]]] = {
    **dict.fromkeys("pbmɓɸβʙ", ((0.0, 1.0, 0.0, 0.0, 0.0), 4.0)),
    **dict.fromkeys("fvɱʋ", ((0.15, 0.0, 0.0, 0.0, 1.0), 4.0)),
    **dict.fromkeys("wʍɥ", ((0.15, 0.0, 1.0, 0.0, 0.0), 2.0)),
    **dict.fromkeys("ʃʒ", ((0.25, 0.0, 0.6, 0.0, 0.0), 1.5)),
    **dict.fromkeys("ɹɻ", ((0.3, 0.0, 0.4, 0.0, 0.0), 1.0)),
    **dict.fromkeys("szɕʑç", ((0.2, 0.0, 0.0, 0.3, 0.0), 1.5)),
    **dict.fromkeys("θð", ((0.3, 0.0, 0.0, 0.2, 0.0), 1.0)),
    **dict.fromkeys("tdnlɫɾrɖʈɳɭʂʐɬɮ", ((0.3, 0.0, 0.0, 0.1, 0.0), 0.8)),
    **dict.fromkeys("jʝɲʎcɟ", ((0.3, 0.0, 0.0, 0.5, 0.0), 0.8)),
    **dict.fromkeys("kɡgŋxɣqɢʁʀχhɦħʕʔɴʡ", ((0.4, 0.0, 0.0, 0.0, 0.0), 0.4)),
}  # fmt: skip
"""Lip targets of consonants by their place of articulation, and their dominance over their neighbours."""
_ARPABET: Final[dict[str, str]] = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð",
    "EH": "ɛ", "ER": "ɚ", "EY": "eɪ", "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i", "JH": "dʒ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "oʊ", "OY": "ɔɪ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ",
    "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ", "SIL": "",
}  # fmt: skip
"""Phones of American English as recognisers name them."""

_FALL_SECONDS: Final[float] = 0.035
"""Time in which a phoneme's dominance falls to 1/e beyond its ends; lips take 100 to 200 ms for a movement."""
_SHORTEST_PAUSE: Final[float] = 0.06
"""Seconds from which on a pause closes the lips."""
_VOWEL_MARGIN: Final[float] = 0.02
"""Seconds at either end of a vowel in which its neighbours' transitions lie."""
_NO_DOMINANCE: Final[float] = 1e-3

BILABIAL: Final[frozenset[str]] = frozenset("pbm")
OPEN_VOWELS: Final[frozenset[str]] = frozenset("aäɑæɐʌɒ")


def ipa(name: str) -> str:
    """A phoneme's name in the IPA, without stress and length; "" is a pause. ARPABET's names are translated."""
    name = name.strip()
    plain = name.rstrip("012")
    if plain in _ARPABET and plain.isupper():
        return _ARPABET[plain]
    if name.startswith("("):  # espeak-ng changes its language here
        return ""
    return "".join(letter for letter in name if letter in _VOWELS or letter in _CONSONANTS)


def is_bilabial(name: str) -> bool:
    """Whether lips shut for this phoneme: p, b, m."""
    return ipa(name)[:1] in BILABIAL


def is_open_vowel(name: str) -> bool:
    """Whether lips part widely: a vowel that is low, or a diphthong that begins with one."""
    return ipa(name)[:1] in OPEN_VOWELS


def lip_targets(
    starts: NDArray[np.floating], phonemes: Sequence[str], seconds: float, rate: float
) -> NDArray[np.float32]:
    """What the lips do over time when these phonemes are said.

    Each phoneme pulls the lips towards its target, with a dominance that falls off before and after it, so that
    neighbours blend (Cohen and Massaro, Modeling Coarticulation in Synthetic Visual Speech, 1993).

    Args:
        starts: [P] second at which each begins, ascending; it lasts until the next one.
        phonemes: [P] names as :func:`ipa` takes them.
        seconds: length of the speech.
        rate: values a second.

    Returns:
        float32 [round(seconds * rate), 5], in the order of :data:`LIP_TARGETS`, row ``j`` at ``j / rate`` s.
    """
    times = np.arange(round(seconds * rate)) / rate
    pulled, dominance = np.zeros((len(times), len(LIP_TARGETS))), np.full(len(times), _NO_DOMINANCE)
    ends = np.append(starts, seconds)[1:]
    for start, end, name in zip(starts, ends, phonemes, strict=True):
        for target, strength, first, last in _gestures(name, float(start), float(end)):
            distance = np.maximum(np.maximum(first - times, times - last), 0.0)
            pull = strength * np.exp(-distance / _FALL_SECONDS)
            pulled += pull[:, None] * target
            dominance += pull
    return (pulled / dominance[:, None]).astype(np.float32)


def _gestures(name: str, start: float, end: float) -> list[tuple[tuple[float, ...], float, float, float]]:
    """Target, dominance, first and last second of each letter of a phoneme (a diphthong has two, an affricate too)."""
    letters = ipa(name)
    if not letters:
        pause = name.strip() in ("", "SIL")  # another name without letters is a sound that is not known
        closed = pause and end - start > _SHORTEST_PAUSE
        return [((0.0,) * len(LIP_TARGETS), 1.0, start, end)] if closed else []
    gestures: list[tuple[tuple[float, ...], float, float, float]] = []
    for k, letter in enumerate(letters):
        first, last = (start + (end - start) * edge / len(letters) for edge in (k, k + 1))
        if letter in _VOWELS:
            opening, rounding, spreading = _VOWELS[letter]
            middle = (first + last) / 2
            inner = min(first + _VOWEL_MARGIN, middle), max(last - _VOWEL_MARGIN, middle)
            gestures.append(((opening, 0.0, rounding, spreading, 0.0), 1.0, *inner))
        else:
            target, strength = _CONSONANTS[letter]
            gestures.append((target, strength, first, last))
    return gestures
