"""Ridge regression that is drawn towards a prior, and its predictions in cross-validation.

What all fits share, the products of every two rows or of every two columns, is computed once. It must not know sound,
faces or what is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

_Array = NDArray[np.float64]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices of this size gain nothing from a second thread, and where another program needs the cores, threads that
    wait for each other take fifty times as long."""
    with threadpool_limits(1, "blas"):
        yield


class RidgeRegression:
    """Weights [D, K] from inputs to targets, each about its mean: they minimise the squared error over n rows plus
    ``strength * n`` times the squared distance of the weights from the prior.

    Args:
        inputs: [T, D], finite.
        targets: [T, K].
        prior: [D, K].
    """

    def __init__(self, inputs: _Array, targets: _Array, prior: _Array) -> None:
        self._inputs = inputs - inputs.mean(0)  # for the digits; the means of some rows are taken off below
        self._targets, self._prior = targets, prior
        self._left = targets - self._inputs @ prior
        # Of the two equal forms, the one with the smaller matrix: rows x rows or columns x columns.
        self._dual = inputs.shape[0] < inputs.shape[1]
        with _one_thread():
            self._gram = self._inputs @ self._inputs.T if self._dual else self._inputs.T @ self._inputs

    def weights(self, *strengths: float) -> list[_Array]:
        """[D, K] for each strength, fitted to all rows."""
        with _one_thread():
            if not self._dual:
                return [self._prior + part for part in self._primal(np.ones(len(self._inputs), bool), strengths)]
            solved = self._solved(np.ones(len(self._inputs), bool), strengths)
            return [self._prior + self._inputs.T @ part for part in solved]

    def held_out(self, strengths: Sequence[float], folds: int) -> dict[float, _Array]:
        """For each strength, each of ``folds`` contiguous parts of the rows as the others predict it, [T, K]; the mean
        of the targets where there is only one part."""
        count = len(self._inputs)
        guesses = {
            strength: np.broadcast_to(self._targets.mean(0), self._targets.shape).copy() for strength in strengths
        }
        part = np.arange(count) * folds // count
        parts = np.unique(part)
        if len(parts) < 2:
            return guesses
        with _one_thread():
            for k in parts:
                held = part == k
                for strength, guess in zip(strengths, self._predicted(held, strengths), strict=True):
                    guesses[strength][held] = guess
        return guesses

    def _predicted(self, held: NDArray[np.bool_], strengths: Sequence[float]) -> list[_Array]:
        """The rows ``held`` as all others predict them, for each strength."""
        taught = ~held
        about = self._inputs[held] - self._inputs[taught].mean(0)
        base = about @ self._prior + self._targets[taught].mean(0)
        if not self._dual:
            return [base + about @ part for part in self._primal(taught, strengths)]
        # Products of the held rows with the taught ones, each about the mean of the latter.
        own, across = self._gram[np.ix_(taught, taught)], self._gram[np.ix_(held, taught)]
        across = across - across.mean(1, keepdims=True) - own.mean(0) + own.mean()
        return [base + across @ part for part in self._solved(taught, strengths)]

    def _solved(self, rows: NDArray[np.bool_], strengths: Sequence[float]) -> list[_Array]:
        """Dual: [n, K] factors of the ``rows``, whose weighted sum is what the weights differ by from the prior."""
        gram = self._gram[np.ix_(rows, rows)]
        mean = gram.mean(0)
        gram = gram - mean - mean[:, None] + mean.mean()
        left = self._left[rows] - self._left[rows].mean(0)
        return [_regular(gram, strength * len(gram), left) for strength in strengths]

    def _primal(self, rows: NDArray[np.bool_], strengths: Sequence[float]) -> list[_Array]:
        """[D, K] by which the weights differ from the prior, fitted to ``rows``."""
        others = self._inputs[~rows]
        count, mean = int(rows.sum()), self._inputs[rows].mean(0)
        gram = self._gram - others.T @ others - count * np.outer(mean, mean)
        left = self._left[rows] - self._left[rows].mean(0)
        right = (self._inputs[rows] - mean).T @ left
        return [_regular(gram, strength * count, right) for strength in strengths]


def _regular(gram: _Array, strength: float, right: _Array) -> _Array:
    """Solves (gram + strength) x = right."""
    strong = gram.copy()
    strong[np.diag_indices_from(strong)] += strength
    return np.asarray(cho_solve(cho_factor(strong, overwrite_a=True, check_finite=False), right, check_finite=False))
