"""By how much the sound of a recording is late or early against its picture.

Videos from the net are often out of step by a tenth of a second, which nobody notices and every model learns. It must
not know files, networks, or how lips are found in the picture and told by the sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from degstalk_ns.audio.windows import VECTORS_PER_SECOND
from degstalk_ns.speech.phonemes import LIP_TARGETS

_Series = NDArray[np.floating]


@dataclass(frozen=True)
class LipSyncConfig:
    """How the offset between sound and picture is found. Chosen for this project."""

    lead_seconds: float = 0.04
    """Time by which lips are ahead of the sound that they make, in seconds, where picture and sound are in step: 0 to
    70 ms in speech (Schwartz and Savariaux, PLoS Comput Biol 2014)."""
    noticed_seconds: float = 0.045
    """Offset, in seconds, from which on people notice it (ITU-R BT.1359, for early sound; late sound is noticed from
    125 ms on). Smaller ones are left as they are."""
    most_seconds: float = 0.4
    """Maximum offset that is considered, in seconds."""
    far_seconds: float = 0.8
    """Offsets beyond this one, in seconds, show what the likeness is by chance."""
    trend_seconds: float = 0.5
    """Standard deviation, in seconds, of the slow part of each series that is left out: moods, not speech."""
    least_likeness: float = 0.15
    """Minimum likeness (mean correlation) of sound and lips at the offset that is found."""
    margin: float = 1.15
    """The likeness at the offset must exceed that at every far offset by this factor."""


@dataclass(frozen=True)
class LipSync:
    """The offset of a recording's sound.

    Attributes:
        seconds: by which the sound is late (negative: early), beside the natural lead of the lips.
        likeness: mean correlation of lips and sound there.
        chance: the largest at offsets that cannot be right.
        noticeable: whether it is large enough to be mended.
    """

    seconds: float
    likeness: float
    chance: float
    noticeable: bool

    def __str__(self) -> str:
        return f"{1000 * abs(self.seconds):.0f} ms {'late' if self.seconds > 0 else 'early'} against the lips"


def recorded_lip_sync(
    opening: _Series, width: _Series, lips: _Series, frame_rate: float, config: LipSyncConfig | None = None
) -> LipSync | None:
    """:func:`lip_sync` of a recording.

    Args:
        opening, width: [T] opening and width of the mouth in each frame, any units.
        lips: [V, 5] what the lips of any speaker do for its sound (:func:`~degstalk_ns.speech.lip_motion.lip_motion`).
        frame_rate: frames a second.
    """
    told = dict(zip(LIP_TARGETS, np.asarray(lips, np.float64).T, strict=True))
    moments = np.arange(round(len(opening) * VECTORS_PER_SECOND / frame_rate)) / VECTORS_PER_SECOND
    open_, wide = (np.interp(moments, np.arange(len(s)) / frame_rate, s) for s in (opening, width))
    pairs = ((open_, told["opening"]), (-open_, told["closure"]), (wide, told["spreading"] - told["rounding"]))
    return lip_sync(pairs, VECTORS_PER_SECOND, config)


def lip_sync(
    pairs: Sequence[tuple[_Series, _Series]], rate: float, config: LipSyncConfig | None = None
) -> LipSync | None:
    """Find the offset of a recording's sound from what its lips do and what the sound says they do.

    Args:
        pairs: what is seen and what is told by the sound, [N] each at ``rate`` values a second: openings, widths, ...
        rate: values a second; the offset is found to a fraction of one.
        config: how; the defaults for None.

    Returns:
        The offset, or None where the recording does not tell: too short, no speech, lips that do not move.
    """
    config = config or LipSyncConfig()
    count = min(len(series) for pair in pairs for series in pair)
    most, far = round(config.most_seconds * rate), round(config.far_seconds * rate)
    if count < 4 * far:
        return None
    likeness = np.zeros(count)
    for seen, told in pairs:
        a, b = (_standard(np.asarray(s[:count], np.float64), config.trend_seconds * rate) for s in (seen, told))
        # Circular correlation: entry k compares what is seen now with what is told k values later.
        likeness += np.fft.irfft(np.conj(np.fft.rfft(a)) * np.fft.rfft(b), count) / count / len(pairs)
    near = np.concatenate([likeness[-most:], likeness[: most + 1]])
    best, chance = int(near.argmax()), float(likeness[far : count - far].max())
    if near[best] < config.least_likeness or near[best] < config.margin * chance or best in (0, 2 * most):
        return None
    before, peak, after = near[best - 1 : best + 2]
    bend = before - 2 * peak + after
    fraction = 0.5 * (before - after) / bend if bend < 0 else 0.0
    seconds = (best - most + float(fraction)) / rate - config.lead_seconds
    return LipSync(seconds, float(peak), chance, abs(seconds) > config.noticed_seconds)


def _standard(series: NDArray[np.float64], trend: float) -> NDArray[np.float64]:
    quick = series - gaussian_filter1d(series, trend, mode="nearest")
    quick -= quick.mean()
    spread = quick.std()
    return quick / spread if spread > 0 else quick
