"""Sync margin: how much better lips go with their own sound than with the sound of other moments, by canonical
correlation with log-mel bands.

What ties lips to sound is learned from a recording of the real person, so that lips that merely move do not score. The
features are not those that drive an avatar (Whisper's). It must not know how a video was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from degstalk_ns.audio.mel import log_mel
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE

NEIGHBOURS: Final[int] = 4
"""Number of frames before and after a frame whose sound may go with its lips. Origin: chosen for this project."""
COMPONENTS: Final[int] = 24
"""Number of principal components of that sound. Origin: chosen for this project."""
OTHER_MOMENTS: Final[tuple[int, ...]] = (*range(-15, -4), *range(5, 16))
"""Offsets in frames at which lips meet the sound of another moment. Origin: as in SyncNet's confidence."""
TREND_FRAMES: Final[float] = 25.0
"""Standard deviation, in frames, of the slow part of each series that is left out: moods, not speech. Origin: chosen
for this project."""
FEWEST_FRAMES: Final[int] = 150
"""Frames of a recording from which on it teaches anything. Origin: chosen for this project."""
SHORTEST_MARGIN: Final[float] = 2.0
"""Seconds of video from which on it has a margin. Origin: chosen for this project."""
_RIDGE: Final[float] = 0.05


@dataclass(frozen=True, eq=False)
class LipsWithSound:
    """What lips have to do with sound, learned from a recording.

    Attributes:
        centre, scale: [C] of the log-mel bands.
        basis: [D, K] from the sound around a frame to its components.
        sound_weights: [K, L], lip_weights: [L, L] to the canonical variables. strengths: [L] their correlations.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    basis: NDArray[np.float64]
    sound_weights: NDArray[np.float64]
    lip_weights: NDArray[np.float64]
    strengths: NDArray[np.float64]

    @staticmethod
    def fit(sound: NDArray[np.float32], lips: NDArray[np.floating]) -> LipsWithSound | None:
        """Learn from a recording.

        Args:
            sound: [S] 16 kHz mono. lips: [T, L] opening, width, ...; NaN without a face.

        Returns:
            None where it is too short or its lips do not move.
        """
        seen = _quick(lips)
        if len(seen) < FEWEST_FRAMES or (seen.std(0) <= 0).any():
            return None
        bands = _bands(sound, len(seen))
        centre, scale = bands.mean(0), np.maximum(bands.std(0), 1e-6)
        around = _quick(_around((bands - centre) / scale))
        _, _, directions = np.linalg.svd(around, full_matrices=False)
        basis = directions[:COMPONENTS].T
        heard = around @ basis
        whiten = [_whitening(part) for part in (heard, seen)]
        left, strengths, right = np.linalg.svd(
            whiten[0].T @ (heard.T @ seen / len(seen)) @ whiten[1], full_matrices=False
        )
        return LipsWithSound(centre, scale, basis, whiten[0] @ left, whiten[1] @ right.T, strengths)

    def likeness(self, sound: NDArray[np.float32], lips: NDArray[np.floating], offset: int = 0) -> float:
        """Correlation of lips with the sound ``offset`` frames later, mean over the canonical variables, weighed by
        their strengths."""
        return self._likeness(*self._variables(sound, lips), offset)

    def margin(self, sound: NDArray[np.float32], lips: NDArray[np.floating]) -> float | None:
        """:meth:`likeness` with the own sound less the median of that with other moments; None for less than two
        seconds."""
        if len(lips) < SHORTEST_MARGIN * FRAME_RATE:
            return None
        variables = self._variables(sound, lips)
        others = [self._likeness(*variables, offset) for offset in OTHER_MOMENTS]
        return self._likeness(*variables, 0) - float(np.median(others))

    def _variables(
        self, sound: NDArray[np.float32], lips: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[T, L] canonical variables of the sound and of the lips."""
        bands = (_bands(sound, len(lips)) - self.centre) / self.scale
        return _quick(_around(bands)) @ self.basis @ self.sound_weights, _quick(lips) @ self.lip_weights

    def _likeness(self, heard: NDArray[np.float64], seen: NDArray[np.float64], offset: int) -> float:
        heard = heard[max(offset, 0) : len(heard) + min(offset, 0)]
        seen = seen[max(-offset, 0) : len(seen) - max(offset, 0)]
        spread = heard.std(0) * seen.std(0)
        covariance = ((heard - heard.mean(0)) * (seen - seen.mean(0))).mean(0)
        related = np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 0)
        return float((related * self.strengths).sum() / self.strengths.sum())


def own_margin(sound: NDArray[np.float32], lips: NDArray[np.floating]) -> float | None:
    """The margin of a recording itself: each half by what the other half teaches; None where they teach nothing."""
    half, per_frame = len(lips) // 2, int(SAMPLE_RATE / FRAME_RATE)
    halves = (sound[: half * per_frame], lips[:half]), (sound[half * per_frame :], lips[half:])
    margins = []
    for teacher, pupil in (halves, halves[::-1]):
        learned = LipsWithSound.fit(*teacher)
        margin = None if learned is None else learned.margin(*pupil)
        if margin is not None:
            margins.append(margin)
    return float(np.mean(margins)) if margins else None


def _bands(sound: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """[T, C] log-mel bands of the frames."""
    vectors = log_mel(sound).astype(np.float64)
    return vectors[np.clip(2 * np.arange(count), 0, len(vectors) - 1)]


def _around(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = np.clip(np.arange(len(bands))[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0, len(bands) - 1)
    return bands[rows].reshape(len(bands), -1)


def _quick(series: NDArray[np.floating]) -> NDArray[np.float64]:
    """[T, L] without its slow part; moments without a face are filled in from those around."""
    values = np.array(series, np.float64)
    for column in values.T:
        known = np.isfinite(column)
        if known.any():
            column[~known] = np.interp(np.flatnonzero(~known), np.flatnonzero(known), column[known])
        else:
            column[:] = 0.0
    values -= gaussian_filter1d(values, TREND_FRAMES, axis=0, mode="nearest")
    centred: NDArray[np.float64] = values - values.mean(0)
    return centred


def _whitening(part: NDArray[np.float64]) -> NDArray[np.float64]:
    covariance = part.T @ part / len(part)
    variance, vectors = np.linalg.eigh(
        covariance + _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    whitening: NDArray[np.float64] = vectors / np.sqrt(variance)
    return whitening
