import pytest
import torch

from degstalk_ns.avatar.driving import DrivingTrack


def _track(frames: int = 10) -> DrivingTrack:
    audio = torch.arange(1, frames + 1, dtype=torch.float32)[:, None, None].expand(frames, 16, 3).contiguous()
    return DrivingTrack(
        audio, torch.rand(frames, 50, generator=torch.Generator()), torch.rand(frames, 2), torch.rand(frames, 3)
    )


def test_eight_neighbours_zero_padded() -> None:
    track = _track()
    assert track.at_frame(5).audio.shape == (8, 3, 16)
    assert track.at_frame(5).audio[:, 0, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert track.at_frame(0).audio[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert track.at_frame(9).audio[:, 0, 0].tolist() == [6, 7, 8, 9, 10, 0, 0, 0]
    with pytest.raises(IndexError):
        track.at_frame(10)


def test_time_is_the_clock() -> None:
    track = _track()
    for frame in range(10):
        assert track.frame_at(track.time_of(frame)) == frame
    assert track.frame_at(-1) == 0 and track.frame_at(2) == 9
    assert torch.equal(track.at(1.0).expression, track.expression[9])
    assert _track(1).frame_at(0.7) == 0


def test_a_moment_without_its_sound() -> None:
    moment = _track().at_frame(5)
    silent = moment.without_sound()
    assert silent.audio.shape == moment.audio.shape and silent.audio.abs().sum() == 0 < moment.audio.abs().sum()
    assert silent.expression is moment.expression and silent.eyelids is moment.eyelids and silent.jaw is moment.jaw


def test_frozen_and_replaced_audio() -> None:
    track = _track()
    frozen = track.frozen(2)
    assert len(frozen) == 10 and torch.equal(frozen.at_frame(7).expression, track.expression[2])
    silent = track.with_audio(torch.zeros_like(track.audio))
    assert silent.at_frame(5).audio.abs().sum() == 0
    assert torch.equal(silent.expression, track.expression)
    with pytest.raises(ValueError, match="audio windows"):
        track.with_audio(torch.zeros(3, 16, 3))


def test_unequal_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long"):
        DrivingTrack(torch.zeros(3, 16, 4), torch.zeros(2, 50), torch.zeros(3, 2), torch.zeros(3, 3))


def test_conditions_are_copies_that_may_be_changed() -> None:
    track = _track()
    before = [part.clone() for part in (track.audio, track.expression, track.eyelids, track.jaw)]
    conditions = track.at_frame(4)
    for part in (conditions.audio, conditions.expression, conditions.eyelids, conditions.jaw):
        part.fill_(99.0)
    now = (track.audio, track.expression, track.eyelids, track.jaw)
    assert all(torch.equal(old, new) for old, new in zip(before, now, strict=True))
