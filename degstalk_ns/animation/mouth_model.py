"""Predicts the movement of a person's mouth for new audio: the expression coefficients of the mouth from audio alone.

The model is fitted to a recording within seconds. It must not know files, networks, images or the upper face.

Why it is needed: the face field gets audio and expression, and the tracked expression tells it the position of the lips
far more precisely than the audio does; so it learns to follow the expression. With new audio, the recorded coefficients
would speak the recorded words. They are therefore replaced by the predictions of this module.

What is heard of a frame are phonetic vectors (Whisper's, or log-mel bands), and where it is known, what the lips of any
speaker do for that sound (:mod:`degstalk_ns.speech.lip_motion`). The former teach a long recording how this person
speaks; the latter stand in where a recording is too short to teach anything, and shut the lips at p, b and m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from degstalk_ns.animation.ridge import RidgeRegression
from degstalk_ns.speech.phonemes import LIP_TARGETS

_Array = NDArray[np.float64]

PARABOLA_RIDGE: Final[float] = 1e-6
"""Regularisation, per frame, of the parabola that maps the opening to the expression; it only keeps the fit defined if
the opening never changes. Chosen for this project."""
MOVED_BY_LIPS: Final[dict[str, tuple[str, float]]] = {
    "mouthPucker": ("rounding", 1.0),
    "mouthFunnel": ("rounding", 0.7),
    "mouthWidth": ("rounding", -1.0),
    "mouthStretch": ("spreading", 0.7),
    "mouthRollLower": ("labiodental", 0.7),
    "mouthRollUpper": ("closure", 0.7),
    "mouthPress": ("closure", 0.7),
}
"""What moves along with the lips of any speaker beside the opening: beginnings of the coefficients' names, the lip
target, and the share and sign of it. From the blendshapes' definitions."""
_NO_SPREAD: Final[float] = 1e-6


@dataclass(frozen=True)
class MouthModelConfig:
    """How the mouth follows the audio. The defaults were chosen for this project on three recordings, unless an option
    says otherwise."""

    reach_frames: int = 2
    """Number of frames before and after a frame whose phonetic vectors tell its mouth. Whisper's vectors know their
    surroundings themselves."""
    reach_frames_mel: int = 5
    """The same for log-mel bands, which know nothing of their surroundings."""
    lips_reach_frames: int = 3
    """The same for what the lips of any speaker do."""
    lips_weight: float = 3.0
    """Weight of what the lips of any speaker do, against one channel of the phonetic vectors."""
    prior: float = 0.5
    """Correlation of this person's lips with those of any speaker that is assumed before the recording has taught
    anything, 0 to 1."""
    components: float = 0.98
    """Fraction of the variance of the mouth's coefficients, beside their opening, that is predicted, by principal
    components."""
    quiet_db: float = -42.0
    """Level, in dB relative to normal speech, below which the mouth is closed."""
    speaking_db: float = -30.0
    """Level, in dB relative to normal speech, above which the mouth moves fully as predicted. Between the quiet level
    and this one it does in part."""
    hold_frames: int = 4
    """Number of frames by which speech lasts before and after it is loud enough: plosives are silent for a moment, and
    in short pauses people leave their lips as they are."""
    closed_percentile: float = 3.0
    """Percentile of the recorded mouth openings that counts as closed lips."""
    widest_percentile: float = 99.0
    """Percentile of the recorded mouth openings that the mouth never exceeds. Larger openings are yawns or wrong
    landmarks."""
    closure_from: float = 0.35
    """Closure of any speaker's lips from which on they are pressed together, 0 to 1."""
    closure_to: float = 0.6
    """Closure from which on they are shut entirely."""
    least_skill: float = 0.2
    """Minimum correlation of predicted and recorded values, in cross-validation, above which the predicted values are
    scaled towards the spread of the recorded ones. Below it they are not scaled, because that would amplify noise."""
    full_skill: float = 0.6
    """Correlation from which on they are scaled to the whole spread of the recorded ones; in between, to a part of
    it."""
    most_stretch: float = 2.0
    """Maximum factor of that scaling."""
    smoothing_frames: float = 0.75
    """Standard deviation of the smoothing over time of what is predicted, in video frames of 40 ms. A jaw does not move
    faster than about 8 Hz. None under a look-ahead."""
    closing_frames: float = 0.4
    """The same for the closing of the lips, which is quicker."""
    strengths: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e6)
    """Regularisation strengths of the ridge regression from audio to mouth, per frame of the recording. The best one is
    chosen by cross-validation; with the last, nothing is learned from the recording but its range."""
    folds: int = 5
    """Number of contiguous parts of the recording for the cross-validation of the ridge regression."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard of N frames.

    Attributes:
        vectors: [N, C] phonetic vectors.
        phonetic: whether they know their surroundings (Whisper), or not (log-mel).
        lips: [N, 5] what the lips of any speaker do, as :data:`~degstalk_ns.speech.phonemes.LIP_TARGETS`; None where
            that is not known.
        after: number of later frames that the mouth of a frame may depend on; None for no limit.
    """

    vectors: NDArray[np.floating]
    phonetic: bool
    lips: NDArray[np.floating] | None = None
    after: int | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def rows(self, rows: NDArray[np.integer] | slice) -> Heard:
        """Some of the frames."""
        return replace(self, vectors=self.vectors[rows], lips=None if self.lips is None else self.lips[rows])


