from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.animation import hearing
from degstalk_ns.animation.hearing import Ears, choose_ears, recording_heard
from degstalk_ns.animation.new_sound import NewSoundConfig, driven_by_sound
from degstalk_ns.animation.spoken import spoken_tracks
from degstalk_ns.audio.sound import Sound
from degstalk_ns.audio.whisper import whisper_availability
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.speech.lip_sync import LipSync


@pytest.fixture(scope="module")
def named(dataset: Path) -> Recording:
    """Column 0 is the mouth's, all others are not."""
    return replace(read_recording(dataset), expression_names=("jawOpen", *(f"brow{k}" for k in range(49))))


def test_only_the_mouth_of_held_out_frames_is_driven(named: Recording) -> None:
    tracks, _ = spoken_tracks(named)
    assert set(tracks) == {"spoken", "shuffled", "still", "hushed"}
    held = named.val.aud_ids
    for track in tracks.values():
        expression = track.expression.numpy()
        assert (expression[:, 1:] == named.expression[:, 1:]).all()
        assert (expression[named.train.aud_ids] == named.expression[named.train.aud_ids]).all()
    assert np.allclose(tracks["still"].expression[held, 0], named.expression[named.train.aud_ids, 0].mean())
    assert np.ptp(tracks["hushed"].expression[held, 0].numpy()) < 1e-6
    assert (tracks["spoken"].audio == tracks["still"].audio).all()
    assert not (tracks["shuffled"].audio[held] == tracks["spoken"].audio[held]).all()
    # Nothing of the recorded held-out mouth is left in it.
    other = named.expression.copy()
    other[held, 0] += 5.0
    again, _ = spoken_tracks(replace(named, expression=other))
    assert np.allclose(again["spoken"].expression[held, 0], tracks["spoken"].expression[held, 0], atol=1e-5)


def test_unnamed_values_are_exchanged(dataset: Path) -> None:
    tracks, _ = spoken_tracks(read_recording(dataset))
    assert np.isfinite(tracks["spoken"].expression).all()


def test_ears_are_what_can_be_had(named: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "whisper_availability", lambda: "no model here")
    ears, notes = choose_ears(named, "auto")
    assert ears == "mel" and len(notes) == 1 and "no model here" in notes[0]
    with pytest.raises(UserError, match="no model here"):
        choose_ears(named, "whisper")
    monkeypatch.setattr(hearing, "whisper_availability", lambda: None)
    assert choose_ears(named, "auto") == ("whisper", ()) and choose_ears(named, "mel") == ("mel", ())
    deaf = replace(named, layout=replace(named.layout, root=tmp_path))
    ears, notes = choose_ears(deaf, "auto")
    assert ears == "own" and "aud.wav: missing" in notes[0]
    assert len(recording_heard(deaf, "own")[0]) == deaf.num_frames
    with pytest.raises(UserError, match=r"aud\.wav: missing"):
        choose_ears(deaf, "mel")


def test_a_recording_out_of_step_is_heard_in_step(named: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.repeat(np.arange(2 * named.num_frames, dtype=np.float32)[:, None], 512, 1)
    recording = replace(named, phonetic=vectors)
    monkeypatch.setattr(hearing, "lip_motion", lambda v: v[:, :5])
    monkeypatch.setattr(hearing, "recorded_lip_sync", lambda *_: LipSync(0.2, 0.4, 0.1, noticeable=True))
    heard, notes = recording_heard(recording, "whisper")
    assert "200 ms late" in notes[0]
    assert np.allclose(heard.vectors[3:10, 0], 2 * np.arange(3, 10) + 10)
    monkeypatch.setattr(hearing, "recorded_lip_sync", lambda *_: None)
    heard, notes = recording_heard(replace(recording), "whisper")
    assert np.allclose(heard.vectors[3:10, 0], 2 * np.arange(3, 10)) and not notes


@pytest.mark.parametrize("ears", ["mel", "whisper"])
def test_with_a_look_ahead_later_sound_changes_nothing_before(named: Recording, ears: Ears) -> None:
    if ears == "whisper" and whisper_availability() is not None:
        pytest.skip("no Whisper model")
    rng = np.random.default_rng(0)
    samples = (0.2 * rng.normal(size=32_000) * (np.arange(32_000) // 3200 % 2)).astype(np.float32)
    changed = samples.copy()
    changed[round(1.2 * 16_000) :] = 0.1 * rng.normal(size=12_800)
    config = NewSoundConfig(ears=ears, look_ahead=0.16)
    one, other = (driven_by_sound(Sound("x", s, b""), named, config=config)[0] for s in (samples, changed))
    mouths = [track.expression[:, 0].numpy() for track in (one, other)]
    until = round((1.2 - 0.16) * 25)  # the gain of the whole sound is as before, within the tolerance
    assert np.allclose(mouths[0][:until], mouths[1][:until], atol=0.05)
    assert not np.allclose(mouths[0][until + 8 :], mouths[1][until + 8 :], atol=0.05)
    assert not one.audio.any()
    for wrong in (-1.0, float("nan"), 0.01):
        with pytest.raises(UserError, match="look-ahead of"):
            driven_by_sound(Sound("x", samples, b""), named, config=replace(config, look_ahead=wrong))
