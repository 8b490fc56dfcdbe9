"""`degstalk process VIDEO OUTPUT`: options in, a summary printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.errors import UserError
from degstalk_ns.preprocess.completion import CompletionSummary, complete_dataset, stored_frames
from degstalk_ns.preprocess.driving_import import DrivingFeatures, read_features
from degstalk_ns.preprocess.pipeline import ProcessConfig, ProcessSummary, process
from degstalk_ns.preprocess.steps import decode


def command(
    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")],
    output: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[OUTPUT]")] = None,
    completing: Annotated[bool, tyro.conf.arg(name="complete"), tyro.conf.FlagCreatePairsOff] = False,
    imported: Annotated[Path | None, tyro.conf.arg(name="import", metavar="FOLDER")] = None,
    config: Annotated[ProcessConfig, tyro.conf.arg(name="")] = ProcessConfig(),  # noqa: B008 (frozen)
) -> None:
    """Make a dataset from a talking-head video. If you run the command again, it resumes where it stopped.

    Args:
        video: Video with audio of one person talking to the camera, at least 4 seconds, better several minutes; with
            --complete the folder of a dataset.
        output: Folder of the dataset, for example data/me.
        completing: Make what the dataset of another project (ER-NeRF, SyncTalk, GaussianTalker) lacks, from its frames
            and its sound. Nothing that is there is changed.
        imported: Folder with driving features of other programs: 3dmm.pt of SMIRK and au.csv of OpenFace, which
            replace ours, and aud_NAME.npy.
        config: Options of preprocessing.
    """
    console = Console(highlight=False)
    features = None if imported is None else read_features(imported)
    if completing:
        if output is not None:
            raise UserError(f"--complete works in the dataset {video} itself; leave {output} out")
        root = video
        if features is not None:
            features.check_length(stored_frames(root), str(root))
            features.check_place(root)
        lines = completion_lines(complete_dataset(root, config, Progress(console)))
    else:
        if output is None:
            raise UserError("no output folder given: degstalk process VIDEO OUTPUT, for example data/me")
        root = output
        if features is not None:
            features.check_length(decode.probe(video, config.minimum_seconds).num_frames, str(video))
            features.check_place(root)
        lines = process_lines(process(video, root, config, Progress(console)))
    if features is not None:
        lines = [*imported_lines(features, features.copy_to(root)), *lines]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def imported_lines(features: DrivingFeatures, names: list[str]) -> list[str]:
    """What is said of imported features."""
    notes = [f"note: {note}" for note in features.notes]
    audio = [name.removeprefix("aud_").removesuffix(".npy") for name in names if name.startswith("aud_")]
    notes += [f"to train on {name}: ns-train ... talking-head --audio {name}" for name in audio]
    return [f"from {features.folder}: {', '.join(names)}; they are left as they are from now on", *notes]


def completion_lines(summary: CompletionSummary) -> list[str]:
    """The lines printed at the end of a completion."""
    made = f"made {', '.join(summary.made)}" if summary.made else "everything is there, nothing to do"
    lines = [f"{summary.root}: {made} ({summary.frames} frames)"]
    lines += [f"note: {note}" for note in summary.notes]
    return [*lines, *_next_lines(summary.root)]


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
    return [*lines, *_next_lines(summary.output)]


def _next_lines(root: Path) -> list[str]:
    return [f"look at {Layout(root).contact_sheet}", f"next: ns-train degstalk-fast --data {root}"]