@dataclass(frozen=True, eq=False)
class MouthModel:
    """The fitted model of one person's mouth. Arrays are float64.

    Attributes:
        config: how the mouth follows the audio.
        centre, scale: [C + 5] mean and spread of what is heard of a frame.
        weights: [D, 1 + K] from what is heard around a frame to the opening and to the components of what the opening
            does not explain, both relative to their means.
        basis: [K, M] those components, as coefficients.
        posture: [3, M] coefficients of the mouth as a parabola of the opening: constant, linear, square.
        mean_opening: mean of the recorded openings.
        shut: [M] coefficients of the recorded closed lips.
        closed: opening of closed lips.
        widest: opening that is never exceeded.
        stretch: [1 + K] factors that restore the spread, which the ridge regression shrinks.
        skill: correlation of the predicted opening with the recorded one, in cross-validation.
        skills: [M] the same for each coefficient.
        strengths: the regularisation that was chosen for the opening, and for the components.
        limits: [2, M] least and largest coefficients that the recording shows.
    """

    config: MouthModelConfig
    centre: _Array
    scale: _Array
    weights: _Array
    basis: _Array
    posture: _Array
    mean_opening: float
    shut: _Array
    closed: float
    widest: float
    stretch: _Array
    skill: float
    skills: _Array
    strengths: tuple[float, float]
    limits: _Array

    @staticmethod
    def fit(
        heard: Heard,
        opening: NDArray[np.floating],
        values: NDArray[np.floating],
        names: Sequence[str] = (),
        config: MouthModelConfig | None = None,
    ) -> MouthModel:
        """Fits the model to a recording.

        Args:
            heard: what is heard of its T frames.
            opening: [T] mouth openings, 0 is closed, any unit.
            values: [T, M] expression coefficients that belong to the mouth.
            names: of the M coefficients, where they are known.
            config: how the mouth follows the audio; the defaults for None.
        """
        config = config or MouthModelConfig()
        opening, values = opening.astype(np.float64), values.astype(np.float64)
        raw = _joined(heard)
        centre, scale = raw.mean(0), np.maximum(raw.std(0), _NO_SPREAD)
        inputs = _surroundings(heard, centre, scale, config)
        low, top = np.percentile(opening, [config.closed_percentile, config.widest_percentile])
        posture = _parabola(opening, values)
        rest = values - _powers(opening) @ posture
        spreads = rest.std(0)
        basis = _components(rest, spreads, config.components)
        targets = np.concatenate([opening[:, None], (rest / np.maximum(spreads, _NO_SPREAD)) @ basis.T], 1)
        prior = _prior(heard, inputs.shape[1], targets, basis, names, config)
        ridge = RidgeRegression(inputs, targets, prior)
        guesses = ridge.held_out(config.strengths, config.folds)
        # Opening and form of the mouth are taught apart: a short recording may tell one and not the other.
        worth = 1.0 / np.maximum(targets.var(0), _NO_SPREAD)
        guess, weights, chosen = np.empty_like(targets), np.empty((inputs.shape[1], targets.shape[1])), []
        for part in (slice(0, 1), slice(1, None)):
            error = {s: float((worth * (g - targets) ** 2)[:, part].sum()) for s, g in guesses.items()}
            chosen.append(min(error, key=error.__getitem__))
            guess[:, part] = guesses[chosen[-1]][:, part]
            weights[:, part] = ridge.weights(chosen[-1])[0][:, part]
        shown = _smooth(guess, config.smoothing_frames if heard.after is None else 0.0)
        stretch = np.array(
            [_stretch(shown[:, k], targets[:, k], config) for k in range(targets.shape[1])], dtype=np.float64
        )
        unscaled = basis * np.maximum(spreads, _NO_SPREAD)
        told = _powers(guess[:, 0]) @ posture + guess[:, 1:] @ unscaled
        return MouthModel(
            config=config,
            centre=centre,
            scale=scale,
            weights=weights,
            basis=unscaled,
            posture=posture,
            mean_opening=float(opening.mean()),
            shut=values[opening <= low].mean(0),
            closed=float(low),
            widest=float(top),
            stretch=stretch,
            skill=_correlation(guess[:, 0], opening),
            skills=np.array([_correlation(a, b) for a, b in zip(told.T, values.T, strict=True)]),
            strengths=(chosen[0], chosen[1]),
            limits=np.stack([values.min(0), values.max(0)]),
        )

    def values(self, heard: Heard, levels: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Expression coefficients of the mouth for new audio.

        Args:
            heard: what is heard of N frames, at the level of the recording.
            levels: [N] level of each frame relative to normal speech, dB.

        Returns:
            [N, M] coefficients and [N] the openings that they belong to.
        """
        c = self.config
        told = self._told(heard) * self.stretch
        opening: _Array = np.clip(self.mean_opening + told[:, 0], self.closed, self.widest)
        values: _Array = _powers(opening) @ self.posture + told[:, 1:] @ self.basis
        ahead = c.hold_frames if heard.after is None else min(c.hold_frames, heard.after)
        held = maximum_filter1d(
            np.asarray(levels, np.float64), ahead + c.hold_frames + 1, origin=(c.hold_frames - ahead) // 2
        )
        shut = 1.0 - _step(held, c.quiet_db, c.speaking_db)
        if heard.lips is not None:
            closure = np.asarray(heard.lips, np.float64)[:, LIP_TARGETS.index("closure")]
            shut = np.maximum(shut, _step(closure, c.closure_from, c.closure_to))
        smoothing = c.closing_frames if heard.after is None else 0.0
        opening = _smooth(opening + shut * (self.closed - opening), smoothing)
        values = _smooth(values + shut[:, None] * (self.shut - values), smoothing)
        return np.clip(values, *self.limits).astype(np.float32), opening.astype(np.float32)

    def explained(self, heard: Heard, opening: NDArray[np.floating]) -> NDArray[np.float32]:
        """The part of the recorded coefficients that audio and measured opening explain.

        Args:
            heard: what is heard of T frames.
            opening: [T] measured mouth openings.

        Returns:
            [T, M] coefficients.
        """
        told = (self._told(heard) * self.stretch)[:, 1:] @ self.basis
        return (_powers(np.asarray(opening, np.float64)) @ self.posture + told).astype(np.float32)

    def _told(self, heard: Heard) -> _Array:
        told = _surroundings(heard, self.centre, self.scale, self.config) @ self.weights
        return told if heard.after is not None else _smooth(told, self.config.smoothing_frames)


def _joined(heard: Heard) -> _Array:
    parts = [heard.vectors] if heard.lips is None else [heard.vectors, heard.lips]
    return np.concatenate(parts, 1).astype(np.float64)


def _surroundings(heard: Heard, centre: _Array, scale: _Array, config: MouthModelConfig) -> _Array:
    """[N, D] what is heard of each frame and of its neighbours, standardised."""
    about = (_joined(heard) - centre) / scale
    channels = heard.vectors.shape[1]
    reach = config.reach_frames if heard.phonetic else config.reach_frames_mel
    parts = [_neighbours(about[:, :channels], reach, heard.after)]
    if heard.lips is not None:
        lips = _neighbours(about[:, channels:], config.lips_reach_frames, heard.after)
        parts.append(config.lips_weight * lips)
    return np.concatenate(parts, 1)


def _neighbours(series: _Array, reach: int, after: int | None) -> _Array:
    """[N, R C] each row with ``reach`` before and as many after it, or ``after`` if that is less; the ends are
    repeated."""
    last = reach if after is None else min(reach, after)
    rows = np.arange(len(series))[:, None] + np.arange(-reach, last + 1)
    return series[np.clip(rows, 0, len(series) - 1)].reshape(len(series), -1)


def _prior(
    heard: Heard, width: int, targets: _Array, basis: _Array, names: Sequence[str], config: MouthModelConfig
) -> _Array:
    """Weights [D, 1 + K] before anything is learned: lips open, round, spread and press as any speaker's do."""
    weights = np.zeros((width, targets.shape[1]))
    if heard.lips is None:
        return weights
    lips = len(LIP_TARGETS)
    last = config.lips_reach_frames if heard.after is None else min(config.lips_reach_frames, heard.after)
    now = width - (last + 1) * lips  # the columns of the frame itself
    share = config.prior / config.lips_weight
    weights[now + LIP_TARGETS.index("opening"), 0] = share * targets[:, 0].std()
    for column, name in enumerate(names):
        for beginning, (target, sign) in MOVED_BY_LIPS.items():
            if name.startswith(beginning):
                weights[now + LIP_TARGETS.index(target), 1:] += share * sign * basis[:, column]
    return weights


def _components(rest: _Array, spreads: _Array, kept: float) -> _Array:
    """[K, M] principal components of the standardised columns that hold the fraction ``kept`` of their variance."""
    moves = spreads > _NO_SPREAD
    if not moves.any():
        return np.zeros((0, rest.shape[1]))
    standard = np.where(moves, (rest - rest.mean(0)) / np.maximum(spreads, _NO_SPREAD), 0.0)
    variance, vectors = np.linalg.eigh(standard.T @ standard)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    count = int(np.searchsorted(np.cumsum(variance) / variance.sum(), kept)) + 1
    return vectors[:, : min(count, int(moves.sum()))].T


def _stretch(guess: _Array, target: _Array, config: MouthModelConfig) -> float:
    spread, skill = float(guess.std()), _correlation(guess, target)
    if spread <= _NO_SPREAD or skill < config.least_skill:
        return 1.0
    wanted = min(skill / config.full_skill, 1.0) * float(target.std())
    return float(np.clip(wanted / spread, 1.0, config.most_stretch))


def _correlation(a: _Array, b: _Array) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > _NO_SPREAD and b.std() > _NO_SPREAD else 0.0


def _step(x: _Array, low: float, high: float) -> _Array:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _smooth(series: _Array, frames: float) -> _Array:
    return gaussian_filter1d(series, frames, axis=0, mode="nearest") if frames > 0 else series


def _powers(opening: _Array) -> _Array:
    return np.stack([np.ones_like(opening), opening, opening**2], 1)


def _parabola(opening: _Array, values: _Array) -> _Array:
    """Least squares with a trace of regularisation: an opening that never changes gives the mean."""
    powers = _powers(opening)
    gram = powers.T @ powers
    return np.linalg.solve(gram + PARABOLA_RIDGE * len(opening) * np.eye(3), powers.T @ values)
