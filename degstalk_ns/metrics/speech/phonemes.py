"""Whether lips in a video shut and open with the phonemes that are said, whose times are known.

It must not know how the video was made, or how phonemes and their times were found.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.metrics.lips_and_eyes import CLOSED_LIPS
from degstalk_ns.metrics.speech.audio_driven import lip_lag
from degstalk_ns.speech.phonemes import is_bilabial, is_open_vowel, lip_targets

NEAR_SECONDS: Final[float] = 0.06
"""Time around a phoneme in which its lips may come, in seconds. Origin: chosen for this project."""
OPENED: Final[float] = 0.35
"""Opening of the lips, as a fraction of the wide opening, from which on they count as open. Origin: chosen for this
project."""
CONTROLS: Final[tuple[float, ...]] = (0.7, 1.3, 1.9, 2.5, 3.1)
"""Times by which the phonemes are moved for the control, in seconds: what lips that move without listening would score.
Origin: chosen for this project."""
FEWEST: Final[int] = 3
"""Number of bilabials and of open vowels from which on shares are told."""


@dataclass(frozen=True)
class TimedPhonemes:
    """What is said when.

    Attributes:
        starts: [P] seconds, ascending; each phoneme lasts until the next one.
        names: [P], as :func:`~degstalk_ns.speech.phonemes.ipa` takes them.
    """

    starts: NDArray[np.float64]
    names: tuple[str, ...]


@dataclass(frozen=True)
class PhonemeShares:
    """What lips do at phonemes; None where there are too few of them.

    Attributes:
        bilabials, open_vowels: how many were measured.
        closed: share of p, b and m at which lips close (:data:`CLOSED_LIPS` of the wide opening).
        opened: share of open vowels at which lips open (:data:`OPENED` of it).
        chance: probability that lips are further open at an open vowel than at a bilabial.
    """

    bilabials: int
    open_vowels: int
    closed: float | None
    opened: float | None
    chance: float | None


@dataclass(frozen=True)
class PhonemeReport:
    """Lips against phonemes.

    Attributes:
        measured: with the phonemes where they are.
        control: mean of the same with the phonemes moved to other times (:data:`CONTROLS`).
        lag: frames by which lips are late against the phonemes (negative: early); None where that cannot be told.
    """

    measured: PhonemeShares
    control: PhonemeShares
    lag: int | None

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def measure_phonemes(opening: NDArray[np.floating], said: TimedPhonemes, wide: float) -> PhonemeReport:
    """Measure the lips of a video at known phonemes.

    Args:
        opening: [T] gap between the lips in each frame (25 a second), any unit; NaN without a face.
        said: the phonemes, on the video's clock.
        wide: opening that counts as wide, in the same unit.
    """
    seconds = len(opening) / FRAME_RATE
    moved = [_shares(opening, _moved(said, by, seconds), wide) for by in CONTROLS]
    targets = lip_targets(said.starts, said.names, seconds, FRAME_RATE)[:, 0]
    count = min(len(targets), len(opening))
    found = np.isfinite(opening[:count])
    known = np.flatnonzero(found)
    filled = np.interp(np.arange(count), known, opening[known]) if len(known) else np.zeros(count)
    shift = lip_lag(filled.tolist(), targets[:count].tolist())
    return PhonemeReport(_shares(opening, said, wide), _mean(moved), None if shift is None else shift[0])


def read_phonemes(path: Path) -> TimedPhonemes:
    """Phonemes and their times from a JSON file: a list of pairs of seconds and phoneme.

    Raises:
        UserError: no such file, or other content.
    """
    expected = 'expected a list of pairs [seconds, "phoneme"] in order of time, as `degstalk phonemes` writes it'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(float(seconds), str(name)) for seconds, name in content]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    except (ValueError, TypeError):
        raise UserError(f"{path}: is no list of phonemes; {expected}") from None
    starts = np.array([seconds for seconds, _ in pairs])
    if not pairs or not np.isfinite(starts).all() or (np.diff(starts) < 0).any() or starts[0] < 0:
        raise UserError(f"{path}: its times are not in order or it is empty; {expected}")
    return TimedPhonemes(starts, tuple(name for _, name in pairs))


def phonemes_text(said: TimedPhonemes) -> str:
    """The content of a file of :func:`read_phonemes`."""
    pairs = [[round(float(start), 3), name] for start, name in zip(said.starts, said.names, strict=True)]
    return json.dumps(pairs, ensure_ascii=False)


def _moved(said: TimedPhonemes, by: float, seconds: float) -> TimedPhonemes:
    """The phonemes ``by`` seconds later; those that would come after the end come first."""
    starts = (said.starts + by) % max(seconds, 1e-6)
    order = np.argsort(starts, kind="stable")
    return TimedPhonemes(starts[order], tuple(said.names[k] for k in order))


def _shares(opening: NDArray[np.floating], said: TimedPhonemes, wide: float) -> PhonemeShares:
    seconds = len(opening) / FRAME_RATE
    ends = np.append(said.starts, seconds)[1:]
    least: list[float] = []
    most: list[float] = []
    for start, end, name in zip(said.starts, ends, said.names, strict=True):
        first = max(math.ceil((start - NEAR_SECONDS) * FRAME_RATE), 0)
        last = math.floor((min(end, start + 1.0) + NEAR_SECONDS) * FRAME_RATE)
        near = opening[first : last + 1]
        near = near[np.isfinite(near)]
        if not len(near):
            continue
        if is_bilabial(name):
            least.append(float(near.min()))
        elif is_open_vowel(name):
            most.append(float(near.max()))
    low, high = np.array(least), np.array(most)
    enough = len(low) >= FEWEST, len(high) >= FEWEST
    return PhonemeShares(
        bilabials=len(low),
        open_vowels=len(high),
        closed=float((low < CLOSED_LIPS * wide).mean()) if enough[0] else None,
        opened=float((high > OPENED * wide).mean()) if enough[1] else None,
        chance=float((high[:, None] > low[None]).mean()) if all(enough) else None,
    )


def _mean(shares: list[PhonemeShares]) -> PhonemeShares:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return PhonemeShares(
        bilabials=shares[0].bilabials,
        open_vowels=shares[0].open_vowels,
        closed=mean([s.closed for s in shares]),
        opened=mean([s.opened for s in shares]),
        chance=mean([s.chance for s in shares]),
    )
