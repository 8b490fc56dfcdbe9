"""`degstalk sample`: a whole dataset of the sample head on disk, or nothing.

Checks the options, lets the scene be acted and drawn frame by frame, and writes what `degstalk process` would leave. It
must not know what the head looks like or how anything is drawn.
"""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns import files
from degstalk_ns.audio.features import FEATURES
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers import contact_sheet, writing
from degstalk_ns.dataparsers.layout import PALETTE, SIDE_RANGE, Layout, train_count
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_bytes
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.blendshapes import action_units, driving_signals
from degstalk_ns.landmarks.ibug68 import lip_opening
from degstalk_ns.parallel import in_order
from degstalk_ns.plates.build import frame_plate
from degstalk_ns.plates.hair import with_hair_in_front
from degstalk_ns.sample.acting.performance import blendshapes, perform
from degstalk_ns.sample.acting.script import write_script
from degstalk_ns.sample.acting.voice import synthesise
from degstalk_ns.sample.drawing.picture import MASK_REGIONS, Camera, Picture, take
from degstalk_ns.sample.drawing.scene import SampleScene

SAMPLE_RECORD: Final[str] = "sample.json"
"""Says with what options a folder was made by `degstalk sample`."""
SHORTEST: Final[float] = 2.0
"""Seconds: one phrase, and five frames to validate."""
BYTES_PER_PIXEL: Final[float] = 5.0
"""Disk taken by all files of a frame, over its pixels; measured at 512 and rounded up."""
BYTES_PER_FRAME: Final[int] = 48_000
"""Disk taken by a frame whatever its size: windows of sound, poses, landmarks, and files' last blocks."""
SAMPLE_JPEG_QUALITY: Final[int] = 98
_MOST_WORKERS: Final[int] = 8
"""Frames drawn at a time, where there are as many cores; each takes some 100 MB at 512."""


@dataclass(frozen=True)
class SampleConfig:
    """Options of the synthetic dataset."""

    seconds: float = 10.0
    """Length of the video in seconds, at 25 frames per second."""
    size: int = 512
    """Width and height of the square frames, in pixels; it must be even."""
    seed: int = 0
    """Random seed: different seeds give a different person, room and speech, and the same seed gives identical
    files."""
    overwrite: bool = False
    """Replace an existing dataset; a folder that contains other files is never changed."""

    @property
    def frames(self) -> int:
        return round(self.seconds * FRAME_RATE)


@dataclass(frozen=True)
class SampleSummary:
    """What was made: ``frames`` of ``size`` x ``size`` pixels, of which ``train`` and ``val``, in ``seconds`` of wall
    time."""

    output: Path
    frames: int
    train: int
    val: int
    size: int
    seconds: float


def make(output: Path, config: SampleConfig | None = None, progress: Progress | None = None) -> SampleSummary:
    """Make the dataset ``output``.

    It grows in a hidden folder beside ``output`` and takes its name when it is whole.

    Args:
        progress: where it reports to; None is silent.

    Raises:
        UserError: an option out of range, a folder that is there, no room on the disk, or no right to write. Then,
            and when interrupted, everything is left as it was found.
    """
    started = time.perf_counter()
    config = config or SampleConfig()
    _check(config)
    target = output.resolve()
    _tidy(target)
    _check_output(output, target, config.overwrite)
    _check_room(output, target, config)
    try:
        with _growing(target) as part:
            _write(Layout(part), config, progress or Progress(None))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{output}: the disk is full, nothing was kept; free some space, or make less with --seconds or --size"
            ) from None
        raise UserError(f"{output}: cannot be written ({error.strerror or error}); choose another folder") from None
    except KeyboardInterrupt as interruption:
        raise KeyboardInterrupt(str(interruption) or "nothing was kept") from None
    train = train_count(config.frames)
    seconds = time.perf_counter() - started
    return SampleSummary(output, config.frames, train, config.frames - train, config.size, seconds)


# ---- before anything is written ----


def _check(config: SampleConfig) -> None:
    if not (math.isfinite(config.seconds) and config.seconds >= SHORTEST):
        raise UserError(f"--seconds {config.seconds:g}: expected at least {SHORTEST:g}, for example --seconds 10")
    low, high = SIDE_RANGE
    if config.size % 2 or not low <= config.size <= high:
        raise UserError(f"--size {config.size}: expected an even number of pixels from {low} to {high}")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"--seed {config.seed}: expected a whole number from 0 to {2**32 - 1}")


def _check_output(output: Path, target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{output}: is a file; expected the folder to write the dataset to")
    there = {path.name for path in target.iterdir()}
    strange = sorted(there - _dataset_names(target))
    if strange:
        raise UserError(
            f"{output}: exists already and is no dataset, which --overwrite would replace ({strange[0]!r} is none of a "
            "dataset's files); choose another folder"
        )
    if not overwrite:
        raise UserError(f"{output}: exists already; choose another folder, or pass --overwrite to replace the dataset")


def _dataset_names(root: Path) -> set[str]:
    """Names of everything that `degstalk sample` and `degstalk process` leave in a dataset's folder."""
    layout = Layout(root)
    folders = (layout.frame(0), layout.parsing(0), layout.teeth(0), layout.torso(0), layout.plate(0))
    files = (
        *(layout.transforms("train"), layout.transforms("val"), layout.clean_plate, layout.audio),
        *map(layout.audio_features, FEATURES),
        *(layout.action_units, layout.face_model_npz, layout.contact_sheet),
    )
    return {*(path.parent.name for path in folders), *(path.name for path in files), SAMPLE_RECORD, *_OF_PROCESS}


_OF_PROCESS: Final = ("process.json", "landmarks.npz", "poses.npz")


def _check_room(output: Path, target: Path, config: SampleConfig) -> None:
    needed = config.frames * (BYTES_PER_PIXEL * config.size**2 + BYTES_PER_FRAME)
    place = next(parent for parent in target.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{output}: needs about {_size(needed)} of disk, {_size(free)} are free; "
            "free some space, or make less with --seconds or --size"
        )


def _size(count: float) -> str:
    if count < 1e9:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.1f} GB" if count < 1e15 else f"{count / 1e9:.1e} GB"


