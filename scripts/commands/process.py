"""`degstalk process VIDEO OUTPUT`: options in, a summary printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.preprocess.pipeline import ProcessConfig, ProcessSummary, process


def command(
    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")],
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUTPUT")],
    config: Annotated[ProcessConfig, tyro.conf.arg(name="")] = ProcessConfig(),  # noqa: B008 (frozen)
) -> None:
    """Make a dataset from a talking-head video. If you run the command again, it resumes where it stopped.

    Args:
        video: Video with audio of one person talking to the camera, at least 4 seconds, better several minutes.
        output: Folder of the dataset, for example data/me.
        config: Options of preprocessing.
    """
    console = Console(highlight=False)
    for line in process_lines(process(video, output, config, Progress(console))):
        console.print(line, markup=False, soft_wrap=True)


def process_lines(summary: ProcessSummary) -> list[str]:
    """The lines printed at the end."""
    lines = []
    if summary.stages:
        rate = summary.frames / summary.seconds
        lines.append(f"{summary.frames} frames in {summary.seconds:.1f} s: {rate:.1f} frames/s")
    else:
        lines.append(f"{summary.output}: everything is there, nothing to do ({summary.frames} frames)")
    texture = f", {summary.texture:.2f} px for the skin's texture" if summary.texture is not None else ""
    lines.append(f"head poses: median reprojection error {summary.reprojection:.2f} px for the landmarks{texture}")
    if summary.lost:
        runs = ", ".join(f"{first}-{last}" if first != last else f"{first}" for first, last in summary.lost)
        lines.append(f"face lost, filled in from the frames around: {runs}")
    lines += [f"warning: {warning}" for warning in summary.warnings]
    lines.append(f"look at {Layout(summary.output).contact_sheet}")
    lines.append(f"next: ns-train degstalk-fast --data {summary.output}")
    return lines
