"""`bench look-ahead`: the drivings it measures are those it names, and what it reports is what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from degstalk_ns.avatar.driving import DrivingTrack
from degstalk_ns.bench.look_ahead import bench_look_ahead
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError


@pytest.fixture(autouse=True)
def _without_whisper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGSTALK_MODELS", "/nonexistent")


@pytest.fixture
def recording(dataset: Path) -> Recording:
    return read_recording(dataset)


def test_every_look_ahead_drives_the_lips_and_is_reported(recording: Recording) -> None:
    given: dict[str, DrivingTrack] = {}

    def measure(drivings: dict[str, DrivingTrack], _: Callable[[str], None]) -> dict[str, float]:
        given.update(drivings)
        return {f"{name}_r": index / 10 for index, name in enumerate(drivings)} | {"tracked_lmd": 0.5}

    report, panels = bench_look_ahead(recording, measure, (0.24, 0.04), lambda _: None)
    assert list(given) == ["tracked", "mel_40ms", "mel_240ms", "mel_unlimited", "shuffled", "still", "unheard"]
    rows = recording.val.aud_ids
    assert not torch.equal(given["mel_40ms"].expression[rows], given["mel_240ms"].expression[rows])
    assert not given["mel_40ms"].audio.any() and given["mel_unlimited"].audio.any()  # what the face hears
    assert (
        torch.equal(given["unheard"].expression, given["mel_unlimited"].expression) and not given["unheard"].audio.any()
    )
    assert report.data["look_aheads"] == [0.04, 0.24] and report.data["measured"]["mel_240ms_r"] == 0.2
    titles = [row[0] for row in report.tables[0].rows]
    assert titles == [
        "the tracked mouth",
        "mel, no limit",
        "mel, 240 ms",
        "mel, 40 ms",
        "mel, no limit, face without audio",
        "audio of another moment",
        "a still mouth",
    ]
    curve = panels["r of the opening"][0]
    assert (list(curve.x), list(curve.median), curve.level) == ([40.0, 240.0], [0.1, 0.2], False)
    assert [line.label for line in panels["LMD, pixels"] if line.level] == ["tracked"]


@pytest.mark.parametrize(("look_aheads", "message"), [((), "no look-ahead"), ((0.01,), "at least 0.04 s")])
def test_what_cannot_be_kept_is_refused_before_anything_is_driven(
    recording: Recording, look_aheads: tuple[float, ...], message: str
) -> None:
    def measure(*_: object) -> dict[str, float]:
        raise AssertionError

    with pytest.raises(UserError, match=message):
        bench_look_ahead(recording, measure, look_aheads, lambda _: None)
