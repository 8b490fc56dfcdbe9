"""`degstalk sample OUTPUT`: options in, a summary printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.sample.write import SampleConfig, SampleSummary, make


def command(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")],
    config: Annotated[SampleConfig, tyro.conf.arg(name="")] = SampleConfig(),  # noqa: B008 (frozen)
) -> None:
    """Make a synthetic talking-head dataset. It needs no video and no model files.

    The program generates the pictures and the voice itself, so masks, poses and landmarks are exact.

    Args:
        output: Folder of the dataset, for example data/sample.
        config: Options of the synthetic dataset.
    """
    console = Console(highlight=False)
    for line in sample_lines(make(output, config, Progress(console))):
        console.print(line, markup=False, soft_wrap=True)


def sample_lines(summary: SampleSummary) -> list[str]:
    """The lines printed at the end."""
    each = 1000 * summary.seconds / summary.frames
    return [
        f"{summary.frames} frames of {summary.size} x {summary.size} ({summary.train} to train, {summary.val} to "
        f"validate) with audio in {summary.seconds:.1f} s: {each:.0f} ms a frame",
        f"look at {Layout(summary.output).contact_sheet}",
        f"next: ns-train degstalk-fast --data {summary.output}",
    ]
