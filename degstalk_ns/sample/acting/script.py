"""What the sample head says: a random script of phones in time, and the mouth that such phones ask for.

It must not know how the phones sound, nor what a face looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Times = NDArray[np.float64]

ARTICULATORS: Final = ("jaw", "rounded", "spread", "pressed", "tongue")
"""What a phone asks of the mouth; names and ranges of :class:`~degstalk_ns.sample.body.surfels.FaceState`."""


@dataclass(frozen=True)
class Phone:
    """One kind of speech sound.

    Attributes:
        formants: F1 to F4, Hz. Vowels: averages of women's English, Hillenbrand et al. 1995, rounded; consonants: the
            loci that the formants of neighbouring vowels point to.
        jaw, rounded, spread, pressed, tongue: what the mouth aims at, 0..1.
        firmness: how much each of those five insists against its neighbours; a vowel's jaw is 1.
        voicing, frication: amplitudes of the two sources, 0..1.
        burst: amplitude of the noise when the closure opens, 0 for none.
        band: of frication and burst, Hz.
    """

    formants: tuple[float, float, float, float]
    jaw: float = 0.0
    rounded: float = 0.0
    spread: float = 0.0
    pressed: float = 0.0
    tongue: float = 0.0
    firmness: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    voicing: float = 0.0
    frication: float = 0.0
    burst: float = 0.0
    band: tuple[float, float] = (500.0, 7000.0)


_LIPS = (1.0, 0.15, 0.15, 9.0, 0.5)
_TIP = (0.5, 0.12, 0.12, 1.0, 6.0)

VOWELS: Final[dict[str, Phone]] = {
    "a": Phone((850, 1250, 2800, 3900), jaw=0.78, voicing=1.0),
    "e": Phone((600, 2100, 2850, 4050), jaw=0.5, spread=0.55, voicing=0.85),
    "i": Phone((330, 2650, 3250, 4150), jaw=0.26, spread=0.95, voicing=0.62),
    "o": Phone((520, 930, 2700, 3800), jaw=0.54, rounded=0.75, voicing=0.85),
    "u": Phone((350, 870, 2500, 3700), jaw=0.28, rounded=1.0, voicing=0.62),
    "ə": Phone((560, 1550, 2650, 3900), jaw=0.36, voicing=0.7),
}
CONSONANTS: Final[dict[str, Phone]] = {
    "m": Phone((270, 1050, 2250, 3500), 0.08, pressed=1.0, firmness=_LIPS, voicing=0.3),
    "b": Phone((230, 800, 2200, 3500), 0.08, pressed=1.0, firmness=_LIPS, voicing=0.1, burst=0.25, band=(300, 1800)),
    "p": Phone((230, 800, 2200, 3500), 0.08, pressed=1.0, firmness=_LIPS, burst=0.45, band=(300, 2200)),
    "f": Phone((300, 1100, 2300, 3600), 0.14, pressed=0.55, firmness=_LIPS, frication=0.22, band=(1500, 7200)),
    "t": Phone((250, 1800, 2800, 3900), 0.2, tongue=1.0, firmness=_TIP, burst=0.5, band=(2800, 6500)),
    "d": Phone((230, 1800, 2800, 3900), 0.2, tongue=1.0, firmness=_TIP, voicing=0.1, burst=0.3, band=(2500, 6000)),
    "n": Phone((280, 1500, 2600, 3700), 0.2, tongue=0.9, firmness=_TIP, voicing=0.32),
    "l": Phone((380, 1300, 2800, 3900), 0.28, tongue=1.0, firmness=_TIP, voicing=0.45),
    "s": Phone((280, 1700, 2700, 3900), 0.12, spread=0.35, tongue=0.6, firmness=_TIP, frication=0.4, band=(4200, 7600)),
}
SILENCE: Final = Phone((500, 1500, 2600, 3800), firmness=(2.0, 1.0, 1.0, 2.0, 2.0))
_CODAS: Final = ("m", "n", "l", "s", "t", "p")


@dataclass(frozen=True)
class Spoken:
    """One phone of the script.

    Attributes:
        name: key of :data:`VOWELS` or :data:`CONSONANTS`, "" for silence.
        start, end: seconds.
        stress: 0..1, of the syllable it belongs to.
        phrase: number of the phrase, -1 in pauses.
    """

    name: str
    start: float
    end: float
    stress: float = 0.0
    phrase: int = -1

    @property
    def phone(self) -> Phone:
        return VOWELS.get(self.name) or CONSONANTS.get(self.name) or SILENCE


@dataclass(frozen=True)
class ScriptConfig:
    """Rhythm of the speech, seconds. Ordinary figures of read speech: 4 to 5 syllables a second."""

    syllables: tuple[int, int] = (3, 8)
    """Fewest and most in a phrase."""
    pause: tuple[float, float] = (0.3, 0.9)
    syllable: tuple[float, float] = (0.12, 0.30)
    consonant: tuple[float, float] = (0.055, 0.085)
    shortest_vowel: float = 0.06
    edge: float = 0.3
    """Silence before the first phrase and after the last."""
    edge_share: float = 0.03
    """The silence at the end is at most this part of the whole: the last eleventh of the frames validates, and most of
    it shall be speech."""
    stressed: float = 0.4
    """Share of the syllables that are stressed, besides the last of each phrase."""


@dataclass(frozen=True)
class Script:
    """Phones that follow each other without gaps from 0 to ``seconds``."""

    phones: tuple[Spoken, ...]
    seconds: float

    def blended(
        self, times: Times, spread: float, value: Callable[[Spoken], float], firmness: Callable[[Spoken], float]
    ) -> Times:
        """A curve through the phones' values, [len(times)], smooth because neighbours overlap.

        At each time it is the mean of all phones' values, weighed by their firmness and by how near the phone is: 1
        within its interval, falling off at both ends as a Gaussian's integral of standard deviation ``spread`` seconds
        (dominance functions, Cohen and Massaro 1993).

        Args:
            times: ascending, seconds.
        """
        total, weight = np.zeros(len(times)), np.zeros(len(times))
        for spoken in self.phones:
            first, last = np.searchsorted(times, (spoken.start - 5 * spread, spoken.end + 5 * spread))
            # Whatever lies outside the script belongs to its first or last phone.
            first = 0 if spoken is self.phones[0] else first
            last = len(times) if spoken is self.phones[-1] else last
            at = times[first:last]
            start = -np.inf if spoken is self.phones[0] else spoken.start
            end = np.inf if spoken is self.phones[-1] else spoken.end
            near = firmness(spoken) * (ndtr((at - start) / spread) - ndtr((at - end) / spread))
            total[first:last] += near * value(spoken)
            weight[first:last] += near
        return total / np.maximum(weight, 1e-12)

    def stresses(self) -> list[tuple[float, float]]:
        """Middle of each stressed vowel, seconds, and its stress."""
        return [(0.5 * (p.start + p.end), p.stress) for p in self.phones if p.name in VOWELS and p.stress > 0]


def write_script(seconds: float, seed: int, config: ScriptConfig | None = None) -> Script:
    """A script of ``seconds``: phrases of syllables with pauses between, silent at both ends."""
    config = config or ScriptConfig()
    rng = np.random.default_rng([seed, 1])
    lead = min(config.edge, 0.15 * seconds)
    trail = min(config.edge, config.edge_share * seconds)
    room = seconds - lead - trail
    spans = _fitted(list(_spans(rng, room, config)), room)
    phones = [Spoken("", 0.0, lead)]
    for name, length, stress, phrase in spans:
        start = phones[-1].end
        phones.append(Spoken(name, start, start + length, stress, phrase))
    return Script((*phones, Spoken("", phones[-1].end, seconds)), seconds)


_Span = tuple[str, float, float, int]
"""Name, length, stress, phrase."""


def _spans(rng: np.random.Generator, room: float, config: ScriptConfig) -> Iterator[_Span]:
    """Phrases and pauses that last about ``room`` seconds; they begin and end with a phrase."""
    shortest = config.syllables[0] * sum(config.syllable) / 2
    phrase, used = 0, 0.0
    while True:
        count = int(rng.integers(config.syllables[0], config.syllables[1] + 1))
        for k in range(count):
            syllable = _syllable(rng, phrase, k == count - 1, config)
            used += sum(length for _, length, _, _ in syllable)
            yield from syllable
            # A phrase goes on to the end rather than leaving too little for another.
            if k + 1 >= config.syllables[0] and used > room - 0.5 * sum(config.syllable) / 2:
                return
        pause = float(rng.uniform(*config.pause))
        if used + pause + shortest > room:
            if used > 0.8 * room:
                return
            pause = config.pause[0]
        used += pause
        yield "", pause, 0.0, -1
        phrase += 1


def _syllable(rng: np.random.Generator, phrase: int, last: bool, config: ScriptConfig) -> list[_Span]:
    """Consonant, vowel, perhaps a consonant. The last syllable of a phrase is stressed, long and wide open."""
    stressed = last or rng.random() < config.stressed
    vowels = ("a", "o") if last else ("a", "e", "i", "o", "u") if stressed else tuple(VOWELS)
    total = float(rng.uniform(*config.syllable))
    if stressed:
        total = config.syllable[1] if last else 0.5 * (total + config.syllable[1])
    stress = float(rng.uniform(0.8 if last else 0.6, 1.0)) if stressed else 0.0
    parts: list[_Span] = []
    if rng.random() < 0.92:
        parts.append((str(rng.choice(list(CONSONANTS))), float(rng.uniform(*config.consonant)), stress, phrase))
    vowel = (str(rng.choice(vowels)), 0.0, stress, phrase)
    coda = (str(rng.choice(_CODAS)), float(rng.uniform(*config.consonant)), stress, phrase)
    consonants = sum(length for _, length, _, _ in parts)
    if rng.random() < 0.3 and total - consonants - coda[1] > config.shortest_vowel:
        consonants += coda[1]
        parts.append(coda)
    length = max(total - consonants, config.shortest_vowel)
    parts.insert(len(parts) - (parts[-1:] == [coda]), (vowel[0], length, stress, phrase))
    return parts


def _fitted(spans: list[_Span], room: float) -> list[_Span]:
    """The same, stretched by one factor to last exactly ``room`` seconds."""
    factor = room / sum(length for _, length, _, _ in spans)
    return [(name, length * factor, stress, phrase) for name, length, stress, phrase in spans]


@dataclass(frozen=True)
class ArticulationConfig:
    """How the mouth follows the phones, seconds."""

    lead: float = 0.04
    """How far the mouth is ahead of the sound it makes."""
    slow: float = 0.038
    """Spread of jaw and of the lips' rounding and spreading."""
    quick: float = 0.02
    """Spread of closing lips and of the tongue's tip."""
    unstressed: float = 0.8
    """Openness of an unstressed vowel, of a stressed one's."""


def articulation(script: Script, times: Times, config: ArticulationConfig | None = None) -> dict[str, Times]:
    """Curves of all :data:`ARTICULATORS` in 0..1 at ``times`` (ascending, seconds of the sound); [len(times)] each."""
    config = config or ArticulationConfig()
    curves = {}
    for k, name in enumerate(ARTICULATORS):
        spread = config.quick if name in ("pressed", "tongue") else config.slow

        def value(spoken: Spoken, name: str = name) -> float:
            return float(getattr(aim(spoken, config), name))

        def firmness(spoken: Spoken, k: int = k) -> float:
            return spoken.phone.firmness[k]

        curves[name] = np.clip(script.blended(times + config.lead, spread, value, firmness), 0.0, 1.0)
    return curves


def aim(spoken: Spoken, config: ArticulationConfig | None = None) -> Phone:
    """The phone as it is spoken here: vowels without stress open less."""
    config = config or ArticulationConfig()
    phone = spoken.phone
    if spoken.name not in VOWELS:
        return phone
    return replace(phone, jaw=phone.jaw * (config.unstressed + (1 - config.unstressed) * spoken.stress))
