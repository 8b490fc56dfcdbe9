"""Videos that cannot be heard, or not all the time."""
# ruff: noqa: F811 (fixtures are asked for by name)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_person import CONFIG, FRAMES, picture, stand_ins  # noqa: F401
from test_decode import grey
from video_files import tone, write_video

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.preprocess.pipeline import process
from degstalk_ns.preprocess.steps import decode
from degstalk_ns.preprocess.steps.heard import check_heard, hush_notes, hushes

TIMES = [i / 25 for i in range(105)]


def test_a_silent_track_is_refused(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "a.mkv", TIMES, [grey(9)] * 105, 1e-4 * tone(4.2))
    with pytest.raises(UserError, match=r"its sound is silent .* --allow-silence"):
        check_heard(decode.probe(silent))
    check_heard(decode.probe(write_video(tmp_path / "b.mkv", TIMES, [grey(9)] * 105, tone(4.2))))


def test_stretches_without_any_sound_are_found() -> None:
    second = np.ones(SAMPLE_RATE, np.float32)
    parts = [0, 4, 1, 2, 1, 5]  # seconds: none, hushed, heard, hushed, heard, hushed
    samples = np.concatenate([np.tile(second * (k % 2 == 0), n) for k, n in enumerate(parts) if n])
    assert hushes(samples) == [(0.0, 4.0), (8.0, 13.0)]
    assert "from 0.0 to 4.0 s, 8.0 to 13.0 s: the track is shorter" in hush_notes(samples)[0]
    assert hush_notes(np.zeros(9 * SAMPLE_RATE, np.float32)) == [] == hush_notes(np.tile(second, 9))
    noisy = np.where(samples == 0, 1e-6, samples).astype(np.float32)  # a room is never quite silent
    assert hushes(noisy) == []


def test_a_track_that_ends_before_the_picture_is_said(tmp_path: Path, stand_ins: None) -> None:
    times = [i / 25 for i in range(FRAMES)]
    video = write_video(tmp_path / "talk.mkv", times, [picture(i) for i in range(FRAMES)], tone(FRAMES / 25 - 3.5))
    (said,) = [line for line in process(video, tmp_path / "me", CONFIG).warnings if "no sound at all" in line]
    assert f"to {FRAMES / 25:.1f} s: the track is shorter than the picture" in said


def test_process_refuses_a_silent_video_unless_it_is_asked_for(tmp_path: Path, stand_ins: None) -> None:
    times = [i / 25 for i in range(FRAMES)]
    video = write_video(tmp_path / "talk.mkv", times, [picture(i) for i in range(FRAMES)], 0 * tone(FRAMES / 25))
    with pytest.raises(UserError, match="its sound is silent"):
        process(video, tmp_path / "me", CONFIG)
    assert not (tmp_path / "me").exists()
    assert process(video, tmp_path / "me", replace(CONFIG, allow_silence=True)).frames == FRAMES
