"""`degstalk process`: a talking-head video -> a dataset, stage by stage, each redone only when missing or stale.

It joins the modules of this folder and writes what they return; it must hold no image or face mathematics of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from degstalk_ns.audio.files import read_waveform
from degstalk_ns.audio.mel import MelConfig, mel_windows
from degstalk_ns.dataparsers.layout import SAMPLE_RATE, Layout, train_count
from degstalk_ns.errors import UserError
from degstalk_ns.portrait import PLATE_EROSION, frame_plate
from degstalk_ns.preprocess import (
    contact_sheet,
    crop,
    decode,
    expression,
    images,
    landmarks,
    model_files,
    parsing,
    plates,
    poses,
    tracking,
)
from degstalk_ns.preprocess.parallel import in_order
from degstalk_ns.preprocess.progress import Advance, Progress, quiet_native_messages
from degstalk_ns.preprocess.record import (
    PART_PREFIX,
    RECORD_NAME,
    Record,
    check_output,
    stage_key,
    write_bytes,
    write_whole,
)

MOST_WORKERS: Final[int] = 4
"""Threads taken by default at most: each holds a segmenter (about 100 MB)."""
AHEAD: Final[int] = 3
"""Frames in flight for each worker."""

VERSIONS: Final[dict[str, int]] = {
    "frames": 1,
    "audio": 1,
    "landmarks": 1,
    "expression": 1,
    "poses": 1,
    "parsing": 1,
    "plates": 1,
    "features": 1,
    "sheet": 1,
    "transforms": 1,
}
"""Raise a stage's number when its code writes something else: datasets made before are then stale."""


