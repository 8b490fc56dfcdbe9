from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.animation.mouth_model import MouthModel, _ridge


@pytest.fixture(scope="module")
def recorded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sound [T, 4, 6] that tells the opening [T], and values [T, 3]: opening, its square, and something else heard."""
    rng = np.random.default_rng(0)
    opening = np.clip(0.1 + 0.06 * np.sin(np.arange(600) / 3) + 0.03 * np.sin(np.arange(600) / 7.3), 0, 1)
    other = np.sin(np.arange(600) / 5)
    windows = opening[:, None] * rng.normal(size=24) * 10 + other[:, None] * rng.normal(size=24)
    windows += 0.2 * rng.normal(size=windows.shape)
    values = np.stack([2 * opening, opening**2, other], 1)
    return windows.reshape(600, 4, 6), opening, values


@pytest.fixture(scope="module")
def learned(recorded: tuple[np.ndarray, np.ndarray, np.ndarray]) -> MouthModel:
    return MouthModel.fit(*(part[:500] for part in recorded))


def test_the_recorded_sound_gives_the_recorded_mouth(
    learned: MouthModel, recorded: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    windows, opening, values = (part[500:] for part in recorded)
    assert learned.skill > 0.9
    told, heard = learned.values(windows, np.zeros(100), share=0.0)
    assert np.corrcoef(heard, opening)[0, 1] > 0.9
    for column in range(3):
        assert np.corrcoef(told[:, column], values[:, column])[0, 1] > 0.85
    # Values and opening belong together: the square of what is told is told too.
    assert np.abs(told[:, 1] - (told[:, 0] / 2) ** 2).max() < 0.01


def test_silence_closes_the_mouth_and_speech_opens_it(
    learned: MouthModel, recorded: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    levels = np.where(np.arange(100) < 50, -60.0, 0.0)
    _, opening = learned.values(recorded[0][500:], levels)
    assert np.allclose(opening[:45], learned.closed, atol=1e-4)
    assert opening[55:].mean() > learned.closed + 0.3 * (learned.wide - learned.closed)
    assert opening.max() <= learned.widest + 1e-6


def test_loudness_alone_opens_in_order(learned: MouthModel) -> None:
    still = np.tile(learned.centre.reshape(1, 4, 6), (200, 1, 1))
    _, opening = learned.values(still, np.linspace(-60, 0, 200), share=1.0)
    assert (np.diff(opening) >= -1e-6).all()
    assert opening[0] == pytest.approx(learned.closed, abs=1e-4) and opening[-1] > 0.9 * learned.wide


def test_a_mouth_that_never_moves_stays() -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(40, 2, 3))
    learned = MouthModel.fit(windows, np.full(40, 0.2), np.full((40, 2), 0.7))
    told, opening = learned.values(windows, np.zeros(40))
    assert np.allclose(opening, 0.2, atol=1e-3) and np.allclose(told, 0.7, atol=1e-3)
    one = MouthModel.fit(windows[:1], np.array([0.2]), np.array([[0.7]]))
    assert np.isfinite(one.values(windows, np.zeros(40))[0]).all()


def test_both_forms_of_the_ridge_agree() -> None:
    rng = np.random.default_rng(3)
    inputs, targets = rng.normal(size=(30, 24)), rng.normal(size=(30, 2))
    wide = np.concatenate([inputs, np.zeros((30, 20))], 1)  # 44 columns: more than frames, and no other information
    for one, other in zip(_ridge(inputs, targets, 0.1, 2.0)[1], _ridge(wide, targets, 0.1, 2.0)[1], strict=True):
        assert np.allclose(one, other[:24]) and np.allclose(other[24:], 0)
