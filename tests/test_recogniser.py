from __future__ import annotations

import sys

import numpy as np
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.speech.espeak import espeak_availability, speak
from degstalk_ns.speech.phonemes import ipa, is_bilabial
from degstalk_ns.speech.recogniser import recognised_phonemes


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"pip install 'degstalk-ns\[recogniser\]'"):
        recognised_phonemes(np.zeros(16_000, np.float32))


def test_english_is_recognised_and_silence_is_not() -> None:
    pytest.importorskip("pocketsphinx")
    if espeak_availability() is not None:
        pytest.skip("no espeak-ng")
    starts, names = recognised_phonemes(speak("My mother bought a map of the big bay.").samples)
    assert (np.diff(starts) > 0).all() and len(names) == len(starts) > 10
    assert sum(map(is_bilabial, names)) >= 3 and all(name == "SIL" or ipa(name) for name in names)
    with pytest.raises(UserError, match="no English speech"):
        recognised_phonemes(np.zeros(16_000, np.float32))
