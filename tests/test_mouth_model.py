from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.animation.mouth_model import Heard, MouthModel, MouthModelConfig
from degstalk_ns.speech.phonemes import LIP_TARGETS

Recorded = tuple[Heard, np.ndarray, np.ndarray]
NAMES = ("jawOpen", "mouthPucker", "mouthSmileLeft")


def _recorded(count: int, seed: int = 0, told: float = 1.0) -> Recorded:
    """A sound whose vectors [T, 24] tell the opening [T] and a pucker as far as ``told`` (0 to 1), and what the lips of
    any speaker do for it; with values [T, 3]: opening, pucker, and the opening's square."""
    rng = np.random.default_rng(seed)
    t = np.arange(count)
    opening = np.clip(0.1 + 0.06 * np.sin(t / 3) + 0.05 * np.sin(t / 7.3), 0, 1)
    pucker = np.sin(t / 5)
    mixing = np.random.default_rng(7).normal(size=(2, 24))
    vectors = told * (10 * opening[:, None] * mixing[0] + pucker[:, None] * mixing[1]) + 0.2 * rng.normal(
        size=(count, 24)
    )
    lips = np.zeros((count, len(LIP_TARGETS)))
    lips[:, 0] = opening * 5 + 0.2 * rng.normal(size=count)
    lips[:, 2] = 0.5 + 0.3 * pucker + 0.2 * rng.normal(size=count)
    return Heard(vectors, True, lips), opening, np.stack([2 * opening, pucker, opening**2], 1)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return _recorded(600)


@pytest.fixture(scope="module")
def learned(recorded: Recorded) -> MouthModel:
    heard, opening, values = recorded
    return MouthModel.fit(heard.rows(slice(500)), opening[:500], values[:500], NAMES)


def test_the_recorded_sound_gives_the_recorded_mouth(learned: MouthModel, recorded: Recorded) -> None:
    heard, opening, values = recorded[0].rows(slice(500, None)), recorded[1][500:], recorded[2][500:]
    assert learned.skill > 0.9 and (learned.skills > 0.85).all()
    told, heard_opening = learned.values(heard, np.zeros(100))
    assert np.corrcoef(heard_opening, opening)[0, 1] > 0.9
    assert heard_opening.std() == pytest.approx(opening.std(), rel=0.2)
    for column in range(3):
        assert np.corrcoef(told[:, column], values[:, column])[0, 1] > 0.85
    # Values and opening belong together: the square of what is told is told too.
    assert np.abs(told[:, 2] - (told[:, 0] / 2) ** 2).max() < 0.01


def test_without_lips_of_any_speaker_the_vectors_alone_teach(recorded: Recorded) -> None:
    heard, opening, values = recorded
    alone = Heard(heard.vectors, False)
    learned = MouthModel.fit(alone.rows(slice(500)), opening[:500], values[:500], NAMES)
    _, told = learned.values(alone.rows(slice(500, None)), np.zeros(100))
    assert np.corrcoef(told, opening[500:])[0, 1] > 0.9


def test_a_recording_that_teaches_nothing_leaves_the_lips_of_any_speaker() -> None:
    heard, opening, values = _recorded(150, told=0.0)
    learned = MouthModel.fit(heard, opening, values, NAMES, MouthModelConfig(strengths=(1e6,)))
    other, truth, wanted = _recorded(200, seed=5, told=0.0)
    told, heard_opening = learned.values(other, np.zeros(200))
    assert np.corrcoef(heard_opening, truth)[0, 1] > 0.7
    assert np.corrcoef(told[:, 1], wanted[:, 1])[0, 1] > 0.6  # the pucker rounds with any speaker's
    # A control: without any speaker's lips and without teaching there is nothing.
    blind = MouthModel.fit(Heard(heard.vectors, True), opening, values, NAMES, MouthModelConfig(strengths=(1e6,)))
    assert blind.values(Heard(other.vectors, True), np.zeros(200))[1].std() < 0.1 * truth.std()


def test_silence_closes_the_mouth_and_speech_opens_it(learned: MouthModel, recorded: Recorded) -> None:
    levels = np.where(np.arange(100) < 50, -70.0, 0.0)
    told, opening = learned.values(recorded[0].rows(slice(500, None)), levels)
    assert np.allclose(opening[:43], learned.closed, atol=1e-4) and np.allclose(told[:43], learned.shut, atol=1e-3)
    assert opening[55:].mean() > learned.closed + 0.3 * (learned.widest - learned.closed)
    assert opening.max() <= learned.widest + 1e-6


def test_lips_that_press_together_are_shut(learned: MouthModel, recorded: Recorded) -> None:
    heard = recorded[0].rows(slice(500, None))
    pressed = np.array(heard.lips)
    pressed[40:44, LIP_TARGETS.index("closure")] = 0.9
    loud = np.zeros(100)
    _, opening = learned.values(Heard(heard.vectors, True, pressed), loud)
    assert opening[41:43].max() < learned.closed + 0.15 * (learned.widest - learned.closed)
    unpressed = np.array(heard.lips)
    unpressed[40:44, LIP_TARGETS.index("closure")] = MouthModelConfig().closure_from
    _, before = learned.values(Heard(heard.vectors, True, unpressed), loud)
    assert before[41:43].max() > 2 * opening[41:43].max()


def test_nothing_leaves_what_was_recorded(learned: MouthModel, recorded: Recorded) -> None:
    heard = recorded[0].rows(slice(500, None))
    told, opening = learned.values(Heard(50 * heard.vectors, True, heard.lips), np.zeros(100))
    assert (told >= learned.limits[0] - 1e-6).all() and (told <= learned.limits[1] + 1e-6).all()
    assert opening.min() >= learned.closed - 1e-6 and opening.max() <= learned.widest + 1e-6


def test_a_mouth_that_never_moves_stays() -> None:
    rng = np.random.default_rng(0)
    heard = Heard(rng.normal(size=(40, 6)), True, rng.random((40, len(LIP_TARGETS))))
    learned = MouthModel.fit(heard, np.full(40, 0.2), np.full((40, 2), 0.7), ("jawOpen", "mouthPucker"))
    told, opening = learned.values(heard, np.zeros(40))
    assert np.allclose(opening, 0.2, atol=1e-3) and np.allclose(told, 0.7, atol=1e-3)
    one = MouthModel.fit(heard.rows(slice(1)), np.array([0.2]), np.array([[0.7, 0.1]]))
    assert np.isfinite(one.values(heard, np.zeros(40))[0]).all()
