"""Animations: of the recording, of new audio, along a path; their parts and moments."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from degstalk_ns.animation.animation import Animation, _nearest, recorded_track
from degstalk_ns.animation.camera_path import CameraPath
from degstalk_ns.audio.sound import Sound
from degstalk_ns.audio.windows import windows_of
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError


@pytest.fixture(scope="module")
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


@pytest.fixture(scope="module")
def whole(recording: Recording) -> Animation:
    return Animation.from_recording(recording, "all")


def test_a_part_keeps_its_audio_in_step(whole: Animation) -> None:
    part = whole.between(0.2, 0.6)
    assert part.rows.tolist() == list(range(5, 15)) == part.recorded.tolist()
    assert part.sound is not None
    assert part.sound.start == pytest.approx(0.2) and part.sound.seconds == pytest.approx(0.4)
    again = part.between(0.12, None)
    assert again.rows[0] == 8 and again.sound is not None
    assert again.sound.start == pytest.approx(0.32) and again.sound.seconds == pytest.approx(0.28)
    assert whole.sound is not None
    assert np.array_equal(again.sound.samples, whole.sound.samples[round(0.32 * 16_000) :][: len(again.sound.samples)])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (99.0, None), (-1.0, None), (0.5, 0.2)])
def test_an_empty_part_is_refused(whole: Animation, start: float, end: float | None) -> None:
    with pytest.raises(UserError, match="nothing lies between"):
        whole.between(start, end)


@pytest.mark.parametrize(("start", "end"), [(math.nan, None), (math.inf, None), (0.0, math.nan), (0.0, math.inf)])
def test_a_part_between_what_are_no_numbers_is_refused(whole: Animation, start: float, end: float | None) -> None:
    with pytest.raises(UserError, match="expected finite numbers of seconds"):
        whole.between(start, end)


def test_splits_follow_each_other(recording: Recording, whole: Animation) -> None:
    train, val = (Animation.from_recording(recording, name) for name in ("train", "val"))  # type: ignore[arg-type]
    assert np.concatenate([train.rows, val.rows]).tolist() == whole.rows.tolist()
    assert val.sound is not None and val.sound.start == pytest.approx(len(train) / 25)
    assert train.track is val.track, "one track for all who ask for the same recording"
    assert float(val.conditions(0).expression[0]) == pytest.approx(float(recording.expression[len(train), 0]))


def test_frames_and_moments(recording: Recording) -> None:
    track = recorded_track(recording)
    rows = np.arange(50) % len(track)
    animation = Animation("x", track, rows, rows, False, None)
    assert animation.duration == 2.0 and animation.seconds_of(10) == 0.4
    assert [animation.frame_at(t) for t in (-1.0, 0.0, 0.019, 0.021, 1.96, 9.0)] == [0, 0, 0, 1, 49, 49]
    assert animation.frame_at(2.04, loop=True) == 1 and animation.frame_at(-0.04, loop=True) == 49
    with pytest.raises(ValueError, match="needs frames"):
        Animation("x", track, rows[:0], rows[:0], False, None)
    with pytest.raises(ValueError, match="needs frames"):
        Animation("x", track, rows, rows[:3], False, None)


def test_new_audio_borrows_recorded_moments_and_lasts_as_long_as_it(recording: Recording) -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    sound = Sound("mine.wav", noise, b"")
    animation = Animation.from_sound(sound, recording)
    assert len(animation) == 25 and animation.freed and animation.name == "mine.wav"
    assert set(animation.recorded) <= set(recording.train.aud_ids.tolist())
    assert np.abs(np.diff(animation.recorded)).max() <= 1
    assert animation.sound is not None and np.array_equal(animation.sound.samples, noise)


def test_missing_and_broken_audio_of_a_recording_is_said(dataset_copy: Path) -> None:
    recording = read_recording(dataset_copy)
    recording.layout.audio.write_bytes(b"no sound at all" * 9)
    broken = Animation.from_recording(recording)
    assert broken.sound is None and "has no readable audio" in broken.notes[0] and "no audio" in broken.notes[0]
    recording.layout.audio.unlink()
    assert "missing" in Animation.from_recording(recording).notes[0]


def test_a_path_with_times_shows_the_moments_it_asks_for(recording: Recording) -> None:
    c2w = recording.train.c2w[:2].astype(np.float64)
    path = CameraPath(c2w, np.array([100.0, 100.0]), np.array([0.0, 1.0]), 64, 64, 10.0)
    animation = Animation.from_path(recording, path)
    assert animation.rows[0] == 0 and animation.rows[-1] == recording.num_frames - 1
    assert animation.sound is None and animation.views is not None and len(animation.views) == len(animation) == 5
    with pytest.raises(UserError, match=r"path\.json: its cameras have no times"):
        Animation.from_path(recording, replace(path, times=None), "path.json")


def test_fingerprints_tell_animations_apart(whole: Animation) -> None:
    assert whole.fingerprint() == whole.between(0, None).fingerprint()
    others = [
        whole.between(0.2, None),
        replace(whole, track=whole.track.frozen()),
        replace(whole, freed=True),
        replace(whole, track=replace(whole.track, eyelids=torch.rand_like(whole.track.eyelids))),
    ]
    assert len({animation.fingerprint() for animation in (whole, *others)}) == 5


def test_the_nearest_recorded_frame_of_each() -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 40):
        known = np.sort(random.choice(100, size, replace=False))
        rows = np.arange(-5, 110)
        expected = known[np.abs(rows[:, None] - known[None]).argmin(1)]
        assert (_nearest(known, rows) == expected).all()


def test_windows_that_are_views_take_the_memory_of_their_vectors(dataset: Path) -> None:
    recording = read_recording(dataset)
    vectors = np.random.default_rng(0).normal(size=(2 * recording.num_frames, 512)).astype(np.float16)
    windows = windows_of(vectors, recording.num_frames)
    track = recorded_track(replace(recording, audio=windows))
    assert np.array_equal(track.audio.numpy(), windows)
    assert track.audio.untyped_storage().nbytes() == (len(vectors) + 14) * 512 * 4
    # 7,000 frames of 512 channels take less than 40 MB so.
    assert (2 * 7000 + 14) * 512 * 4 < 40e6
    assert torch.equal(track.at_frame(5).audio, torch.from_numpy(windows[1:9].transpose(0, 2, 1).copy()))
    assert torch.equal(recorded_track(recording).audio, torch.from_numpy(recording.audio.copy()))