@dataclass(frozen=True)
class ProcessConfig:
    """Options of `degstalk process`."""

    size: int = 512
    """Side of the dataset's square frames, pixels."""
    workers: int = 0
    """Worker threads; 0 takes the number of cores, at most 4."""
    overwrite: bool = False
    """Start anew: remove what an earlier run made in the output folder first."""
    minimum_seconds: float = decode.MINIMUM_SECONDS
    """Shorter videos are refused, seconds."""
    crop: crop.CropConfig = field(default_factory=crop.CropConfig)
    tracking: tracking.TrackingConfig = field(default_factory=tracking.TrackingConfig)
    poses: poses.PoseConfig = field(default_factory=poses.PoseConfig)
    parsing: parsing.ParsingConfig = field(default_factory=parsing.ParsingConfig)
    plates: plates.PlatesConfig = field(default_factory=plates.PlatesConfig)
    mel: MelConfig = field(default_factory=MelConfig)

    def worker_count(self) -> int:
        return self.workers if self.workers > 0 else min(os.cpu_count() or 1, MOST_WORKERS)


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        output: folder of the dataset.
        frames: number of frames T.
        seconds: wall time of this run.
        stages: wall seconds of each stage that ran (empty: everything was there).
        reprojection: median over frames of the rigid landmarks' median reprojection error, pixels.
        lost: runs of frames without a face (first, last), filled in from their neighbours.
        warnings: one line each.
    """

    output: Path
    frames: int
    seconds: float
    stages: dict[str, float]
    reprojection: float
    lost: list[tuple[int, int]]
    warnings: list[str]


def process(
    video: Path, output: Path, config: ProcessConfig | None = None, progress: Progress | None = None
) -> Summary:
    """Make the dataset ``output`` from ``video``, or what is missing or stale of it.

    Args:
        video: any talking-head video with sound, of one person.
        output: folder to write; made if absent.
        progress: where the stages report to; None is silent.

    Raises:
        UserError: the video cannot be used or the output folder is not ours. A folder that did not exist is not left
            behind then.
    """
    started = time.perf_counter()
    config = config or ProcessConfig()
    if config.size < 64 or config.size % 2:
        raise UserError(f"--size {config.size}: expected an even number of pixels, at least 64")
    if config.workers < 0:
        raise UserError(f"--workers {config.workers}: expected a positive number, or 0 for the number of cores")
    progress = progress or Progress(None)
    check_output(output, config.overwrite)
    info = decode.probe(video, config.minimum_seconds)
    # Looked for (or fetched) before anything is written.
    model_files.face_landmarker()
    segmenter = model_files.selfie_segmenter()

    origin = {"name": video.name, **decode.identity(video)}
    record = None if config.overwrite else Record.load(output)
    if record is not None and record.video.get("sha1") != origin["sha1"] and record.video.get("name") != video.name:
        raise UserError(
            f"{output}: was made from {record.video.get('name')}, not from {video.name}; "
            "choose another folder, or pass --overwrite"
        )
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
        record.facts |= {"frames": info.num_frames, "crop": dataclasses.asdict(square), "crop_key": crop_key}
        record.save()
        run = _Run(info, square, segmenter, Layout(output), record, config, progress)
        seconds = run.all_stages()
    except UserError:
        # The input turned out bad: leave the place as it was found.
        if empty:
            _remove_products(output)
            if new and output.is_dir() and not any(output.iterdir()):
                output.rmdir()
        raise
    track = np.load(output / "landmarks.npz")
    residual = np.load(run.pose_file)["residual"]
    return Summary(
        output=output,
        frames=info.num_frames,
        seconds=time.perf_counter() - started,
        stages=seconds,
        reprojection=float(np.nanmedian(residual)),
        lost=[(int(first), int(last)) for first, last in track["gaps"]],
        warnings=_warnings(info, square, config),
    )


def _warnings(info: decode.VideoInfo, square: crop.Crop, config: ProcessConfig) -> list[str]:
    lines = []
    if square.side < config.size / 1.5:
        lines.append(
            f"the head fills only {square.side} x {square.side} pixels of the video, enlarged to {config.size}: expect a soft picture"
        )
    if info.source_rate < 20:
        lines.append(
            f"the video has {info.source_rate:.1f} frames/s; below 25 some frames repeat and lips move in steps"
        )
    return lines


def _find_crop(
    info: decode.VideoInfo, origin: dict[str, Any], record: Record | None, config: ProcessConfig, progress: Progress
) -> tuple[crop.Crop, str]:
    """The crop of this video and the key of what it depends on: remembered from an earlier run, else planned from a coarse pass over it.

    Raises:
        UserError: no face in the video, or two.
    """
    key = stage_key(1, [origin["size"], origin["sha1"], dataclasses.asdict(config.crop)], [])
    if record is not None and record.facts.get("crop_key") == key and "crop" in record.facts:
        return crop.Crop(**record.facts["crop"]), key
    step = max(round(config.crop.every_seconds * 25), 1)
    indices = range(0, info.num_frames, step)
    observations: list[tracking.FaceObservation | None] = []
    with progress.stage("looking for the face", len(indices)) as advance, quiet_native_messages():
        with tracking.FaceTracker() as tracker:
            for _, frame in decode.frames(info, indices):
                observations.append(tracker.observe(frame))
                advance(1)
    rate = 25 / step
    # Small faces may be missed in the uncropped frame, so losing some is no reason to refuse here; a second person is.
    coarse = dataclasses.replace(
        config.tracking, frame_rate=rate, max_lost_fraction=1.0, max_other_face_frames=max(len(indices) // 20, 1)
    )
    with _about(info.path):
        tracking.assemble(observations, coarse)
    found = [observation.points[:, :2] for observation in observations if observation is not None]
    boxes = np.array([[*points.min(0), *points.max(0)] for points in found], np.float32)
    return crop.plan(boxes, info.width, info.height, config.crop), key


class _about:
    """Put the video's name before a message that only speaks of frames."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self._path}: {str(error).removeprefix('tracking: ')}") from None


def _remove_products(output: Path) -> None:
    """Remove what `degstalk process` writes, and nothing else; the folder stays."""
    if not output.is_dir():
        return
    layout = Layout(output)
    for split in ("train", "val"):
        layout.transforms(split).unlink(missing_ok=True)
    if not (output / RECORD_NAME).is_file():
        return  # not made by us: files of the same names are replaced one by one, nothing is deleted
    for folder in {
        layout.frame(0).parent,
        layout.parsing(0).parent,
        layout.teeth(0).parent,
        layout.torso(0).parent,
        layout.plate(0).parent,
    }:
        shutil.rmtree(folder, ignore_errors=True)
    for file in (
        layout.clean_plate,
        layout.audio,
        layout.audio_features("mel"),
        layout.action_units,
        layout.face_model_npz,
        layout.contact_sheet,
        output / "landmarks.npz",
        output / "poses.npz",
        output / RECORD_NAME,
    ):
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Stage:
    """One step of the pipeline: what it depends on, what it writes, and how."""

    name: str
    title: str
    settings: Any
    needs: tuple[str, ...]
    products: Callable[[], list[Path]]
    run: Callable[[Advance, set[int]], None]
    """Called with a progress callback and the frames whose products are missing."""
    per_frame: Callable[[int], list[Path]] | None = None


