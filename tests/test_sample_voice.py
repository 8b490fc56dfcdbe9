"""The sample's speech: its script, its sound, and the mouth that goes with it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from degstalk_ns.audio.mel import MelConfig, mel_windows
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.sample.acting.script import ARTICULATORS, VOWELS, Script, articulation, write_script
from degstalk_ns.sample.acting.voice import synthesise

SECONDS = 10.0


@pytest.fixture(scope="module")
def script() -> Script:
    return write_script(SECONDS, 0)


@pytest.fixture(scope="module")
def sound(script: Script) -> np.ndarray:
    return synthesise(script, 0)


@pytest.mark.parametrize("seconds", [2.0, 3.4, 10.0, 60.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_script_fills_its_time_with_phrases_and_pauses(seconds: float, seed: int) -> None:
    phones = write_script(seconds, seed).phones
    assert phones[0].start == 0 and phones[-1].end == seconds and phones[0].name == phones[-1].name == ""
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(phones))
    for phone in phones[1:-1]:
        length = phone.end - phone.start
        assert (0.2 < length < 1.2) if phone.name == "" else (0.035 < length < 0.4)
    phrases = {phone.phrase for phone in phones if phone.phrase >= 0}
    for phrase in phrases:
        vowels = sum(phone.name in VOWELS for phone in phones if phone.phrase == phrase)
        assert 3 <= vowels <= 8


@pytest.mark.parametrize("seed", range(6))
def test_the_validation_part_holds_speech_with_an_open_and_a_closed_mouth(seed: int) -> None:
    script = write_script(SECONDS, seed)
    times = np.arange(227, 250) / 25
    jaw = articulation(script, times)["jaw"]
    assert jaw.max() > 0.4 and jaw.min() < 0.03
    assert (jaw > 0.15).mean() > 0.3


def test_the_sound_has_the_script_s_length_and_a_usual_level(sound: np.ndarray) -> None:
    assert sound.shape == (int(SECONDS * SAMPLE_RATE),) and sound.dtype == np.float32
    assert np.abs(sound).max() == pytest.approx(0.7)
    assert -26 < 20 * np.log10(sound.std()) < -16


def test_pauses_are_silent_and_silence_closes_the_mouth(script: Script, sound: np.ndarray) -> None:
    pauses = [phone for phone in script.phones if phone.name == "" and phone.end - phone.start > 0.25]
    assert len(pauses) >= 3
    for pause in pauses:
        first, last = int((pause.start + 0.12) * SAMPLE_RATE), int((pause.end - 0.06) * SAMPLE_RATE)
        assert not sound[first:last].any()
        middle = articulation(script, np.linspace(pause.start + 0.1, pause.end - 0.15, 5))
        assert all(middle[name].max() < 0.02 for name in ARTICULATORS)
    windows = mel_windows(sound)
    assert windows[0, 8] == pytest.approx(MelConfig().silence)


def test_the_jaw_follows_the_loudness(script: Script, sound: np.ndarray) -> None:
    times = np.arange(250) / 25
    jaw = articulation(script, times)["jaw"]
    loudness = np.sqrt(np.mean(sound.reshape(250, -1).astype(float) ** 2, axis=1)) ** 0.5
    assert np.corrcoef(jaw[1:], loudness[1:])[0, 1] > 0.7


def test_windows_of_sound_tell_the_mouth() -> None:
    """A plain linear map from mel windows, fitted on one text, foretells the jaw of another."""
    parts = []
    for seed in (1, 2):
        script = write_script(40.0, seed)
        windows = mel_windows(synthesise(script, seed), 1000).reshape(1000, -1)
        parts.append((windows, articulation(script, np.arange(1000) / 25)))
    (x, seen), (new, hidden) = parts
    mean = x.mean(0)
    for name, least in (("jaw", 0.9), ("rounded", 0.85), ("spread", 0.85), ("pressed", 0.5)):
        gram = (x - mean) @ (x - mean).T + 300.0 * np.eye(len(x))
        found = (new - mean) @ (x - mean).T @ np.linalg.solve(gram, seen[name] - seen[name].mean())
        assert np.corrcoef(found, hidden[name])[0, 1] > least, name


@pytest.mark.parametrize("name", ["m", "b", "p"])
def test_lips_meet_on_labials_a_little_before_they_sound(name: str) -> None:
    for seed in range(20):
        script = write_script(SECONDS, seed)
        for spoken in script.phones:
            if spoken.name == name:
                times = np.linspace(spoken.start - 0.15, spoken.end + 0.15, 61)
                pressed = articulation(script, times)["pressed"]
                assert pressed.max() > 0.9
                middle = 0.5 * (spoken.start + spoken.end)
                assert -0.08 < times[pressed.argmax()] - middle < 0.0
                return
    raise AssertionError(f"no {name} in twenty scripts")


def test_formants_of_vowels_are_where_they_belong() -> None:
    """The strongest band of an a lies higher than that of an i or u; an s is mostly above 4 kHz."""
    spectra: dict[str, list[np.ndarray]] = {}
    for seed in range(4):
        script = write_script(SECONDS, seed)
        sound = synthesise(script, seed)
        for spoken in script.phones:
            middle = int(0.5 * (spoken.start + spoken.end) * SAMPLE_RATE)
            piece = sound[middle - 256 : middle + 256] * np.hanning(512)
            spectra.setdefault(spoken.name, []).append(np.abs(np.fft.rfft(piece)) ** 2)
    frequency = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)

    def share(name: str, low: float, high: float) -> float:
        total = np.mean([spectrum / spectrum.sum() for spectrum in spectra[name]], axis=0)
        return float(total[(frequency >= low) & (frequency < high)].sum())

    assert share("a", 650, 1500) > 0.5 > share("i", 650, 1500)
    assert share("i", 2200, 3600) > 3 * share("u", 2200, 3600)
    assert share("s", 3800, 8000) > 0.7


def test_another_seed_says_something_else_and_the_same_seed_the_same(script: Script, sound: np.ndarray) -> None:
    assert write_script(SECONDS, 0) == script
    np.testing.assert_array_equal(synthesise(script, 0), sound)
    assert write_script(SECONDS, 1) != script
