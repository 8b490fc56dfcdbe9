"""Frames of an animation as a generator: from any thread, several at a time, and nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.animation.animation import Animation
from degstalk_ns.errors import UserError, one_line_errors
from degstalk_ns.export.render import picture_size, render_frames
from degstalk_ns.plugin.runs import TrainedAvatar, load_run


@pytest.fixture(scope="module")
def run(trained_config: Path) -> TrainedAvatar:
    return load_run(str(trained_config))


def test_frames_may_be_taken_from_any_thread(run: TrainedAvatar) -> None:
    animation = Animation.from_recording(run.recording, "val")
    expected = list(render_frames(run, animation))
    frames, taken = render_frames(run, animation), []
    for _ in expected:
        thread = threading.Thread(target=lambda: taken.append(next(frames)))
        thread.start()
        thread.join()
    assert next(frames, None) is None
    assert np.array_equal(np.stack(taken), np.stack(expected))
    assert expected[0].shape[1::-1] == picture_size(run, animation)


def test_several_at_a_time_leave_errors_as_they_were(run: TrainedAvatar) -> None:
    animation = Animation.from_recording(run.recording, "val").between(0.0, 0.08)
    pairs = list(zip(render_frames(run, animation), render_frames(run, animation), strict=False))
    assert len(pairs) == 2 and all(np.array_equal(*pair) for pair in pairs)
    with pytest.raises(SystemExit), one_line_errors():
        raise UserError("still one line")


def test_only_the_recording_has_frames_to_be_shown_beside(run: TrainedAvatar) -> None:
    animation = Animation.from_recording(run.recording, "val")
    assert next(render_frames(run, animation, side_by_side=True)).shape == (64, 128, 3)
    moved = animation.between(0.0, 0.04)
    object.__setattr__(moved, "freed", True)
    with pytest.raises(UserError, match="side by side"):
        next(render_frames(run, moved, side_by_side=True))
