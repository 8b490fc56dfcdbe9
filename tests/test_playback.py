"""What is played: stretches of the recording, and new sounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from degstalk_ns.animation.new_sound import Performance
from degstalk_ns.animation.playback import Playback, of_new_sound, of_recording
from degstalk_ns.avatar.driving import DrivingTrack


def _track(frames: int) -> DrivingTrack:
    ramp = torch.arange(frames, dtype=torch.float32)[:, None]
    return DrivingTrack(ramp[:, :, None].expand(frames, 16, 4), ramp, ramp.expand(frames, 2), ramp.expand(frames, 3))


def test_a_stretch_of_the_recording_takes_its_part_of_the_sound() -> None:
    sound = np.arange(20 * 640, dtype=np.float32) / 20_000
    played = of_recording("validation", _track(20), 15, 19, sound)
    assert played.timeline.count == 5 and played.timeline.duration == 0.2
    assert np.array_equal(played.waveform, sound[15 * 640 :])
    assert float(played.conditions(2).expression) == 17 and int(played.recorded[2]) == 17 and played.true


def test_a_short_or_missing_sound_is_filled_up_with_silence() -> None:
    assert not of_recording("all", _track(4), 0, 3, None).waveform.any()
    played = of_recording("all", _track(4), 0, 3, np.ones(700, np.float32))
    assert len(played.waveform) == 4 * 640 and played.waveform.sum() == 700


def test_a_new_sound_borrows_recorded_moments() -> None:
    performance = Performance(_track(6), np.array([3, 4, 5, 4, 3, 2]))
    played = of_new_sound("new.wav", np.zeros(6 * 640, np.float32), performance)
    assert not played.true and played.recorded.tolist() == [3, 4, 5, 4, 3, 2]
    assert float(played.conditions(5).expression) == 5
    with pytest.raises(ValueError):
        Playback("none", _track(2), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), True)
