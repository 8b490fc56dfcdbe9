"""The products of a dataset: which step makes which files, from what, and how.

Each step joins modules of this folder and writes what they return. It must not know what is done already or stale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns import files, model_files
from degstalk_ns.audio.features import FEATURES
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.console.progress import Advance, quiet_native_messages
from degstalk_ns.dataparsers import contact_sheet, writing
from degstalk_ns.dataparsers.driving_files import PHONETIC
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.files import write_whole
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks import blendshapes, mesh478
from degstalk_ns.landmarks.brows import BROW_NAMES, brow_heights, not_followed
from degstalk_ns.landmarks.ibug68 import lip_opening, lips_width
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures
from degstalk_ns.landmarks.segmenter import Segmenter
from degstalk_ns.parallel import in_order
from degstalk_ns.plates.build import FRAME_PLATE, frame_plate
from degstalk_ns.plates.hair import with_hair_in_front
from degstalk_ns.preprocess import alignment, clean_plate, crop, decode, parsing, poses, tracking
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.record import Step, key_settings
from degstalk_ns.speech.in_step import in_step

_AHEAD: Final[int] = 3
"""Frames in flight for each worker."""


VERSIONS: Final[dict[str, int]] = {
    "frames": 1,
    "audio": 2,
    "landmarks": 1,
    "expression": 3,
    "head poses": 2,
    "masks": 1,
    "plates": 3,
    "audio features": 2,
    "contact sheet": 1,
    "transforms": 1,
}
"""Raise a step's number when its code writes something else: datasets made before are then stale."""
SOUND_STEPS: Final[tuple[str, ...]] = ("audio", "audio features")
"""The steps of ``--only audio``."""


def landmark_file(layout: Layout) -> Path:
    """points [T, 478, 3], valid [T], blendshapes [T, 52], gaps [G, 2] (first and last frame of each)."""
    return layout.root / "landmarks.npz"


def pose_file(layout: Layout) -> Path:
    """c2w [T, 4, 4], intrinsics (focal, cx, cy), residual [T], brows [T, 4] (metres that they are raised, NaN where the
    picture does not tell); mark_residual [T] where texture was followed."""
    return layout.root / "poses.npz"


