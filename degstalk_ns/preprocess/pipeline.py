"""`degstalk process`: a talking-head video -> a dataset, stage by stage, each redone only when missing or stale.

It checks the input, decides what is to be done and keeps the record; it must not know how any product is made.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from degstalk_ns import model_files
from degstalk_ns.audio.features import FEATURES, feature_availability
from degstalk_ns.audio.whisper import whisper_availability
from degstalk_ns.console.progress import Progress, quiet_native_messages
from degstalk_ns.dataparsers.layout import SIDE_RANGE, Layout
from degstalk_ns.errors import UnwritableError, UserError
from degstalk_ns.files import PART_PREFIX, named_write_errors, only_one
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.tracker import FaceObservation, FaceTracker
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.products import landmark_file, pose_file
from degstalk_ns.preprocess.record import IMPORTED, RECORD_NAME, Record, Step, check_dataset_folder, stage_key
from degstalk_ns.preprocess.steps import crop, decode, heard, tracking
from degstalk_ns.preprocess.verify import Verdict, remembered, verified
from degstalk_ns.preprocess.video_products import SOUND_STEPS, VERSIONS, VideoProducts


@dataclass(frozen=True)
class ProcessSummary:
    """What a run did.

    Attributes:
        output: folder of the dataset.
        frames: number of frames T.
        seconds: wall time of this run.
        stages: wall seconds of each stage that ran (empty: everything was there).
        reprojection: median over frames of the rigid landmarks' median reprojection error, pixels.
        texture: the same for the marks of the skin's texture that the poses were refined by; None without any.
        lost: runs of frames without a face (first, last), filled in from their neighbours.
        warnings: one line each.
    """

    output: Path
    frames: int
    seconds: float
    stages: dict[str, float]
    reprojection: float
    texture: float | None
    lost: list[tuple[int, int]]
    warnings: list[str]


def process(
    video: Path, output: Path, config: ProcessConfig | None = None, progress: Progress | None = None
) -> ProcessSummary:
    """Make the dataset ``output`` from ``video``, or what is missing or stale of it.

    Args:
        video: any talking-head video with audio, of one person.
        output: folder to write; made if absent.
        progress: where the stages report to; None is silent.

    Raises:
        UserError: the video cannot be used or the output folder is not ours. A folder that did not exist is not left
            behind then.
    """
    started = time.perf_counter()
    config = config or ProcessConfig()
    low, high = SIDE_RANGE
    if not low <= config.size <= high or config.size % 2:
        raise UserError(f"--size {config.size}: expected an even number of pixels from {low} to {high}")
    if config.workers < 0:
        raise UserError(f"--workers {config.workers}: expected a positive number, or 0 for the number of cores")
    progress = progress or Progress(None)
    check_dataset_folder(output, config.overwrite)
    with only_one(output):  # from before the record is read: nobody else writes one
        return _processed(video, output, config, progress, started)


def _processed(video: Path, output: Path, config: ProcessConfig, progress: Progress, started: float) -> ProcessSummary:
    """:func:`process` of options that can be meant, in a folder that may be ours."""
    info = decode.probe(video, config.minimum_seconds, 60 * config.longest_minutes)
    origin = {"name": video.name, **decode.identity(video)}
    record = None if config.overwrite else Record.load(output)
    unreadable = record is None and not config.overwrite and (output / RECORD_NAME).is_file()
    if record is not None and record.video.get("sha1") != origin["sha1"]:
        name = record.video.get("name")
        other = f"not from {video.name}" if name != video.name else "and that file has another content now"
        raise UserError(f"{output}: was made from {name}, {other}; choose another folder, or pass --overwrite")
    if config.only == "audio" and not _is_whole(record, origin, info.num_frames):
        raise UserError(
            f"{output}: --only audio adds to a whole dataset that `degstalk process` made of this video; make it first"
        )
    if not config.allow_silence and (record is None or "audio" not in record.stages):
        heard.check_heard(info)
    whisper, without_whisper = wants_whisper(config, record)
    if record is None:
        # Found or fetched before anything is written; a dataset that is there may need neither.
        model_files.face_landmarker()
        model_files.selfie_segmenter()
    square, crop_key = _find_crop(info, origin, record, config, progress)

    new = not output.exists()
    empty = new or not any(output.iterdir())
    try:
        if config.overwrite:
            _remove_products(output)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{output}: cannot be made ({error.strerror}); choose another output folder") from None
        if record is None:
            record = Record(output)
        record.video = origin
        record.facts |= {
            "frames": info.num_frames,
            "crop": dataclasses.asdict(square),
            "crop_key": crop_key,
            "whisper": whisper,
        }
        record.save()
        kept = frozenset(name for name in record.facts.get(IMPORTED, []) if (output / name).exists())
        products = VideoProducts(info, origin, square, Layout(output), config, whisper, kept)
        with named_write_errors(output):
            seconds, changed = _run(products, record, progress, config.only)
    except UnwritableError:
        raise  # what was made stays, for the next call
    except UserError:
        # The input turned out bad: leave the place as it was found.
        if empty:
            _remove_products(output)
            if new and output.is_dir() and not any(output.iterdir()):
                output.rmdir()
        raise
    track, solved = np.load(products.landmark_file), np.load(products.pose_file)
    return ProcessSummary(
        output=output,
        frames=info.num_frames,
        seconds=time.perf_counter() - started,
        stages=seconds,
        reprojection=float(np.nanmedian(solved["residual"])),
        texture=float(np.nanmedian(solved["mark_residual"])) if "mark_residual" in solved else None,
        lost=[(int(first), int(last)) for first, last in track["gaps"]],
        warnings=without_whisper + _warnings(info, square, config, record, unreadable) + changed,
    )


def _is_whole(record: Record | None, origin: dict[str, Any], frames: int) -> bool:
    """Whether the record tells of a dataset of this video whose pictures are all done."""
    if record is None or record.video.get("sha1") != origin["sha1"] or record.facts.get("frames") != frames:
        return False
    return all(record.stages.get(name, {}).get("complete") for name in VERSIONS if name not in SOUND_STEPS)


def wants_whisper(config: ProcessConfig, record: Record | None) -> tuple[bool, list[str]]:
    """Whether Whisper's vectors are made, and a line where they cannot be. What was made with them stays so.

    Raises:
        UserError: they, or other features, were asked for and cannot be had.
    """
    for name in config.features:
        unavailable = feature_availability(name)
        if unavailable is not None:
            raise UserError(f"--features {name}: {unavailable}")
    if config.audio == "mel":
        return False, []
    missing = whisper_availability()
    if missing is None:
        return True, []
    if config.audio == "whisper":
        raise UserError(missing)
    if record is not None and record.facts.get("whisper"):
        return True, []
    return False, [
        f"without a Whisper model lips follow other voices less well, and the sound's offset is not checked ({missing})"
    ]


def _warnings(
    info: decode.VideoInfo, square: crop.Crop, config: ProcessConfig, record: Record, unreadable: bool
) -> list[str]:
    lines = []
    if unreadable:
        lines.append(f"{record.root / RECORD_NAME} could not be read, so everything was made again")
    if square.side < config.size / 1.5:
        lines.append(
            f"the square around the head has only {square.side} x {square.side} pixels and is enlarged to "
            f"{config.size}: frames look blurred"
        )
    if info.hdr:
        lines.append(
            f"the video is in high dynamic range ({info.hdr}) and is read as if it were not: colours look pale; "
            "convert it to SDR (BT.709) first"
        )
    if info.source_rate < 20:
        lines.append(
            f"the video has {info.source_rate:.1f} frames/s; below 25 some frames are repeated and the lips "
            "move in steps"
        )
    return lines + [note for stage in record.stages.values() for note in stage.get("notes", [])]


def _find_crop(
    info: decode.VideoInfo, origin: dict[str, Any], record: Record | None, config: ProcessConfig, progress: Progress
) -> tuple[crop.Crop, str]:
    """The crop and the key of what it depends on: remembered from an earlier run, else planned from a coarse pass.

    Raises:
        UserError: no face in the video, or two.
    """
    key = stage_key(1, [origin["size"], origin["sha1"], dataclasses.asdict(config.crop)], [])
    if record is not None and record.facts.get("crop_key") == key and "crop" in record.facts:
        with suppress(TypeError):  # a record that someone has edited
            return crop.Crop(**record.facts["crop"]), key
    step = max(round(config.crop.every_seconds * FRAME_RATE), 1)
    indices = range(0, info.num_frames, step)
    observations: list[FaceObservation | None] = []
    with progress.stage("looking for the face", len(indices)) as advance, quiet_native_messages():
        with FaceTracker() as tracker:
            for _, frame in decode.frames(info, indices):
                observations.append(tracker.observe(frame))
                advance(1)
    rate = FRAME_RATE / step
    # Small faces may be missed in the uncropped frame, so losing some is no reason to refuse here; a second person is.
    coarse = dataclasses.replace(
        config.tracking, frame_rate=rate, max_lost_fraction=1.0, max_other_face_frames=max(len(indices) // 20, 1)
    )
    with tracking.naming_video(info.path):
        tracking.assemble(observations, coarse)
    found = [observation.points[:, :2] for observation in observations if observation is not None]
    boxes = np.array([[*points.min(0), *points.max(0)] for points in found], np.float32)
    return crop.plan(boxes, info.width, info.height, config.crop), key


def _remove_products(output: Path) -> None:
    """Remove what `degstalk process` writes, and nothing else; the folder stays."""
    if not output.is_dir():
        return
    layout = Layout(output)
    for split in ("train", "val"):
        layout.transforms(split).unlink(missing_ok=True)
    if not (output / RECORD_NAME).is_file():
        return  # not made by us: files of the same names are replaced one by one, nothing is deleted
    record = Record.load(output)
    imported = [] if record is None else record.facts.get(IMPORTED, [])
    for example in (layout.frame(0), layout.parsing(0), layout.teeth(0), layout.torso(0), layout.plate(0)):
        shutil.rmtree(example.parent, ignore_errors=True)
    for file in (
        layout.clean_plate,
        layout.audio,
        *map(layout.audio_features, FEATURES),
        layout.action_units,
        layout.face_model_npz,
        *(output / Path(name).name for name in imported),
        layout.contact_sheet,
        landmark_file(layout),
        pose_file(layout),
        output / RECORD_NAME,
    ):
        file.unlink(missing_ok=True)


def _run(products: VideoProducts, record: Record, progress: Progress, only: str) -> tuple[dict[str, float], list[str]]:
    """Run what is missing, damaged or stale, or of that ``only`` what belongs to the sound; seconds of each step that
    ran, and a line on files that somebody has changed."""
    count, layout, steps = products.count, products.layout, products.steps()
    keys: dict[str, str] = {}
    todo: list[tuple[Step, set[int], bool]] = []
    changed: list[Path] = []
    for step in steps:
        keys[step.name] = stage_key(VERSIONS[step.name], step.settings, [keys[need] for need in step.needs])
        if only != "all" and step.name not in (*SOUND_STEPS, steps[-1].name):
            continue
        current = record.is_current(step.name, keys[step.name])
        found = verified(step, count, record.stages[step.name]) if current else Verdict(set(range(count)), whole=False)
        changed += found.changed
        if not (found.whole and not found.frames and record.is_complete(step.name, keys[step.name])):
            todo.append((step, found.frames, current))
    lines = []
    if changed:
        names = ", ".join(str(path.relative_to(layout.root)) for path in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        lines = [f"{names}{more}: not as they were written, but readable: kept (--overwrite makes them anew)"]
    if not todo:
        return {}, lines
    for split in ("train", "val"):
        layout.transforms(split).unlink(missing_ok=True)
    if todo[-1][0] is not steps[-1]:
        todo.append((steps[-1], set(), True))
    remove_parts(layout.root)
    if stale := [step.name for step, _, current in todo if not current and step.name in record.stages]:
        progress.say(
            f"{layout.root}: options or versions differ from before, so these are made again: {', '.join(stale)}"
        )
    seconds: dict[str, float] = {}
    for step, missing, current in todo:
        if not current:
            _remove_stale(step, record)
        record.begin(step.name, keys[step.name])
        started = time.perf_counter()
        with progress.stage(step.name, len(missing) if step.per_frame and missing else step.ticks) as advance:
            notes = step.run(advance, missing)
        seconds[step.name] = time.perf_counter() - started
        record.finish(step.name, keys[step.name], notes or [], remembered(step, count))
    return seconds, lines


def _remove_stale(step: Step, record: Record) -> None:
    """Remove what an earlier run made in this step, also beyond the present number of frames."""
    for path in step.products():
        path.unlink(missing_ok=True)
    if step.per_frame is None or step.name not in record.stages:
        return  # files of the same kind that we did not write are not ours to delete
    for example in step.per_frame(0):
        for path in example.parent.glob(f"*{example.suffix}"):
            path.unlink()


def remove_parts(root: Path) -> None:
    """Remove unfinished files that a killed run left."""
    for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
        for part in folder.glob(f"{PART_PREFIX}*"):
            part.unlink()
