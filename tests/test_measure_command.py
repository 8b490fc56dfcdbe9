"""`degstalk measure`: a table and a JSON file of what was measured; what cannot be measured is one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import DatasetMaker
from test_comparison import FakeTracker, recorded_video
from video_files import grey, tone, write_video

from degstalk_ns.console.progress import Progress
from degstalk_ns.metrics import comparison
from degstalk_ns.metrics.talking import TalkingReport, TalkingSource
from degstalk_ns.metrics.worst import MOMENT_CELL
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import measure as measure_command

FRAMES = 110


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Nobody is in it."""
    times = list(np.arange(FRAMES) / 25)
    return write_video(tmp_path / "[b].mkv", times, [grey(90)] * FRAMES, tone(FRAMES / 25))


def _failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["measure", *map(str, arguments)])
    error = capsys.readouterr().err
    assert stop.value.code == cli.FAILED and error.count("\n") == 1
    return error


def test_a_video_is_measured_beside_the_real_person(
    video: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def measure_talking(source: TalkingSource, progress: Progress) -> TalkingReport:
        measured.append((Path(source.name).name, source.count))
        jitter = 4.0 if len(measured) == 1 else 5.0
        return TalkingReport(source.count, source.count - 1, 0.7, None, 0, 12.0, jitter)

    monkeypatch.setattr(measure_command, "measure_talking", measure_talking)
    cli.main(["measure", str(video), "--recording", str(dataset), "--output", str(tmp_path / "m.json")])
    # Of the dataset its training part.
    assert measured[0] == (video.name, FRAMES) and measured[1][1] == 21
    saved = json.loads((tmp_path / "m.json").read_text())
    assert saved["video"]["lips_follow_sound"] == 0.7 and saved["recording"]["opening_in_silence"] is None
    assert saved["jaw_jitter_ratio"] == pytest.approx(0.8)
    out = capsys.readouterr().out
    assert "109 of 110" in out and "20 of 21" in out and "[b].mkv" in out and "written" in out
    assert "sync margin: a recording whose lips move teaches from 6 s on" in " ".join(out.split())
    with pytest.raises(SystemExit):
        cli.main(["measure", str(video), "--recording", str(tmp_path / "nowhere")])
    assert "nowhere: no such file or folder; expected a dataset or a video" in capsys.readouterr().err


def test_the_table_has_a_column_for_each_and_says_what_is_not_measurable() -> None:
    found = {
        "video": TalkingReport(100, 99, 0.7, 0.05, 40, 12.0, 4.0),
        "recording": TalkingReport(500, 500, 0.5, None, 0, 20.0, 5.0),
    }
    report = measure_command.build_report("a.mp4", found)
    table = dict((row[0], row[1:]) for row in report.tables[0].rows)
    assert table["lips follow loudness, Pearson's r"] == ("0.70", "0.50")
    assert table["lip opening in silence, % of its range"] == ("5.0 %", "not measurable")
    assert table["jitter, video divided by recording"] == ("0.80", "")
    alone = measure_command.build_report("a.mp4", {"video": found["video"]})
    assert alone.tables[0].columns == ("", "video") and "jaw_jitter_ratio" not in alone.data


def _quick(source: TalkingSource, progress: Progress) -> TalkingReport:
    return TalkingReport(source.count, source.count, 0.7, None, 0, 12.0, 4.0)


def test_the_worst_moments_are_drawn_beside_the_recording(
    make: DatasetMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make(frames=110)
    video = recorded_video(tmp_path / "[b].mkv", data, list(range(110)))
    monkeypatch.setattr(measure_command, "measure_talking", _quick)
    monkeypatch.setattr(comparison, "FaceTracker", FakeTracker)
    cli.main(["measure", str(video), "--against", str(data)])
    assert f"written: {tmp_path / '[b]_worst.png'}" in capsys.readouterr().out
    # As recorded, nothing is wrong: no crack, and the least of the others.
    assert cv2.imread(str(tmp_path / "[b]_worst.png")).shape == (9 * MOMENT_CELL, 4 * MOMENT_CELL, 3)
    cli.main(["measure", str(video), "--against", str(data), "--sheet", str(tmp_path / "other.png")])
    assert (tmp_path / "other.png").read_bytes() == (tmp_path / "[b]_worst.png").read_bytes()


def test_a_video_that_cannot_be_compared_is_refused(
    video: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_command, "measure_talking", lambda *_, **__: pytest.fail("measured"))
    assert "pixels, and the frames of" in _failed(capsys, video, "--against", dataset)
    assert "nowhere" in _failed(capsys, video, "--against", tmp_path / "nowhere")
    assert "there is no folder" in _failed(capsys, video, "--against", dataset, "--sheet", tmp_path / "no" / "s.png")
    assert "--sheet needs --against" in _failed(capsys, video, "--sheet", tmp_path / "s.png")


def test_a_video_of_another_size_is_refused(
    video: Path, make: DatasetMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_command, "measure_talking", _quick)
    monkeypatch.setattr(comparison, "FaceTracker", FakeTracker)
    assert "is 48 x 32 pixels" in _failed(capsys, video, "--against", make(frames=110))


def test_what_cannot_be_measured_is_found_before_anything_is(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_command, "measure_talking", lambda *_, **__: pytest.fail("measured"))
    assert "none.mp4: no such file" in _failed(capsys, tmp_path / "none.mp4")
    assert "none.mp4: no such file" in _failed(capsys, video, "--recording", tmp_path / "none.mp4")
    assert "there is no folder" in _failed(capsys, video, "--output", tmp_path / "nowhere" / "m.json")
    mute = write_video(tmp_path / "mute.mkv", list(np.arange(FRAMES) / 25), [grey(90)] * FRAMES)
    assert "mute.mkv" in _failed(capsys, mute)
