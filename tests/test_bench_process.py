"""`bench process`: shares and rates of the stages, and nothing left of the dataset."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from degstalk_ns.bench import process as bench
from degstalk_ns.bench.machine import Machine
from degstalk_ns.console.progress import Progress
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess.pipeline import ProcessConfig, ProcessSummary

MACHINE = Machine("test", 2, 2, operations=1e11, bytes=1e10)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_video_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.mp4: no such file"):
        bench.bench_process(tmp_path / "nowhere.mp4", ProcessConfig(), MACHINE, Progress(None))


def test_a_file_that_is_no_video_is_said_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    video = tmp_path / "notes.mp4"
    video.write_text("not a video")
    with pytest.raises(UserError, match=r"notes\.mp4: cannot be read as a video"):
        bench.bench_process(video, ProcessConfig(), MACHINE, Progress(None))
    assert not [left for left in temporary.iterdir() if not left.name.startswith("degstalk-locks-")]


def test_stages_have_their_rate_and_share(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preprocessing itself, which takes models and minutes, is tested elsewhere."""
    made = []

    def process(video: Path, output: Path, config: ProcessConfig, progress: Progress) -> ProcessSummary:
        output.mkdir()
        made.append(output)
        return ProcessSummary(output, 100, 10.0, {"track": 2.0, "poses": 5.0, "audio": 0.0}, 0.5, None, [], [])

    monkeypatch.setattr(bench, "process", process)
    video = tmp_path / "talk.mp4"
    video.touch()
    report = bench.bench_process(video, ProcessConfig(), MACHINE, Progress(None))
    assert [tuple(row) for row in report.tables[0].rows] == [
        ("track", "2.00", "50.0", "20 %"),
        ("poses", "5.00", "20.0", "50 %"),
        ("audio", "0.00", "100000000000.0", "0 %"),
        ("all", "10.00", "10.0", "100 %"),
    ]
    assert report.data["video"] == "talk.mp4" and report.data["frames_per_second"]["poses"] == 20
    assert made[0].is_relative_to(temporary) and not list(temporary.iterdir())
