"""How a person's mouth follows a sound that was never recorded: expression values of the mouth from the sound alone.

Fitted on a recording in a moment. It must not know files, networks, images, nor the upper half of the face.

Why it is needed: the face field sees sound and expression, and the tracked expression tells it where the lips are far
more precisely than the sound does; so it learns to follow the expression. (Measured on a talking clip: with the mouth
values of the expression held, the opening of the rendered lips keeps a fifth of its spread; with silence for sound it
keeps nine tenths and follows the recorded lips at r = 0.96.) Played with a new sound, the recorded values would speak
the recorded words. So they are replaced by what this module says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.float64]

PARABOLA_RIDGE: Final[float] = 1e-6
"""Regularisation of the parabola of the opening, per frame: only keeps it defined where the opening never changes.
Origin: ours."""


@dataclass(frozen=True)
class MouthModelConfig:
    """How the mouth is made to follow. Origins: ours, chosen on one talking clip, unless said otherwise."""

    loudness_share: float = 0.5
    """How much of the opening follows loudness alone, the rest what was learned from the recording. Lips and loudness
    go together in every speaker (Chandrasekaran et al., PLoS Comput Biol 2009), but not in every recording's pauses."""
    loudness_exponent: float = 0.6
    """Perceived loudness grows with amplitude to this power (Stevens 1955)."""
    quiet_db: float = -32.0
    """So far under the level of speech, and below, the mouth is closed."""
    speaking_db: float = -20.0
    """From here on the mouth is free; between the two it opens gradually."""
    closed_percentile: float = 3.0
    """Of the recorded openings: closed lips."""
    open_percentile: float = 95.0
    """Of the recorded openings: where the loudest speech leads."""
    widest_percentile: float = 99.0
    """Of the recorded openings: the mouth never opens wider. Above it are a yawn or a frame of wrong landmarks."""
    least_skill: float = 0.2
    """Correlation, in held-out parts, above which what was learned is spread to the recording's range again. What was
    not learned is not spread: noise would only chatter."""
    smoothing_frames: float = 1.0
    """Standard deviation of the smoothing in time, frames of 40 ms: a jaw does not follow faster than about 8 Hz."""
    strengths: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Ridge strengths per frame of the recording that are tried."""
    folds: int = 4
    """Contiguous parts of the recording, each predicted from the others, to choose among them."""


@dataclass(frozen=True, eq=False)
class MouthModel:
    """What was learned of one person's mouth. Arrays are float64.

    Attributes:
        centre: [D] mean of the flattened audio windows. weights: [D, 1 + M] to the opening and to what the opening does
            not explain of the values, both about their means; mean_opening: of the recording.
        posture: [3, M] the mouth's values as a parabola of the opening: constant, linear, square.
        closed, wide, widest: openings.
        stretch: by which the learned opening is spread again (a ridge shrinks it).
        skill: correlation of the learned opening with the recorded one, in parts it was not learned from.
    """

    config: MouthModelConfig
    centre: Array
    weights: Array
    posture: Array
    mean_opening: float
    closed: float
    wide: float
    widest: float
    stretch: float
    skill: float

    @staticmethod
    def fit(
        windows: NDArray[np.floating],
        opening: NDArray[np.floating],
        values: NDArray[np.floating],
        config: MouthModelConfig | None = None,
    ) -> MouthModel:
        """Learns from a recording.

        Args:
            windows: [T, L, C] audio windows. opening: [T] of the mouth, 0 is closed, any unit.
            values: [T, M] expression values that belong to the mouth.
        """
        config = config or MouthModelConfig()
        inputs = windows.reshape(len(windows), -1).astype(np.float64)
        opening, values = opening.astype(np.float64), values.astype(np.float64)
        levels = [config.closed_percentile, config.open_percentile, config.widest_percentile]
        low, high, top = np.percentile(opening, levels)
        posture = _parabola(opening, values)
        rest = values - _powers(opening) @ posture
        targets = np.concatenate([opening[:, None], rest], 1)
        guesses = _held_out(inputs, targets, config.strengths, config.folds)
        strength = min(guesses, key=lambda s: float(((guesses[s][:, 0] - opening) ** 2).mean()))
        guess = guesses[strength][:, 0]
        spread = float(guess.std())
        skill = float(np.corrcoef(guess, opening)[0, 1]) if spread > 0 and opening.std() > 0 else 0.0
        centre, (weights,) = _ridge(inputs, targets, strength)
        return MouthModel(
            config=config,
            centre=centre,
            weights=weights,
            posture=posture,
            mean_opening=float(opening.mean()),
            closed=float(low),
            wide=float(high),
            widest=float(max(top, high)),
            stretch=float(opening.std()) / spread if skill > config.least_skill else 1.0,
            skill=skill,
        )

    def values(
        self, windows: NDArray[np.floating], levels: NDArray[np.floating], share: float | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mouth's values for a new sound.

        Args:
            windows: [N, L, C] audio windows, at the level of the recording's.
            levels: [N] level of each frame over the level of the speech, dB.
            share: in place of ``config.loudness_share``.

        Returns:
            [N, M] values and [N] the opening they belong to.
        """
        c = self.config
        share = c.loudness_share if share is None else share
        told = (windows.reshape(len(windows), -1) - self.centre) @ self.weights
        learned = self.mean_opening + self.stretch * told[:, 0]
        loud = np.minimum(10 ** (np.asarray(levels, np.float64) / 20), 1.0) ** c.loudness_exponent
        by_loudness = self.closed + (self.wide - self.closed) * loud
        step = np.clip((np.asarray(levels, np.float64) - c.quiet_db) / (c.speaking_db - c.quiet_db), 0.0, 1.0)
        gate = step * step * (3 - 2 * step)
        opening = self.closed + gate * (share * by_loudness + (1 - share) * learned - self.closed)
        opening = _smooth(np.clip(opening, self.closed, self.widest), c.smoothing_frames)
        rest = _smooth(gate[:, None] * told[:, 1:], c.smoothing_frames)
        values = _powers(opening) @ self.posture + rest
        return values.astype(np.float32), opening.astype(np.float32)

    def explained(self, windows: NDArray[np.floating], opening: NDArray[np.floating]) -> NDArray[np.float32]:
        """What sound and measured opening explain of recorded values: windows [T, L, C], opening [T] -> [T, M]."""
        told = (windows.reshape(len(windows), -1) - self.centre) @ self.weights
        return (_powers(np.asarray(opening, np.float64)) @ self.posture + told[:, 1:]).astype(np.float32)