class Products:
    """The steps that make one dataset from one video."""

    def __init__(
        self,
        info: decode.VideoInfo,
        identity: dict[str, Any],
        square: crop.Crop,
        layout: Layout,
        config: ProcessConfig,
        whisper: bool,
    ) -> None:
        """``identity`` is :func:`decode.identity` of the video; ``whisper``: whether its vectors are made."""
        self.whisper = whisper
        self.vectors = tuple(dict.fromkeys([*[PHONETIC] * whisper, *config.features]))
        self.info, self.identity, self.square = info, identity, square
        self.layout, self.config = layout, config
        self.count = info.num_frames
        self.landmark_file = landmark_file(layout)
        self.pose_file = pose_file(layout)

    def steps(self) -> list[Step]:
        """In an order in which each step finds what it needs."""
        layout, config = self.layout, self.config
        video = [self.identity["size"], self.identity["sha1"]]
        settings = {
            name: key_settings(getattr(config, name))
            for name in ("tracking", "poses", "alignment", "brows", "parsing", "plates", "mel")
        }

        # Lengths are fractions of the height; a key holds the pixels that they are at this size.
        thinnest = config.parsing.thinnest(config.size)
        masks = settings["parsing"] if thinnest == (2, 2) else [settings["parsing"], thinnest]

        def one(*paths: Path) -> Callable[[], list[Path]]:
            return lambda: list(paths)

        return [
            Step(
                "frames",
                [video, config.size, dataclasses.asdict(self.square)],
                needs=(),
                products=list,
                run=self._frames,
                per_frame=lambda i: [layout.frame(i)],
            ),
            Step(
                "landmarks",
                settings["tracking"],
                needs=("frames",),
                products=one(self.landmark_file),
                run=self._landmarks,
                per_frame=lambda i: [layout.landmarks(i)],
            ),
            Step(
                "audio",
                [video, self.count, self.whisper and config.sync],
                needs=("landmarks",),
                products=one(layout.audio),
                run=self._audio,
            ),
            Step(
                "head poses",
                [settings["poses"], settings["alignment"], settings["brows"]],
                needs=("landmarks",),
                products=one(self.pose_file),
                run=self._poses,
                ticks=2 * self.count,
            ),
            Step(
                "expression",
                [],
                needs=("landmarks", "head poses"),
                products=one(layout.face_model_npz, layout.action_units),
                run=self._expression,
            ),
            Step(
                "masks",
                masks,
                needs=("landmarks",),
                products=list,
                run=self._parsing,
                per_frame=lambda i: [layout.parsing(i), layout.teeth(i)],
            ),
            Step(
                "plates",
                [settings["plates"], FRAME_PLATE.erosion_window(config.size)],
                needs=("masks",),
                products=one(layout.clean_plate),
                run=self._plates,
                per_frame=lambda i: [layout.torso(i), layout.plate(i)],
            ),
            Step(
                "audio features",
                [settings["mel"], self.vectors],
                needs=("audio",),
                products=one(*map(layout.audio_features, ("mel", *self.vectors))),
                run=self._features,
            ),
            Step(
                "contact sheet",
                [],
                needs=("head poses", "plates"),
                products=one(layout.contact_sheet),
                run=self._sheet,
            ),
            # Last: a dataset without these does not load, so nothing half-written ever looks whole.
            Step(
                "transforms",
                [],
                needs=("head poses", "expression", "plates", "audio features"),
                products=one(layout.transforms("val"), layout.transforms("train")),
                run=self._transforms,
            ),
        ]

    # ---- how each is made ----

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.config.worker_count())

    @property
    def _ahead(self) -> int:
        return _AHEAD * self.config.worker_count()

    def _frames(self, advance: Advance, missing: set[int]) -> None:
        self.layout.frame(0).parent.mkdir(exist_ok=True)

        def write(item: tuple[int, NDArray[np.uint8]]) -> None:
            i, frame = item
            files.write_jpeg(self.layout.frame(i), self.square.apply(frame, self.config.size))

        wanted = (item for item in decode.frames(self.info) if item[0] in missing)
        with self._pool() as pool:
            for _ in in_order(pool, write, wanted, self._ahead):
                advance(1)

    def _audio(self, advance: Advance, missing: set[int]) -> list[str]:
        samples, notes = decode.read_audio(self.info), []
        if self.whisper and self.config.sync == "auto":
            marks = mesh478.to_68(np.load(self.landmark_file)["points"])
            samples, moved = in_step(samples, lip_opening(marks), lips_width(marks))
            notes = [f"the sound was {moved} and was moved; --sync off leaves it as it is"] if moved else []
        writing.write_sound(self.layout.audio, samples)
        advance(1)
        return notes

    def _landmarks(self, advance: Advance, missing: set[int]) -> list[str]:
        notes = [] if self.landmark_file.is_file() else self._track(advance)
        points = np.load(self.landmark_file)["points"]
        for i in missing:
            writing.write_lms(self.layout.landmarks(i), points[i])
        return notes

    def _track(self, advance: Advance) -> list[str]:
        def report(done: int, total: int) -> None:
            advance(1)

        with self._pool() as pool, quiet_native_messages(), tracking.naming_video(self.info.path):
            paths = (self.layout.frame(i) for i in range(self.count))
            frames = in_order(pool, files.read_rgb, paths, self._ahead)
            track = tracking.track(frames, self.count, report, self.config.tracking)
        arrays = {
            "points": track.points.astype(np.float32),
            "valid": track.valid,
            "blendshapes": track.blendshapes.astype(np.float32),
            "gaps": np.array(track.gaps, np.int64).reshape(-1, 2),
        }
        write_whole(self.landmark_file, lambda part: np.savez(part, **arrays))
        return list(track.notes)

    def _expression(self, advance: Advance, missing: set[int]) -> None:
        track = np.load(self.landmark_file)
        shapes, points = track["blendshapes"], track["points"]
        brows = np.load(self.pose_file)["brows"] / self.config.poses.interpupillary_distance
        writing.write_face_model(self.layout.face_model_npz, blendshapes.expression(shapes, points, brows))
        units = blendshapes.au_table(shapes, points, track["valid"], FRAME_RATE)
        writing.write_action_units(self.layout.action_units, units)
        advance(1)

    def _poses(self, advance: Advance, missing: set[int]) -> list[str]:
        track, size = np.load(self.landmark_file), self.config.size
        points, valid = track["points"], track["valid"]
        shown = 0

        def report(done: int, total: int) -> None:
            nonlocal shown
            step = done * self.count // max(total, 1) - shown
            shown += step
            advance(step)

        solved = poses.solve_head_poses(points, valid, size, size, self.config.poses)
        with self._pool() as pool:

            def read(indices: NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
                return in_order(pool, files.read_rgb, (self.layout.frame(int(i)) for i in indices), self._ahead)

            solved = alignment.refine_head_poses(
                read, points, valid, size, size, solved, self.config.alignment, self.config.poses, report
            )
            advance(self.count - shown)
            profiles, rows = alignment.brow_profiles(read, valid, solved, self.config.alignment, lambda: advance(1))
        advance(self.count - int(valid.sum()))
        on_mesh = face_measures(points)[:, [MEASURE_NAMES.index(name) for name in BROW_NAMES]]
        on_mesh *= self.config.poses.interpupillary_distance
        brows = brow_heights(profiles, rows, on_mesh, self.config.alignment.texel, self.config.brows)
        arrays = {
            "c2w": solved.c2w,
            "brows": brows,
            "residual": solved.residual,
            "intrinsics": np.array([solved.focal, solved.cx, solved.cy]),
        }
        if solved.mark_residual is not None:
            arrays["mark_residual"] = solved.mark_residual
        write_whole(self.pose_file, lambda part: np.savez(part, **arrays))
        return [*solved.notes, *not_followed(brows)]

    def _parsing(self, advance: Advance, missing: set[int]) -> None:
        self.layout.parsing(0).parent.mkdir(exist_ok=True)
        self.layout.teeth(0).parent.mkdir(exist_ok=True)
        points, settings = np.load(self.landmark_file)["points"], self.config.parsing
        free: SimpleQueue[Segmenter] = SimpleQueue()

        def segment(i: int) -> parsing.SegmentedFrame:
            frame = files.read_rgb(self.layout.frame(i))
            segmenter = free.get()
            try:
                return parsing.SegmentedFrame(i, frame, segmenter.confidences(frame))
            finally:
                free.put(segmenter)

        def write(
            window: tuple[parsing.SegmentedFrame | None, parsing.SegmentedFrame, parsing.SegmentedFrame | None],
        ) -> None:
            before, now, after = window
            confidences = parsing.smooth_confidences(
                before.confidences if before else None, now.confidences, after.confidences if after else None, settings
            )
            mouth, teeth = parsing.find_mouth(now.frame, points[now.i], settings)
            codes = parsing.parse(confidences, points[now.i], mouth, settings)
            writing.write_teeth(self.layout.teeth(now.i), teeth)
            files.write_png(self.layout.parsing(now.i), parsing.to_colours(codes))

        # Smoothing looks at the frames on both sides, so these are segmented too when only some frames are missing.
        needed = sorted({j for i in missing for j in (i - 1, i, i + 1) if 0 <= j < self.count})
        workers, model = self.config.worker_count(), model_files.selfie_segmenter()
        with quiet_native_messages():
            held = [Segmenter(model) for _ in range(workers)]
            try:
                for segmenter in held:
                    free.put(segmenter)
                with self._pool() as pool:
                    segmented = in_order(pool, segment, needed, self._ahead)
                    windows = (window for window in parsing.with_neighbours(segmented) if window[1].i in missing)
                    for _ in in_order(pool, write, windows, self._ahead):
                        advance(1)
            finally:
                for segmenter in held:
                    segmenter.close()

    def _plates(self, advance: Advance, missing: set[int]) -> list[str]:
        notes: list[str] = []
        layout, settings = self.layout, self.config.plates
        layout.torso(0).parent.mkdir(exist_ok=True)
        layout.plate(0).parent.mkdir(exist_ok=True)

        def load(i: int) -> tuple[NDArray[np.uint8], parsing.Codes]:
            return files.read_rgb(layout.frame(i)), parsing.from_colours(files.read_rgb(layout.parsing(i)))

        with self._pool() as pool:
            if not layout.clean_plate.is_file():
                chosen = np.unique(np.linspace(0, self.count - 1, settings.samples).round().astype(int)).tolist()
                plate, seen = clean_plate.clean_plate(in_order(pool, load, chosen, self._ahead), settings)
                if not seen.any():
                    notes.append("the background is never seen, so it is white where the head moves away from it")
                files.write_jpeg(layout.clean_plate, plate)
            clean = files.read_rgb(layout.clean_plate)

            def write(i: int) -> bool:
                """Whether the frame's neck or clothes could be continued behind the head."""
                frame, codes = load(i)
                torso = clean_plate.torso_image(frame, codes, settings)
                head = (codes == parsing.HEAD) | (codes == parsing.MOUTH)
                files.write_png(layout.torso(i), torso)
                plate = frame_plate(frame, head, torso, clean)
                files.write_png(layout.plate(i), with_hair_in_front(plate, frame, head, codes == parsing.HAIR))
                body = (codes == parsing.NECK) | (codes == parsing.TORSO)
                return bool(((torso[..., 3] > 0) & ~body).any())

            without = 0
            for continued in in_order(pool, write, sorted(missing), self._ahead):
                without += not continued
                advance(1)
        if without:
            notes.append(
                f"in {without} of {len(missing)} frames neither neck nor clothes are seen under the head: where the "
                "jaw rises, the background shows"
            )
        return notes

    def _features(self, advance: Advance, missing: set[int]) -> None:
        samples = load_sound(self.layout.audio, UNLIMITED).samples
        for name in FEATURES.keys() - {"mel", *self.vectors}:  # of a sound that is no longer the same
            self.layout.audio_features(name).unlink(missing_ok=True)
        windows = mel_windows(samples, self.count, self.config.mel)
        writing.write_audio_features(self.layout.audio_features("mel"), windows)
        for name in self.vectors:
            vectors = FEATURES[name].compute(samples).astype(np.float16)
            writing.write_audio_features(self.layout.audio_features(name), vectors)
        advance(1)

    def _sheet(self, advance: Advance, missing: set[int]) -> None:
        points, solved = np.load(self.landmark_file)["points"], np.load(self.pose_file)
        axes = [poses.project_points(contact_sheet.AXES, c2w, *solved["intrinsics"].tolist()) for c2w in solved["c2w"]]
        writing.write_contact_sheet(self.layout, mesh478.to_68(points), np.stack(axes))
        advance(1)

    def _transforms(self, advance: Advance, missing: set[int]) -> None:
        solved = np.load(self.pose_file)
        writing.write_transforms(self.layout, solved["c2w"], *solved["intrinsics"].tolist())
        advance(1)
