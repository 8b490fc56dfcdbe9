"""`degstalk measure VIDEO`: how well a video's lips follow its audio, as a table and a JSON file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from degstalk_ns.console.progress import Progress
from degstalk_ns.console.report import Report, Table, check_writable
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.metrics.comparison import SHORTEST_COMPARED, compared_video, draw_worst
from degstalk_ns.metrics.lips_and_eyes import wide_opening
from degstalk_ns.metrics.speech.phonemes import TimedPhonemes, measure_phonemes, read_phonemes
from degstalk_ns.metrics.speech.sync_margin import FEWEST_FRAMES, SHORTEST_MARGIN, LipsWithSound, own_margin
from degstalk_ns.metrics.talking import TalkingReport, measure_talking, talking_source
from degstalk_ns.preprocess.steps.decode import MINIMUM_SECONDS
from degstalk_ns.reading.access import refuse_unreadable
from degstalk_ns.speech.recogniser import recognised_phonemes

ENGLISH = "english"
"""What stands for a file of phonemes where they are recognised."""
LEAST_RECORDED = 500
"""Minimum number of frames of the recording that are measured (20 s): fewer hold hardly a blink."""


def command(
    video: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VIDEO")],
    recording: Path | None = None,
    output: Path | None = None,
    against: Path | None = None,
    sheet: Path | None = None,
    phonemes: str | None = None,
) -> None:
    """Measure how well the lips in a video follow the audio, how still they are in silence, and how often eyes blink.

    It takes any video of one talking face with audio, made by this program or another; MediaPipe detects the face.

    Args:
        video: Video to measure.
        recording: Dataset folder or video of the real person, used as the reference.
        output: JSON file to which the measurements are written.
        against: Dataset folder whose recorded frames the video renders (degstalk render --track): the worst twelve
            moments (seam, lips, eyes, jitter) are drawn beside what was recorded.
        sheet: PNG file of these moments; by default beside the video, <video>_worst.png.
        phonemes: JSON file with what is said when, pairs of seconds and phoneme (degstalk phonemes writes one), to
            measure whether lips shut at p, b and m and open at open vowels; or english, to recognise them in the sound
            of the video, which is less exact. How far is open is told by --recording.
    """
    console = Console(highlight=False)
    check_writable(output)
    said = None if phonemes in (None, ENGLISH) else read_phonemes(Path(str(phonemes)))
    if against is not None:
        sheet = sheet or video.with_name(f"{video.stem}_worst.png")
        check_writable(sheet)
        compared = compared_video(video, against)
    elif sheet is not None:
        raise UserError("--sheet needs --against DATASET, whose recorded frames the video is compared with")
    if recording is not None and not recording.is_dir():
        refuse_unreadable(recording)
        if not recording.exists():
            raise UserError(f"--recording {recording}: no such file or folder; expected a dataset or a video")
    # Both are opened before either is measured, which takes minutes.
    shortest = MINIMUM_SECONDS if against is None else SHORTEST_COMPARED
    sources = {"video": talking_source(video, shortest=shortest)}
    if recording is not None:
        most = max(sources["video"].count, LEAST_RECORDED) if recording.is_dir() else None
        sources["recording"] = talking_source(recording, most)
    if phonemes == ENGLISH:
        said = TimedPhonemes(*recognised_phonemes(sources["video"].sound))
    progress = Progress(console)
    found = {title: measure_talking(source, progress=progress) for title, source in sources.items()}
    report = build_report(video.name, found)
    if "recording" in found:
        add_sync(report, found, {title: source.sound for title, source in sources.items()})
    if said is not None:
        add_phonemes(report, found, said)
    report.show(console)
    if output is not None:
        report.save(output)
        console.print(f"written: {output}", markup=False, soft_wrap=True)
    if against is not None:
        assert sheet is not None
        draw_worst(compared, sheet, progress)
        console.print(f"written: {sheet}", markup=False, soft_wrap=True)


def build_report(name: str, found: dict[str, TalkingReport]) -> Report:
    """A table with one column for each of ``found`` ("video" and perhaps "recording"), and the numbers as data."""
    table = Table(f"Talking quality of {name}", ("", *found))
    rows: dict[str, Callable[[TalkingReport], str]] = {
        "lips follow loudness, Pearson's r": lambda s: _number(s.lips_follow_sound, 2),
        "lip opening in silence, % of its range": lambda s: _number(s.opening_in_silence, 1, 100.0, " %"),
        "silent frames": lambda s: str(s.silent_frames),
        "blinks a minute": lambda s: f"{s.blinks_per_minute:.1f}",
        "jitter between jaw and neck, grey levels": lambda s: _number(s.jaw_jitter, 2),
        "frames with a face": lambda s: f"{s.found} of {s.frames}",
    }
    for title, cell in rows.items():
        table.add(title, *(cell(talking) for talking in found.values()))
    report = Report("measure", [table], data={title: talking.to_json() for title, talking in found.items()})
    real = found["recording"].jaw_jitter if "recording" in found else None
    own = found["video"].jaw_jitter
    if real and own is not None:
        report.data["jaw_jitter_ratio"] = own / real
        table.add("jitter, video divided by recording", f"{own / real:.2f}", "")
    return report


def add_sync(report: Report, found: dict[str, TalkingReport], sounds: dict[str, NDArray[np.float32]]) -> None:
    """How much better lips go with their own sound than with others, by what the recording teaches."""
    learned = LipsWithSound.fit(sounds["recording"], found["recording"].lips)
    video = None if learned is None else learned.margin(sounds["video"], found["video"].lips)
    own = own_margin(sounds["recording"], found["recording"].lips)
    report.tables[0].add("sync margin, by log-mel bands", _number(video, 2), _number(own, 2))
    report.data["sync_margin"] = {"video": video, "recording": own}
    if video is None or own is None:
        whole = FEWEST_FRAMES / FRAME_RATE
        report.notes.append(
            f"sync margin: a recording whose lips move teaches from {whole:g} s on, and has one itself from "
            f"{2 * whole:g} s on; the video needs {SHORTEST_MARGIN:g} s"
        )


def add_phonemes(report: Report, found: dict[str, TalkingReport], said: TimedPhonemes) -> None:
    """What the video's lips do at phonemes, as a table beside a control, and as data."""
    known = found.get("recording", found["video"]).lips[:, 0]
    wide = wide_opening(known[np.isfinite(known)].tolist())
    assert wide is not None  # a video without faces is refused before
    lips = measure_phonemes(found["video"].lips[:, 0], said, wide)
    table = Table(
        f"Lips at {len(said.names)} phonemes; wide open as in the {'recording' if 'recording' in found else 'video'}",
        ("", "measured", "control"),
    )
    for title, name in (
        (f"closed at p, b, m ({lips.measured.bilabials})", "closed"),
        (f"open at open vowels ({lips.measured.open_vowels})", "opened"),
        ("further open at an open vowel than at p, b, m", "chance"),
    ):
        table.add(title, *(_number(getattr(part, name), 1, 100.0, " %") for part in (lips.measured, lips.control)))
    table.add("lips late against the phonemes, frames", "not measurable" if lips.lag is None else str(lips.lag), "")
    report.tables.append(table)
    report.notes.append("control: the same with the phonemes moved by 0.7 to 3.1 s, as lips that do not listen score")
    report.data["phonemes"] = lips.to_json()


def _number(value: float | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    return "not measurable" if value is None else f"{value * factor:.{digits}f}{unit}"
