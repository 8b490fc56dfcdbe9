"""`degstalk measure`: a table and a JSON file of what was measured; what cannot be measured is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from video_files import grey, tone, write_video

from degstalk_ns.console.progress import Progress
from degstalk_ns.metrics.talking import TalkingReport, TalkingSource
from degstalk_ns.scripts import cli, measure_command

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


def test_what_cannot_be_measured_is_found_before_anything_is(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure_command, "measure_talking", lambda *_, **__: pytest.fail("measured"))
    assert "none.mp4: no such file" in _failed(capsys, tmp_path / "none.mp4")
    assert "none.mp4: no such file" in _failed(capsys, video, "--recording", tmp_path / "none.mp4")
    assert "there is no folder" in _failed(capsys, video, "--output", tmp_path / "nowhere" / "m.json")
    mute = write_video(tmp_path / "mute.mkv", list(np.arange(FRAMES) / 25), [grey(90)] * FRAMES)
    assert "mute.mkv" in _failed(capsys, mute)
