from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.metrics.speech.audio_driven import audio_driven, lip_lag
from degstalk_ns.metrics.speech.phonemes import TimedPhonemes, measure_phonemes, phonemes_text, read_phonemes
from degstalk_ns.scripts import cli
from degstalk_ns.speech.espeak import espeak_availability

NAMES = ("p", "a", "t", "i", "", "m", "ɑ", "s", "u", "", "b", "æ", "n", "o", "k", "e")
SAID = TimedPhonemes(0.2 + 0.25 * np.arange(3 * len(NAMES)), 3 * NAMES)
OPENINGS = {"p": 0.0, "m": 0.0, "b": 0.0, "a": 1.0, "ɑ": 0.9, "æ": 1.0, "": 0.0, "i": 0.3, "u": 0.2, "o": 0.5}


def _lips(late: float = 0.0, blind: bool = False) -> np.ndarray:
    """Openings of lips that do what the phonemes ask, ``late`` seconds later; or that flap at random."""
    times = np.arange(320) / 25
    if blind:
        rng = np.random.default_rng(0)
        return np.repeat(rng.random(107), 3)[:320]
    rows = np.clip(np.searchsorted(SAID.starts, times - late + 1e-9) - 1, 0, None)
    return np.array([OPENINGS.get(SAID.names[k], 0.4) for k in rows])


def test_lips_that_follow_score_and_lips_that_flap_score_as_the_control() -> None:
    good = measure_phonemes(_lips(), SAID, 1.0)
    assert (good.measured.bilabials, good.measured.open_vowels) == (9, 9)
    assert good.measured.closed == good.measured.opened == good.measured.chance == 1.0
    assert good.lag is not None and abs(good.lag) <= 1
    assert good.control.closed is not None and good.control.closed < 0.7
    blind = measure_phonemes(_lips(blind=True), SAID, 1.0)
    assert blind.measured.closed is not None and blind.control.closed is not None
    assert blind.measured.closed < 0.7 and abs(blind.measured.closed - blind.control.closed) < 0.3


def test_late_lips_are_found() -> None:
    lags = [measure_phonemes(_lips(late=late), SAID, 1.0).lag for late in (0.0, 0.12)]
    assert lags[0] is not None and lags[1] == lags[0] + 3
    shut = measure_phonemes(_lips(late=0.3), SAID, 1.0).measured
    assert shut.closed is not None and shut.closed < 0.8


def test_moments_without_a_face_are_left_out_and_few_phonemes_tell_nothing() -> None:
    lips = _lips()
    lips[:150] = np.nan
    report = measure_phonemes(lips, SAID, 1.0)
    assert 0 < report.measured.bilabials < 9 and report.measured.closed == 1.0
    few = measure_phonemes(_lips(), TimedPhonemes(SAID.starts[:4], SAID.names[:4]), 1.0)
    assert few.measured.closed is None and few.measured.chance is None
    assert measure_phonemes(np.full(320, np.nan), SAID, 1.0).measured.bilabials == 0


def test_files_of_phonemes(tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    path.write_text(phonemes_text(SAID), encoding="utf-8")
    again = read_phonemes(path)
    assert again.names == SAID.names and np.allclose(again.starts, SAID.starts)
    for content in ("{", "[]", '[[0.5, "a"], [0.2, "b"]]', '[["x", "a"]]', "[1, 2]", '[[NaN, "a"]]', '[[-1, "a"]]'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"said\.json: .*expected a list of pairs"):
            read_phonemes(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_phonemes(tmp_path / "none.json")


def test_lag_and_likeness_of_driven_lips() -> None:
    rng = np.random.default_rng(0)
    true = np.convolve(rng.normal(size=130), np.ones(4) / 4)[:120]
    told = audio_driven((0.5 * np.roll(true, 2)).tolist(), true.tolist())
    assert told["lag"] == 2.0 and told["spread"] == pytest.approx(0.5, abs=0.01) and told["r"] < 0.9
    assert audio_driven(true.tolist(), true.tolist())["r"] == pytest.approx(1.0)
    assert lip_lag(true[:5].tolist(), true[:5].tolist()) is None
    assert audio_driven([0.0] * 50, true[:50].tolist()) == {}


@pytest.mark.skipif(espeak_availability() is not None, reason=str(espeak_availability()))
def test_the_command_writes_a_sound_and_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, times = tmp_path / "a.wav", tmp_path / "a.json"
    text = tmp_path / "text.txt"
    text.write_text("Papa bought a map.", encoding="utf-8")
    cli.main(["phonemes", str(text), str(sound), str(times), "--voice", "en-us+f3"])
    assert "p, b or m: 5" in capsys.readouterr().out
    assert sound.stat().st_size > 10_000 and json.loads(times.read_text(encoding="utf-8"))[0][1] == "p"
    for arguments in (["x", str(tmp_path / "b.mp3"), str(times)], ["", str(sound), str(times)]):
        with pytest.raises(SystemExit) as stop:
            cli.main(["phonemes", *arguments])
        assert stop.value.code == cli.FAILED and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "b.mp3").exists()
