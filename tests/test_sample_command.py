"""`degstalk sample`: its options reach the maker, what it did is printed, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.sample.write import SampleConfig, SampleSummary
from degstalk_ns.scripts import cli
from degstalk_ns.scripts.commands import sample as sample_command


def test_options_reach_the_maker_and_what_it_made_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def make(output: Path, config: SampleConfig, progress: Progress) -> SampleSummary:
        asked.append((output, config))
        return SampleSummary(output, frames=50, train=45, val=5, size=64, seconds=2.0)

    monkeypatch.setattr(sample_command, "make", make)
    output = tmp_path / "[red]"  # no markup
    cli.main(["sample", str(output), "--seconds", "2", "--size", "64", "--seed", "5", "--overwrite"])
    assert asked == [(output, SampleConfig(seconds=2.0, size=64, seed=5, overwrite=True))]
    assert capsys.readouterr().out.splitlines() == [
        "50 frames of 64 x 64 (45 to train, 5 to validate) with audio in 2.0 s: 40 ms a frame",
        f"look at {Layout(output).contact_sheet}",
        f"next: ns-train degstalk-fast --data {output}",
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seconds", "0"], "--seconds 0"),
        (["--seconds", "-3"], "--seconds -3"),
        (["--seconds", "1.9"], "at least 2"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--seconds", "inf"], "--seconds inf"),
        (["--seconds", "1e12"], "GB"),
        (["--size", "63"], "--size 63"),
        (["--size", "129"], "even"),
        (["--size", "62"], "from 64 to 2048"),
        (["--size", "2050"], "from 64 to 2048"),
        (["--size", "-512"], "--size -512"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_options_out_of_range_are_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["sample", str(tmp_path / "new" / "sample"), *options])
    message = capsys.readouterr().err
    assert stop.value.code == 1 and told in message and message.count("\n") == 1
    assert not list(tmp_path.iterdir())