def _smooth(series: Array, frames: float) -> Array:
    return gaussian_filter1d(series, frames, axis=0, mode="nearest") if frames > 0 else series


def _powers(opening: Array) -> Array:
    return np.stack([np.ones_like(opening), opening, opening**2], 1)


def _parabola(opening: Array, values: Array) -> Array:
    """Least squares with a trace of regularisation: an opening that never changes gives the mean."""
    powers = _powers(opening)
    gram = powers.T @ powers
    return np.linalg.solve(gram + PARABOLA_RIDGE * len(opening) * np.eye(3), powers.T @ values)


def _ridge(inputs: Array, targets: Array, *strengths: float) -> tuple[Array, list[Array]]:
    """Mean of the inputs, and for each strength the weights [D, K] from inputs to targets, both about their means."""
    centre = inputs.mean(0)
    about, wanted = inputs - centre, targets - targets.mean(0)
    # Of the two equal forms, the one with the smaller matrix: frames x frames or inputs x inputs.
    dual = len(about) < about.shape[1]
    gram, right = (about @ about.T, wanted) if dual else (about.T @ about, about.T @ wanted)
    weights = []
    for strength in strengths:
        strong = gram.copy()
        strong[np.diag_indices_from(strong)] += strength * len(inputs)
        solved = cho_solve(cho_factor(strong, overwrite_a=True, check_finite=False), right, check_finite=False)
        weights.append(about.T @ solved if dual else solved)
    return centre, weights


def _held_out(inputs: Array, targets: Array, strengths: tuple[float, ...], folds: int) -> dict[float, Array]:
    """For each strength, each contiguous part of the recording as the others predict it, [T, K]."""
    part = np.arange(len(inputs)) * folds // len(inputs)
    guesses = {strength: np.broadcast_to(targets.mean(0), targets.shape).copy() for strength in strengths}
    if len(np.unique(part)) < 2:
        return guesses
    for k in np.unique(part):
        held = part == k
        centre, weights = _ridge(inputs[~held], targets[~held], *strengths)
        for strength, weight in zip(strengths, weights, strict=True):
            guesses[strength][held] = (inputs[held] - centre) @ weight + targets[~held].mean(0)
    return guesses
