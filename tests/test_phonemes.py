from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.speech.phonemes import LIP_TARGETS, ipa, is_bilabial, is_open_vowel, lip_targets


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("P", "p"),
        ("AA1", "ɑ"),
        ("AY", "aɪ"),
        ("ɑː", "ɑ"),
        ("tʃ", "tʃ"),
        ("ˈaɪ", "aɪ"),
        ("(en)", ""),
        ("SIL", ""),
        ("", ""),
    ],
)
def test_names_of_several_conventions_are_one(name: str, plain: str) -> None:
    assert ipa(name) == plain


def test_classes() -> None:
    assert all(map(is_bilabial, ("p", "b", "m", "P", "B", "M", "bʲ"))) and not any(
        map(is_bilabial, ("f", "w", "t", ""))
    )
    assert all(map(is_open_vowel, ("a", "ɑː", "AA1", "æ", "aɪ"))) and not any(map(is_open_vowel, ("i", "uː", "ə", "p")))


def test_lips_shut_at_a_bilabial_between_open_vowels() -> None:
    targets = lip_targets(np.array([0.0, 0.3, 0.4, 0.7]), ["a", "b", "a", ""], 1.0, 50)
    assert targets.shape == (50, len(LIP_TARGETS)) and (targets >= 0).all() and (targets <= 1).all()
    opening, closure = targets[:, 0], targets[:, 1]
    assert closure[17:20].min() > 0.8 and opening[17:20].max() < 0.2  # 0.34 to 0.4 s
    assert opening[8] > 0.75 and closure[8] < 0.25 and opening[26] > 0.75
    assert opening[45] < 0.05 and closure[45] < 0.05  # a pause closes the lips without pressing them
    assert np.abs(np.diff(opening)).max() < 0.6  # neighbours blend


def test_diphthongs_move_and_rounding_follows() -> None:
    targets = lip_targets(np.array([0.0, 0.4]), ["aʊ", "uː"], 0.8, 50)
    rounding = targets[:, LIP_TARGETS.index("rounding")]
    assert rounding[4] < 0.3 < 0.6 < rounding[15] < rounding[30]


def test_no_phoneme_at_all_is_a_closed_mouth() -> None:
    assert not lip_targets(np.empty(0), [], 1.0, 50).any()
