"""`degstalk process`: its options reach the pipeline, what it did is printed, and mistakes are one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.pipeline import ProcessSummary
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import process as process_command
from degstalk_ns.scripts.commands.process import process_lines

SUMMARY = ProcessSummary(
    output=Path("data/me"),
    frames=100,
    seconds=8.0,
    stages={"frames": 3.0, "masks": 5.0},
    reprojection=0.754,
    texture=None,
    lost=[],
    warnings=[],
)


def test_options_reach_the_pipeline_and_what_it_did_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def process(video: Path, output: Path, config: ProcessConfig, progress: Progress) -> ProcessSummary:
        asked.append((video, output, config))
        return replace(SUMMARY, output=output)

    monkeypatch.setattr(process_command, "process", process)
    video, output = tmp_path / "talk.mp4", tmp_path / "[red]"  # no markup
    cli.main(["process", str(video), str(output), "--size", "64", "--poses.iterations", "4", "--overwrite"])
    usual = ProcessConfig()
    config = replace(usual, size=64, overwrite=True, poses=replace(usual.poses, iterations=4))
    assert asked == [(video, output, config)]
    assert capsys.readouterr().out.splitlines() == [
        "100 frames in 8.0 s: 12.5 frames/s",
        "head poses: median reprojection error 0.75 px for the landmarks",
        f"look at {Layout(output).contact_sheet}",
        f"next: ns-train degstalk-fast --data {output}",
    ]


def test_what_was_filled_in_refined_or_doubtful_is_said() -> None:
    told = replace(SUMMARY, texture=0.31, lost=[(3, 5), (9, 9)], warnings=["dark"])
    lines = process_lines(told)
    assert lines[1].endswith("0.75 px for the landmarks, 0.31 px for the skin's texture")
    assert lines[2:4] == ["face lost, filled in from the frames around: 3-5, 9", "warning: dark"]


def test_a_run_with_nothing_to_do_says_so() -> None:
    assert process_lines(replace(SUMMARY, stages={}))[0] == "data/me: everything is there, nothing to do (100 frames)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.mp4", "out"], "nowhere.mp4: no such file"),
        (["notes.mp4", "out"], "notes.mp4: cannot be read as a video"),
        (["notes.mp4", "out", "--size", "7"], "7"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(SystemExit) as stop:
        cli.main(["process", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == cli.FAILED and words in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.mp4"]