class _Run:
    """One run over one dataset."""

    def __init__(
        self,
        info: decode.VideoInfo,
        square: crop.Crop,
        segmenter: Path,
        layout: Layout,
        record: Record,
        config: ProcessConfig,
        progress: Progress,
    ) -> None:
        self.info, self.square, self.segmenter = info, square, segmenter
        self.layout, self.record, self.config, self.progress = layout, record, config, progress
        self.count = info.num_frames
        self.landmark_file = layout.root / "landmarks.npz"
        self.pose_file = layout.root / "poses.npz"

    # ---- which stages there are, and running them ----

    def stages(self) -> list[_Stage]:
        """In an order in which each stage finds what it needs."""
        layout, config = self.layout, self.config
        video = [self.record.video["size"], self.record.video["sha1"]]
        settings = {
            name: dataclasses.asdict(getattr(config, name))
            for name in ("tracking", "poses", "parsing", "plates", "mel")
        }
        one = lambda *paths: lambda: list(paths)  # noqa: E731
        return [
            _Stage("frames", "frames", [video, config.size, dataclasses.asdict(self.square)], (), list, self._frames,
                   lambda i: [layout.frame(i)]),
            _Stage("audio", "sound", [video], (), one(layout.audio), self._audio),
            _Stage("landmarks", "landmarks", settings["tracking"], ("frames",), one(self.landmark_file), self._landmarks,
                   lambda i: [layout.landmarks(i)]),
            _Stage("expression", "expression", [], ("landmarks",), one(layout.face_model_npz, layout.action_units),
                   self._expression),
            _Stage("poses", "head poses", settings["poses"], ("landmarks",), one(self.pose_file), self._poses),
            _Stage("parsing", "masks", settings["parsing"], ("landmarks",), list, self._parsing,
                   lambda i: [layout.parsing(i), layout.teeth(i)]),
            _Stage("plates", "torso and plates", [settings["plates"], PLATE_EROSION], ("parsing",), one(layout.clean_plate),
                   self._plates, lambda i: [layout.torso(i), layout.plate(i)]),
            _Stage("features", "audio features", settings["mel"], ("audio", "frames"), one(layout.audio_features("mel")),
                   self._features),
            _Stage("sheet", "contact sheet", [], ("poses", "plates"), one(layout.contact_sheet), self._sheet),
            # Last: a dataset without these does not load, so nothing half-written ever looks whole.
            _Stage("transforms", "transforms", [], ("poses", "expression", "parsing", "plates", "features"),
                   one(layout.transforms("val"), layout.transforms("train")), self._transforms),
        ]  # fmt: skip

    def all_stages(self) -> dict[str, float]:
        """Run what is missing or stale; seconds of each stage that ran."""
        stages = self.stages()
        keys: dict[str, str] = {}
        todo: list[tuple[_Stage, set[int], bool]] = []
        for stage in stages:
            keys[stage.name] = stage_key(VERSIONS[stage.name], stage.settings, [keys[need] for need in stage.needs])
            current = self.record.is_current(stage.name, keys[stage.name])
            missing = self._missing_frames(stage) if current else set(range(self.count))
            whole = current and not missing and all(path.is_file() for path in stage.products())
            if not (whole and self.record.is_complete(stage.name, keys[stage.name])):
                todo.append((stage, missing, current))
        if not todo:
            return {}
        for split in ("train", "val"):
            self.layout.transforms(split).unlink(missing_ok=True)
        if todo[-1][0].name != "transforms":
            todo.append((stages[-1], set(), True))
        self._remove_parts()
        seconds: dict[str, float] = {}
        for stage, missing, current in todo:
            key = keys[stage.name]
            if not current:
                self._remove_stage(stage)
            self.record.begin(stage.name, key)
            started = time.perf_counter()
            total = len(missing) if stage.per_frame else 1
            with self.progress.stage(stage.title, max(total, 1)) as advance:
                stage.run(advance, missing)
            seconds[stage.name] = time.perf_counter() - started
            self.record.finish(stage.name, key)
        return seconds

    def _missing_frames(self, stage: _Stage) -> set[int]:
        if stage.per_frame is None:
            return set()
        folders = {path.parent for path in stage.per_frame(0)}
        names = {folder: set(os.listdir(folder)) if folder.is_dir() else set() for folder in folders}
        return {i for i in range(self.count) if any(path.name not in names[path.parent] for path in stage.per_frame(i))}

    def _remove_stage(self, stage: _Stage) -> None:
        """Remove the stale products of a stage, also those beyond the present number of frames."""
        for path in stage.products():
            path.unlink(missing_ok=True)
        if stage.per_frame is None or stage.name not in self.record.stages:
            return  # files of the same kind that we did not write are not ours to delete
        for example in stage.per_frame(0):
            for path in example.parent.glob(f"*{example.suffix}"):
                path.unlink()

    def _remove_parts(self) -> None:
        root = self.layout.root
        for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
            for part in folder.glob(f"{PART_PREFIX}*"):
                part.unlink()

    # ---- the stages ----

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.config.worker_count())

    @property
    def _ahead(self) -> int:
        return AHEAD * self.config.worker_count()

    def _frames(self, advance: Advance, missing: set[int]) -> None:
        self.layout.frame(0).parent.mkdir(exist_ok=True)

        def write(item: tuple[int, NDArray[np.uint8]]) -> None:
            i, frame = item
            images.write_jpeg(self.layout.frame(i), self.square.apply(frame, self.config.size))

        wanted = (item for item in decode.frames(self.info) if item[0] in missing)
        with self._pool() as pool:
            for _ in in_order(pool, write, wanted, self._ahead):
                advance(1)

    def _audio(self, advance: Advance, missing: set[int]) -> None:
        waveform = decode.read_audio(self.info)
        write_whole(self.layout.audio, lambda part: soundfile.write(str(part), waveform, SAMPLE_RATE, subtype="PCM_16"))
        advance(1)

    def _landmarks(self, advance: Advance, missing: set[int]) -> None:
        if not self.landmark_file.is_file():
            self._track(advance)
        points = np.load(self.landmark_file)["points"]
        for i in missing:
            text = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points[i][list(landmarks.TO_68), :2])
            write_bytes(self.layout.landmarks(i), text.encode())

    def _track(self, advance: Advance) -> None:
        def report(done: int, total: int) -> None:
            advance(1)

        with self._pool() as pool, quiet_native_messages(), _about(self.info.path):
            paths = (self.layout.frame(i) for i in range(self.count))
            frames = in_order(pool, images.read_rgb, paths, self._ahead)
            track = tracking.track(frames, self.count, report, self.config.tracking)
        arrays = {
            "points": track.points.astype(np.float32),
            "valid": track.valid,
            "blendshapes": track.blendshapes.astype(np.float32),
            "gaps": np.array(track.gaps, np.int64).reshape(-1, 2),
        }
        write_whole(self.landmark_file, lambda part: np.savez(part, **arrays))

    def _expression(self, advance: Advance, missing: set[int]) -> None:
        track = np.load(self.landmark_file)
        raise NotImplementedError

    def _poses(self, advance: Advance, missing: set[int]) -> None:
        track, size = np.load(self.landmark_file), self.config.size
        solved = poses.solve_head_poses(track["points"], track["valid"], size, size, self.config.poses)
        arrays = {
            "c2w": solved.c2w,
            "residual": solved.residual,
            "intrinsics": np.array([solved.focal, solved.cx, solved.cy]),
        }
        write_whole(self.pose_file, lambda part: np.savez(part, **arrays))
        advance(1)

    def _parsing(self, advance: Advance, missing: set[int]) -> None:
        self.layout.parsing(0).parent.mkdir(exist_ok=True)
        self.layout.teeth(0).parent.mkdir(exist_ok=True)
        points, settings, size = np.load(self.landmark_file)["points"], self.config.parsing, self.config.size
        free: SimpleQueue[parsing.Segmenter] = SimpleQueue()

        def segment(i: int) -> _Segmented:
            frame = images.read_rgb(self.layout.frame(i))
            segmenter = free.get()
            try:
                return _Segmented(i, frame, segmenter.confidences(frame))
            finally:
                free.put(segmenter)

        def write(window: tuple[_Segmented | None, _Segmented, _Segmented | None]) -> None:
            before, now, after = window
            confidences = parsing.smooth(
                before.confidences if before else None, now.confidences, after.confidences if after else None, settings
            )
            codes = parsing.parse(confidences, points[now.i], size, size, settings)
            visible = parsing.teeth(now.frame, codes == parsing.MOUTH, settings)
            write_whole(self.layout.teeth(now.i), lambda part: np.save(part, visible))
            images.write_png(self.layout.parsing(now.i), parsing.to_colours(codes))

        # Smoothing looks at the frames on both sides, so these are segmented too when only some frames are missing.
        needed = sorted({j for i in missing for j in (i - 1, i, i + 1) if 0 <= j < self.count})
        workers = self.config.worker_count()
        with quiet_native_messages():
            held = [parsing.Segmenter(self.segmenter) for _ in range(workers)]
            try:
                for segmenter in held:
                    free.put(segmenter)
                with self._pool() as pool:
                    segmented = in_order(pool, segment, needed, self._ahead)
                    windows = (window for window in _windows(segmented) if window[1].i in missing)
                    for _ in in_order(pool, write, windows, self._ahead):
                        advance(1)
            finally:
                for segmenter in held:
                    segmenter.close()

    def _plates(self, advance: Advance, missing: set[int]) -> None:
        layout, settings = self.layout, self.config.plates
        layout.torso(0).parent.mkdir(exist_ok=True)
        layout.plate(0).parent.mkdir(exist_ok=True)

        def load(i: int) -> tuple[NDArray[np.uint8], parsing.Codes]:
            return images.read_rgb(layout.frame(i)), parsing.from_colours(images.read_rgb(layout.parsing(i)))

        with self._pool() as pool:
            if not layout.clean_plate.is_file():
                chosen = np.unique(np.linspace(0, self.count - 1, settings.samples).round().astype(int)).tolist()
                images.write_jpeg(
                    layout.clean_plate, plates.clean_plate(in_order(pool, load, chosen, self._ahead), settings)
                )
            clean = images.read_rgb(layout.clean_plate)

            def write(i: int) -> None:
                frame, codes = load(i)
                torso = plates.torso_image(frame, codes, settings)
                head = (codes == parsing.HEAD) | (codes == parsing.MOUTH)
                images.write_png(layout.torso(i), torso)
                images.write_png(layout.plate(i), frame_plate(frame, head, torso, clean, PLATE_EROSION))

            for _ in in_order(pool, write, sorted(missing), self._ahead):
                advance(1)

    def _features(self, advance: Advance, missing: set[int]) -> None:
        windows = mel_windows(read_waveform(self.layout.audio), self.count, self.config.mel)
        write_whole(self.layout.audio_features("mel"), lambda part: np.save(part, windows))
        advance(1)

    def _sheet(self, advance: Advance, missing: set[int]) -> None:
        points, solved = np.load(self.landmark_file)["points"], np.load(self.pose_file)
        focal, cx, cy = solved["intrinsics"].tolist()
        rows = []
        for i in np.linspace(0, self.count - 1, contact_sheet.ROWS).round().astype(int).tolist():
            rows.append(
                contact_sheet.Row(
                    name=f"frame {i}",
                    frame=images.read_rgb(self.layout.frame(i)),
                    parsing=images.read_rgb(self.layout.parsing(i)),
                    teeth=np.load(self.layout.teeth(i)),
                    landmarks=points[i][list(landmarks.TO_68), :2],
                    axes=poses.project(contact_sheet.AXES, solved["c2w"][i], focal, cx, cy),
                    torso=images.read_rgba(self.layout.torso(i)),
                    plate=images.read_rgb(self.layout.plate(i)),
                )
            )
        images.write_png(self.layout.contact_sheet, contact_sheet.draw(rows))
        advance(1)

    def _transforms(self, advance: Advance, missing: set[int]) -> None:
        solved = np.load(self.pose_file)
        focal, cx, cy = solved["intrinsics"].tolist()
        split = train_count(self.count)
        for name, frames in (("val", range(split, self.count)), ("train", range(split))):
            content = {
                "focal_len": focal,
                "cx": cx,
                "cy": cy,
                "frames": [{"img_id": i, "aud_id": i, "transform_matrix": solved["c2w"][i].tolist()} for i in frames],
            }
            write_bytes(self.layout.transforms(name), json.dumps(content, indent=1).encode())
        advance(1)


@dataclass(frozen=True)
class _Segmented:
    i: int
    frame: NDArray[np.uint8]
    confidences: NDArray[np.float32]


def _windows(
    segmented: Iterator[_Segmented],
) -> Iterator[tuple[_Segmented | None, _Segmented, _Segmented | None]]:
    """Each frame with those right before and after it, None where the neighbour was not asked for."""
    before: _Segmented | None = None
    now: _Segmented | None = None
    for after in segmented:
        if now is not None:
            yield before, now, after if after.i == now.i + 1 else None
            before = now if after.i == now.i + 1 else None
        now = after
    if now is not None:
        yield before, now, None
