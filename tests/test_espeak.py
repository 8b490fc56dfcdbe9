from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.audio.whisper import whisper_availability, whisper_vectors
from degstalk_ns.errors import UserError
from degstalk_ns.speech import espeak
from degstalk_ns.speech.espeak import SpeakerConfig, espeak_availability, speak
from degstalk_ns.speech.lip_motion import lip_motion
from degstalk_ns.speech.phonemes import LIP_TARGETS, is_bilabial, lip_targets

needs_espeak = pytest.mark.skipif(espeak_availability() is not None, reason=str(espeak_availability()))


@needs_espeak
def test_phonemes_have_their_times() -> None:
    said = speak("Papa. My mother bought a map.")
    assert said.samples.dtype == np.float32 and np.abs(said.samples).max() <= 1
    assert len(said.starts) == len(said.phonemes) and (np.diff(said.starts) >= 0).all()
    assert said.starts[-1] <= len(said.samples) / 16_000 + 0.02
    assert sum(map(is_bilabial, said.phonemes)) == 7
    # Between the two sentences there is a pause, and silence in it.
    pause = next(k for k, name in enumerate(said.phonemes) if name == "" and k > 2)
    middle = round(16_000 * (said.starts[pause] + said.starts[pause + 1]) / 2)
    assert np.abs(said.samples[middle : middle + 160]).max() < 0.01


@needs_espeak
def test_bad_input_is_one_line() -> None:
    for text, match in (("", "is empty"), ("a" * 30_000, "at most")):
        with pytest.raises(UserError, match=match):
            speak(text)
    with pytest.raises(UserError, match="no voice 'xx-nowhere'"):
        speak("a", SpeakerConfig("xx-nowhere"))


def test_without_the_library_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(espeak.LIBRARY_VARIABLE, "/nowhere/libespeak-ng.so")
    espeak._library.cache_clear()
    assert "install espeak-ng" in str(espeak_availability())
    espeak._library.cache_clear()


@needs_espeak
@pytest.mark.skipif(whisper_availability() is not None, reason="no Whisper model")
@pytest.mark.parametrize("voice", ["cs+f5", "en-us+m8"])
def test_the_lips_of_any_speaker_follow_voices_that_were_not_trained_on(voice: str) -> None:
    said = speak("Mama vari polevku a tata pije pivo. Pepa ma malou babu. Auta jedou po mostu.", SpeakerConfig(voice))
    told = lip_motion(whisper_vectors(said.samples))
    truth = lip_targets(said.starts, said.phonemes, len(said.samples) / 16_000, 50)
    count = min(len(told), len(truth))
    assert told.min() >= 0 and told.max() <= 1
    for name in ("opening", "closure", "rounding"):
        k = LIP_TARGETS.index(name)
        assert np.corrcoef(told[:count, k], truth[:count, k])[0, 1] > 0.5
        # The control: the same lips against another moment.
        assert np.corrcoef(np.roll(told[:count, k], 40), truth[:count, k])[0, 1] < 0.4