def _hidden(target: Path, kind: str) -> Path:
    """Where this process keeps the growing or the old dataset: beside ``target``, named after machine and process."""
    return target.with_name(f".{target.name}.{kind}-{platform.node()}-{os.getpid()}")


def _tidy(target: Path) -> None:
    """Remove what runs for the same target left that were killed on this machine; if one was killed while it put a new
    dataset in an old one's place, the old one is put back."""
    for kind in ("old", "part"):
        start = f".{target.name}.{kind}-{platform.node()}-"
        for left in sorted(target.parent.glob(glob.escape(start) + "*")) if target.parent.is_dir() else ():
            number = left.name.removeprefix(start)
            if not number.isdecimal() or _runs(int(number)):
                continue
            if kind == "old" and not target.exists():
                os.replace(left, target)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether there is such a process; this one does not count: it has left nothing yet."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True  # elsewhere the question itself would interrupt it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


@contextmanager
def _growing(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place if the block ends well, and vanishes if not."""
    part, old = _hidden(target, "part"), _hidden(target, "old")
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        part.mkdir(parents=True)
        yield part
        try:
            if target.exists():
                os.replace(target, old)
            os.replace(part, target)
        except BaseException:
            if old.exists() and not target.exists():
                os.replace(old, target)
            raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    try:
        shutil.rmtree(old, ignore_errors=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the new dataset is whole; of the old one some is left in {old}") from None


# ---- the files ----


def _write(layout: Layout, config: SampleConfig, progress: Progress) -> None:
    count = config.frames
    script = write_script(count / FRAME_RATE, config.seed)
    performance = perform(script, count, config.seed)
    camera = Camera(config.size)
    _write_sound(layout, synthesise(script, config.seed), count)
    for path in (layout.frame(0), layout.parsing(0), layout.teeth(0), layout.torso(0), layout.plate(0)):
        path.parent.mkdir()
    with progress.stage("building the head", 1) as advance:
        scene = SampleScene(performance, config.seed, config.size)
        advance(1)
    files.write_jpeg(layout.clean_plate, scene.background, SAMPLE_JPEG_QUALITY)
    clean = files.read_rgb(layout.clean_plate)
    points = np.stack([scene.landmarks(i) for i in range(count)])
    poses = performance.room_from_head
    pixels = camera.project(np.einsum("tij,tnj->tni", poses[:, :3, :3], points) + poses[:, None, :3, 3])

    def draw(i: int) -> None:
        picture = take(scene.surfels(i), poses[i], camera, scene.background)
        _write_frame(layout, i, picture, pixels[i], clean)

    # Whole frames beside each other: half of a frame's work is arithmetic that takes one core only.
    with progress.stage("drawing frames", count) as advance:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_WORKERS)) as pool:
            for _ in in_order(pool, draw, range(count), 2 * _MOST_WORKERS):
                advance(1)

    shapes, opening = blendshapes(performance), lip_opening(points).astype(np.float32)
    writing.write_face_model(layout.face_model_npz, driving_signals(shapes, opening))
    units = action_units(shapes, opening, np.ones(count, bool), FRAME_RATE)
    writing.write_action_units(layout.action_units, units)
    c2w = np.stack([camera.head_c2w(pose) for pose in poses])
    axes = [camera.project(contact_sheet.AXES @ pose[:3, :3].T + pose[:3, 3]) for pose in poses]
    writing.write_contact_sheet(layout, pixels, np.stack(axes))
    record = {"made_by": "degstalk sample", "seconds": config.seconds, "size": config.size, "seed": config.seed}
    write_bytes(layout.root / SAMPLE_RECORD, json.dumps(record, indent=1).encode())
    writing.write_transforms(layout, c2w, camera.focal, camera.size / 2, camera.size / 2)


def _write_sound(layout: Layout, sound: NDArray[np.float32], count: int) -> None:
    writing.write_sound(layout.audio, sound)
    # From the file, as `degstalk process` does it: what is rounded there is rounded here.
    samples = load_sound(layout.audio, UNLIMITED).samples
    writing.write_audio_features(layout.audio_features("mel"), mel_windows(samples, count))


_COLOURS: Final = np.array([PALETTE[name] for name in MASK_REGIONS], np.uint8)


def _write_frame(
    layout: Layout, i: int, picture: Picture, landmarks: NDArray[np.float64], clean: NDArray[np.uint8]
) -> None:
    files.write_jpeg(layout.frame(i), picture.image, SAMPLE_JPEG_QUALITY)
    writing.write_lms(layout.landmarks(i), landmarks)
    files.write_png(layout.parsing(i), _COLOURS[picture.codes])
    writing.write_teeth(layout.teeth(i), picture.teeth)
    files.write_png(layout.torso(i), picture.torso)
    # The plate belongs to the frame as it can be read, not as it was before it was compressed.
    head = (picture.codes == MASK_REGIONS.index("head")) | (picture.codes == MASK_REGIONS.index("mouth"))
    frame = files.read_rgb(layout.frame(i))
    hair = picture.codes == MASK_REGIONS.index("hair")
    plate = frame_plate(frame, head, picture.torso, clean)
    files.write_png(layout.plate(i), with_hair_in_front(plate, frame, head, hair))
