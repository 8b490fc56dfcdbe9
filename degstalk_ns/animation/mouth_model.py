"""Predicts the movement of a person's mouth for new audio: the expression coefficients of the mouth from audio alone.

The model is fitted to a recording within seconds. It must not know files, networks, images or the upper face.

Why it is needed: the face field gets audio and expression, and the tracked expression tells it the position of the lips
far more precisely than the audio does; so it learns to follow the expression. (Measured on one recording: with the
mouth's expression held still, the opening of the rendered lips keeps a fifth of its spread; with silent audio it keeps
nine tenths and follows the recorded lips at r = 0.96.) With new audio, the recorded coefficients would speak the
recorded words. They are therefore replaced by the predictions of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import gaussian_filter1d

_Array = NDArray[np.float64]

PARABOLA_RIDGE: Final[float] = 1e-6
"""Regularisation, per frame, of the parabola that maps the opening to the expression; it only keeps the fit defined if
the opening never changes. Chosen for this project."""


@dataclass(frozen=True)
class MouthModelConfig:
    """How the mouth follows the audio. The defaults were chosen for this project on one recording, unless an option
    says otherwise."""

    loudness_share: float = 0.5
    """Fraction of the mouth opening that follows the loudness of the audio; the rest follows a mapping learned from the
    recording. Lip opening and loudness are correlated in all speakers (Chandrasekaran et al., PLoS Comput Biol
    2009)."""
    loudness_exponent: float = 0.6
    """Exponent from amplitude to perceived loudness (Stevens 1955)."""
    quiet_db: float = -32.0
    """Level, in dB relative to normal speech, below which the mouth is closed."""
    speaking_db: float = -20.0
    """Level, in dB relative to normal speech, above which the mouth opens fully as predicted. Between the quiet level
    and this one it opens gradually."""
    closed_percentile: float = 3.0
    """Percentile of the recorded mouth openings that counts as closed lips."""
    open_percentile: float = 95.0
    """Percentile of the recorded mouth openings that speech at the normal level reaches by its loudness."""
    widest_percentile: float = 99.0
    """Percentile of the recorded mouth openings that the mouth never exceeds. Larger openings are yawns or wrong
    landmarks."""
    least_skill: float = 0.2
    """Minimum correlation of learned and recorded openings, in cross-validation, above which the learned openings are
    scaled to the range of the recorded ones. Below it the mapping is not scaled, because that would amplify noise."""
    smoothing_frames: float = 1.0
    """Standard deviation of the smoothing over time, in video frames of 40 ms. A jaw does not move faster than about
    8 Hz."""
    strengths: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Regularisation strengths of the ridge regression from audio to mouth, per frame of the recording. The best one is
    chosen by cross-validation."""
    folds: int = 4
    """Number of contiguous parts of the recording for the cross-validation of the ridge regression."""


@dataclass(frozen=True, eq=False)
class MouthModel:
    """The fitted model of one person's mouth. Arrays are float64.

    Attributes:
        config: how the mouth follows the audio.
        centre: [D] mean of the flattened audio windows.
        weights: [D, 1 + M] from the audio windows to the opening and to the part of the coefficients that the opening
            does not explain, both relative to their means.
        posture: [3, M] coefficients of the mouth as a parabola of the opening: constant, linear, square.
        mean_opening: mean of the recorded openings.
        closed: opening of closed lips.
        wide: opening at the normal level of speech.
        widest: opening that is never exceeded.
        stretch: factor that restores the spread of the learned opening, which the ridge regression shrinks.
        skill: correlation of the learned opening with the recorded one, in cross-validation.
    """

    config: MouthModelConfig
    centre: _Array
    weights: _Array
    posture: _Array
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
        """Fits the model to a recording.

        Args:
            windows: [T, L, C] audio windows.
            opening: [T] mouth openings, 0 is closed, any unit.
            values: [T, M] expression coefficients that belong to the mouth.
            config: how the mouth follows the audio; the defaults for None.
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
        """Expression coefficients of the mouth for new audio.

        Args:
            windows: [N, L, C] audio windows, at the level of those of the recording.
            levels: [N] level of each frame relative to normal speech, dB.
            share: replaces ``config.loudness_share``.

        Returns:
            [N, M] coefficients and [N] the openings that they belong to.
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
        """The part of the recorded coefficients that audio and measured opening explain.

        Args:
            windows: [T, L, C] audio windows.
            opening: [T] measured mouth openings.

        Returns:
            [T, M] coefficients.
        """
        told = (windows.reshape(len(windows), -1) - self.centre) @ self.weights
        return (_powers(np.asarray(opening, np.float64)) @ self.posture + told[:, 1:]).astype(np.float32)


def _smooth(series: _Array, frames: float) -> _Array:
    return gaussian_filter1d(series, frames, axis=0, mode="nearest") if frames > 0 else series


def _powers(opening: _Array) -> _Array:
    return np.stack([np.ones_like(opening), opening, opening**2], 1)


def _parabola(opening: _Array, values: _Array) -> _Array:
    """Least squares with a trace of regularisation: an opening that never changes gives the mean."""
    powers = _powers(opening)
    gram = powers.T @ powers
    return np.linalg.solve(gram + PARABOLA_RIDGE * len(opening) * np.eye(3), powers.T @ values)


def _ridge(inputs: _Array, targets: _Array, *strengths: float) -> tuple[_Array, list[_Array]]:
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


def _held_out(inputs: _Array, targets: _Array, strengths: tuple[float, ...], folds: int) -> dict[float, _Array]:
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
