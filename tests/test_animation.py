from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from degstalk_ns.animation.animation import Take, _nearest, take_of_recording
from degstalk_ns.avatar.driving import DrivingTrack
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError


@pytest.fixture(scope="module")
def take(dataset: Path) -> Take:
    recording = read_recording(dataset)
    parts = (recording.audio, recording.expression, recording.eyelids, recording.jaw)
    return take_of_recording(recording, DrivingTrack(*(torch.from_numpy(part.copy()) for part in parts)), "all")


def test_a_part_keeps_its_sound_in_step(take: Take) -> None:
    part = take.between(0.2, 0.6)
    assert part.rows.tolist() == list(range(5, 15)) == part.recorded.tolist()
    assert part.soundtrack is not None
    assert part.soundtrack.start == pytest.approx(0.2) and part.soundtrack.seconds == pytest.approx(0.4)
    again = part.between(0.12, None)
    assert again.rows[0] == 8 and again.soundtrack is not None
    assert again.soundtrack.start == pytest.approx(0.32) and again.soundtrack.seconds == pytest.approx(0.28)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (99.0, None), (-1.0, None), (0.5, 0.2)])
def test_an_empty_part_is_refused(take: Take, start: float, end: float | None) -> None:
    with pytest.raises(UserError, match="nothing lies between"):
        take.between(start, end)


def test_splits_follow_each_other(dataset: Path, take: Take) -> None:
    recording = read_recording(dataset)
    train, val = (take_of_recording(recording, take.track, name) for name in ("train", "val"))  # type: ignore[arg-type]
    assert np.concatenate([train.rows, val.rows]).tolist() == take.rows.tolist()
    assert val.soundtrack is not None and val.soundtrack.start == pytest.approx(len(train) / 25)


def test_fingerprints_tell_takes_apart(take: Take) -> None:
    assert take.fingerprint() == take.between(0, None).fingerprint()
    assert take.fingerprint() != take.between(0.2, None).fingerprint()
    moved = Take(take.track.frozen(), take.rows, take.recorded, False, None, take.soundtrack, take.spoken)
    assert take.fingerprint() != moved.fingerprint()


def test_the_nearest_recorded_frame_of_each() -> None:
    random = np.random.default_rng(0)
    for size in (1, 2, 40):
        known = np.sort(random.choice(100, size, replace=False))
        rows = np.arange(-5, 110)
        expected = known[np.abs(rows[:, None] - known[None]).argmin(1)]
        assert (_nearest(known, rows) == expected).all()
