from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.hearing import choose_ears, recording_heard
from degstalk_ns.animation.mouth_model import MouthModel
from degstalk_ns.audio.loudness import frame_levels, speech_level
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, Sound, load_sound
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError


def _sound(seconds: float = 2.0, gain: float = 0.3) -> Sound:
    """Bursts of noise with pauses between."""
    count = round(seconds * 16_000)
    noise = np.random.default_rng(1).normal(size=count) * gain / 3
    return Sound("new.wav", (noise * ((np.arange(count) // 12_800) % 2 == 0)).astype(np.float32), b"")


@pytest.fixture(scope="module")
def plain(dataset: Path) -> Recording:
    recording = read_recording(dataset)
    return replace(
        recording, audio=mel_windows(load_sound(recording.layout.audio, UNLIMITED).samples, recording.num_frames)
    )


@pytest.fixture(scope="module")
def named(plain: Recording) -> Recording:
    """The same with names: column 0 is the mouth's, all others are not; and a brow that moves."""
    expression = plain.expression.copy()
    expression[:, 2] = np.linspace(0, 1, len(expression))
    names = ("jawOpen", *(f"brow{k}" for k in range(49)))
    return replace(plain, expression=expression, expression_names=names)


def test_the_track_is_as_long_as_the_sound(named: Recording) -> None:
    made = Animation.from_sound(_sound(2.02), named)
    assert len(made.track) == len(made.recorded) == 51
    assert made.track.audio.shape[1:] == named.audio.shape[1:]
    assert (np.abs(np.diff(made.recorded)) == 1).all()
    assert set(made.recorded) <= set(named.train.aud_ids.tolist())


def test_eyes_and_brows_are_the_recorded_moments_and_the_mouth_is_not(named: Recording) -> None:
    made = Animation.from_sound(_sound(), named)
    expression = made.track.expression.numpy()
    assert (expression[:, 1:] == named.expression[made.recorded][:, 1:]).all()
    assert (made.track.eyelids.numpy() == named.eyelids[made.recorded]).all()
    assert np.abs(expression[:, 0] - named.expression[made.recorded, 0]).max() > 0.1
    # Another recorded mouth at the same moments changes nothing but what was learned of it: no recorded row leaks in.
    calm = Animation.from_sound(_sound(), named, upper_face="neutral")
    assert np.allclose(calm.track.expression[:, 0], made.track.expression[:, 0])
    brow = calm.track.expression[:, 2].numpy()
    assert np.ptp(brow) == 0 and brow[0] == pytest.approx(named.expression[named.train.aud_ids, 2].mean())
    assert np.ptp(calm.track.eyelids.numpy()) > 0.5  # blinks go on


def test_the_mouth_is_closed_in_silence(named: Recording) -> None:
    sound = _sound()
    made = Animation.from_sound(sound, named)
    levels = frame_levels(mel_windows(sound.samples))
    quiet = binary_erosion(levels < levels.max() - 40, iterations=5)  # lips open before a sound and close after it
    jaw = made.track.expression[:, 0].numpy()
    assert quiet.sum() > 5
    low, high = jaw.min(), jaw.max()
    assert (jaw[quiet].mean() - low) / (high - low) < 0.15 < (jaw[~quiet].mean() - low) / (high - low)


def test_unnamed_expressions_exchange_what_the_sound_explains(plain: Recording) -> None:
    source, neutral = (Animation.from_sound(_sound(), plain, upper_face=choice) for choice in ("source", "neutral"))
    assert any("does not name its expression values" in note for note in source.notes)
    train = plain.train.aud_ids
    ears, _ = choose_ears(plain, "auto")
    heard = recording_heard(plain, ears)[0].rows(train)
    learned = MouthModel.fit(heard, plain.mouth_opening[train], plain.expression[train])
    left = plain.expression[train] - learned.explained(heard, plain.mouth_opening[train])
    added = (source.track.expression - neutral.track.expression).numpy()
    assert np.allclose(added, left[source.recorded - train[0]], atol=1e-4) and np.abs(added).max() > 0.01
    # Column 0 is the opening itself: nothing of the recorded one is left.
    assert np.abs(added[:, 0]).max() < 0.02


def test_the_level_of_the_sound_does_not_matter_within_reason(named: Recording) -> None:
    loud, soft = (Animation.from_sound(_sound(gain=gain), named) for gain in (0.3, 0.1))
    assert np.allclose(loud.track.audio, soft.track.audio, atol=0.02)
    reference = speech_level(frame_levels(named.audio))
    assert speech_level(frame_levels(loud.track.audio.numpy())) == pytest.approx(reference, abs=1.0) or loud.notes


def test_features_that_cannot_be_computed_are_refused_or_given(make: Callable[..., Path], tmp_path: Path) -> None:
    recording = read_recording(make(audio="ds"))
    sound = _sound()
    with pytest.raises(UserError, match=r"'ds' audio features.*--audio-features"):
        Animation.from_sound(sound, recording)
    path = tmp_path / "aud_ds.npy"
    windows = np.random.default_rng(0).normal(size=(49, 16, 29)).astype(np.float32)
    np.save(path, windows)
    made = Animation.from_sound(sound, recording, features=str(path))
    assert len(made.track) == 50 and (made.track.audio[:49].numpy() == windows).all()
    np.save(path, windows[:20])
    with pytest.raises(UserError, match="holds 20 frames"):
        Animation.from_sound(sound, recording, features=path)
    np.save(tmp_path / "aud_x.npy", windows[:, :8])
    with pytest.raises(UserError, match="this avatar was trained on"):
        Animation.from_sound(sound, recording, features=tmp_path / "aud_x.npy")
