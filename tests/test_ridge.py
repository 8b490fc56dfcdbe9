"""Ridge regression against its definition, in both of its forms."""

from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.animation.ridge import RidgeRegression

STRENGTHS = (0.05, 2.0, 1e6)


def _made(frames: int, columns: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(frames, columns)) * rng.random(columns) * 3 + rng.normal(size=columns) * 5
    return inputs, rng.normal(size=(frames, 2)) + 4, rng.normal(size=(columns, 2))


def _plain(inputs: np.ndarray, targets: np.ndarray, prior: np.ndarray, strength: float) -> np.ndarray:
    """The minimum, by least squares with the prior as further rows."""
    about, wanted = inputs - inputs.mean(0), targets - targets.mean(0)
    root = np.sqrt(strength * len(inputs))
    rows = np.concatenate([about, root * np.eye(inputs.shape[1])])
    return np.linalg.lstsq(rows, np.concatenate([wanted, root * prior]), rcond=None)[0]


@pytest.mark.parametrize("shape", [(60, 9), (30, 44), (12, 11), (2, 5)])
def test_weights_are_the_minimum_of_what_is_minimised(shape: tuple[int, int]) -> None:
    inputs, targets, prior = _made(*shape)
    for strength, weights in zip(STRENGTHS, RidgeRegression(inputs, targets, prior).weights(*STRENGTHS), strict=True):
        assert np.allclose(weights, _plain(inputs, targets, prior, strength), atol=1e-7), strength


@pytest.mark.parametrize("shape", [(60, 9), (30, 44), (7, 40)])
@pytest.mark.parametrize("folds", [2, 5])
def test_each_part_is_predicted_from_the_others(shape: tuple[int, int], folds: int) -> None:
    inputs, targets, prior = _made(*shape)
    part = np.arange(len(inputs)) * folds // len(inputs)
    guesses = RidgeRegression(inputs, targets, prior).held_out(STRENGTHS, folds)
    for strength in STRENGTHS:
        for k in range(folds):
            held = part == k
            weights = _plain(inputs[~held], targets[~held], prior, strength)
            expected = (inputs[held] - inputs[~held].mean(0)) @ weights + targets[~held].mean(0)
            assert np.allclose(guesses[strength][held], expected, atol=1e-7), (strength, k)


def test_one_row_and_one_part_predict_the_mean() -> None:
    inputs, targets, prior = _made(8, 3)
    assert np.allclose(RidgeRegression(inputs, targets, prior).held_out((1.0,), 1)[1.0], targets.mean(0))
    one = RidgeRegression(inputs[:1], targets[:1], prior)
    assert np.allclose(one.held_out((1.0,), 5)[1.0], targets[:1]) and np.allclose(one.weights(1.0)[0], prior)


def test_inputs_that_never_change_teach_nothing() -> None:
    _, targets, _ = _made(20, 4)
    for columns in (4, 30):
        still = np.full((20, columns), 7.0)
        drawn = np.ones((columns, 2))
        assert np.allclose(RidgeRegression(still, targets, drawn).weights(0.5)[0], drawn)


def test_it_is_drawn_to_its_prior() -> None:
    rng = np.random.default_rng(3)
    inputs, prior = rng.normal(size=(100, 4)), rng.normal(size=(4, 1))
    free, held = RidgeRegression(inputs, inputs @ np.ones((4, 1)), prior).weights(1e-9, 1e9)
    assert np.allclose(free, 1.0, atol=1e-5) and np.allclose(held, prior, atol=1e-5)
