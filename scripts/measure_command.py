"""`degstalk measure VIDEO`: how well a video's lips follow its sound, as a table and a JSON file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.console.progress import Progress, quiet_native_messages
from degstalk_ns.console.report import Report, Table, check_writable
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.landmarks.tracker import FaceTracker
from degstalk_ns.metrics.talking import Speaking, measure
from degstalk_ns.preprocess import decode

LEAST_RECORDED = 500
"""Frames of the recording that are looked at, at least (20 s): fewer hold hardly a blink."""


@dataclass(frozen=True)
class _Source:
    name: str
    count: int
    frames: Callable[[], Iterable[NDArray[np.uint8]]]
    sound: NDArray[np.float32]


def command(
    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")],
    recording: Path | None = None,
    output: Path | None = None,
) -> None:
    """Measure how a head speaks in a video: do the lips follow the sound, rest in silence, do the eyes blink.

    Any video of one talking face with sound will do, by this program or another. Faces are found by MediaPipe.

    Args:
        video: The video.
        recording: A dataset's folder or another video, to compare with: the real head.
        output: JSON file for the numbers.
    """
    console = Console(highlight=False)
    check_writable(output)
    sources = {"video": _of_video(video)}
    if recording is not None:
        if recording.is_dir():
            sources["recording"] = _of_dataset(recording, max(sources["video"].count, LEAST_RECORDED))
        else:
            sources["recording"] = _of_video(recording)
    progress, found = Progress(console), {}
    with quiet_native_messages(), FaceTracker() as tracker:
        for title, source in sources.items():
            with progress.stage(title, 2 * source.count) as advance:
                found[title] = measure(source.frames, source.sound, tracker.observe, source.name, advance)
    report = _report(video.name, found)
    report.show(console)
    if output is not None:
        report.save(output)
        console.print(f"written: {output}", markup=False, soft_wrap=True)


def _of_video(path: Path) -> _Source:
    info = decode.probe(path)
    return _Source(
        str(path), info.num_frames, lambda: (image for _, image in decode.frames(info)), decode.read_audio(info)
    )


def _of_dataset(folder: Path, count: int) -> _Source:
    """Its training part from the beginning to the first gap, ``count`` frames of it at most."""
    recording = read_recording(folder)
    if not recording.layout.audio.is_file():
        raise UserError(f"{recording.layout.audio}: missing; expected the recording's sound")
    rows = recording.train.aud_ids
    gaps = np.flatnonzero(np.diff(rows) != 1)
    images = recording.train.img_ids[: min(count, int(gaps[0]) + 1 if len(gaps) else len(rows))]
    sound = load_sound(recording.layout.audio, UNLIMITED).samples[
        int(rows[0] * decode.SAMPLE_RATE / decode.FRAME_RATE) :
    ]
    return _Source(
        str(folder),
        len(images),
        lambda: (read_frame(recording, int(image), what=()).image for image in images),
        sound,
    )


def _report(name: str, found: dict[str, Speaking]) -> Report:
    table = Table(f"How the head speaks in {name}", ("", *found))
    rows: dict[str, Callable[[Speaking], str]] = {
        "lips follow loudness, Pearson's r": lambda s: _number(s.lips_follow_sound, 2),
        "lips in silence, share of their range": lambda s: _number(s.opening_in_silence, 1, 100.0, " %"),
        "silent frames": lambda s: str(s.silent_frames),
        "blinks a minute": lambda s: f"{s.blinks_per_minute:.1f}",
        "jitter between jaw and neck, grey levels": lambda s: _number(s.jaw_jitter, 2),
        "frames with a face": lambda s: f"{s.found} of {s.frames}",
    }
    for title, cell in rows.items():
        table.add(title, *(cell(speaking) for speaking in found.values()))
    report = Report("measure", [table], data={title: speaking.to_json() for title, speaking in found.items()})
    real = found["recording"].jaw_jitter if "recording" in found else None
    own = found["video"].jaw_jitter
    if real and own is not None:
        report.data["jaw_jitter_ratio"] = own / real
        table.add("the same, video over recording", f"{own / real:.2f}", "")
    return report


def _number(value: float | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    return "cannot be told" if value is None else f"{value * factor:.{digits}f}{unit}"
