"""The files of a dataset that are made from its frames, and how.

Each method joins modules of `steps/` and writes what they return. It must not know where the frames come from, nor what
is done already or stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns import files, model_files
from degstalk_ns.audio.features import FEATURES
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.console.progress import Advance, quiet_native_messages
from degstalk_ns.dataparsers import contact_sheet, writing
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.files import write_whole
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks import blendshapes, mesh478
from degstalk_ns.landmarks.brows import BROW_NAMES, brow_heights, not_followed
from degstalk_ns.landmarks.measures import MEASURE_NAMES, face_measures
from degstalk_ns.landmarks.segmenter import Segmenter
from degstalk_ns.parallel import in_order
from degstalk_ns.plates.build import frame_plate
from degstalk_ns.plates.hair import with_hair_in_front
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.steps import alignment, clean_plate, parsing, poses, tracking

_AHEAD: Final[int] = 3
"""Frames in flight for each worker."""


def landmark_file(layout: Layout) -> Path:
    """points [T, 478, 3], valid [T], blendshapes [T, 52], gaps [G, 2] (first and last frame of each)."""
    return layout.root / "landmarks.npz"


def pose_file(layout: Layout) -> Path:
    """c2w [T, 4, 4], intrinsics (focal, cx, cy), residual [T], brows [T, 4] (metres that they are raised, NaN where the
    picture does not tell); mark_residual [T] where texture was followed."""
    return layout.root / "poses.npz"


class FrameProducts:
    """What is made from the frames of a dataset that lie there already.

    Attributes:
        layout: of the dataset.
        config: options.
        count: number T of frames.
        width, height: of the frames, pixels.
        source: what is named where the frames turn out unusable.
        vectors: names of the audio features that are made beside log-mel windows.
        kept: names of files and folders that were brought in from elsewhere: what of them is there is not written.
    """

    def __init__(
        self,
        layout: Layout,
        config: ProcessConfig,
        count: int,
        size: tuple[int, int],
        source: Path,
        vectors: tuple[str, ...] = (),
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """``size``: width and height."""
        self.layout, self.config, self.count, self.source = layout, config, count, source
        self.width, self.height = size
        self.vectors, self.kept = vectors, kept
        self.landmark_file, self.pose_file = landmark_file(layout), pose_file(layout)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.config.worker_count())

    @property
    def _ahead(self) -> int:
        return _AHEAD * self.config.worker_count()

    def make_landmarks(self, advance: Advance, missing: set[int]) -> list[str]:
        notes = [] if self.landmark_file.is_file() else self.track(advance)
        points = np.load(self.landmark_file)["points"]
        for i in missing:
            writing.write_lms(self.layout.landmarks(i), points[i])
        return notes

    def track(self, advance: Advance) -> list[str]:
        def report(done: int, total: int) -> None:
            advance(1)

        with self._pool() as pool, quiet_native_messages(), tracking.naming_video(self.source):
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

    def make_expression(self, advance: Advance, missing: set[int]) -> None:
        track = np.load(self.landmark_file)
        shapes, points = track["blendshapes"], track["points"]
        brows = np.load(self.pose_file)["brows"] / self.config.poses.interpupillary_distance
        writing.write_face_model(self.layout.face_model_npz, blendshapes.expression(shapes, points, brows))
        if self.layout.action_units in self.face_signal_files():
            units = blendshapes.au_table(shapes, points, track["valid"], FRAME_RATE)
            writing.write_action_units(self.layout.action_units, units)
        advance(1)

    def _is_kept(self, path: Path) -> bool:
        """Whether a file of a frame is another program's."""
        return path.parent.name in self.kept and path.exists()

    def face_signal_files(self) -> list[Path]:
        """What :meth:`make_expression` writes."""
        written = (self.layout.face_model_npz, self.layout.action_units)
        return [path for path in written if path.name not in self.kept]

    def make_poses(self, advance: Advance, missing: set[int]) -> list[str]:
        track, size = np.load(self.landmark_file), (self.width, self.height)
        points, valid = track["points"], track["valid"]
        shown = 0

        def report(done: int, total: int) -> None:
            nonlocal shown
            step = done * self.count // max(total, 1) - shown
            shown += step
            advance(step)

        solved = poses.solve_head_poses(points, valid, *size, self.config.poses)
        with self._pool() as pool:

            def read(indices: NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
                return in_order(pool, files.read_rgb, (self.layout.frame(int(i)) for i in indices), self._ahead)

            solved = alignment.refine_head_poses(
                read, points, valid, *size, solved, self.config.alignment, self.config.poses, report
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

    def make_parsing(self, advance: Advance, missing: set[int]) -> None:
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
            if not self._is_kept(self.layout.teeth(now.i)):
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

    def make_teeth(self, advance: Advance, missing: set[int]) -> None:
        """The masks of the teeth alone, where those of the regions are there."""
        self.layout.teeth(0).parent.mkdir(exist_ok=True)
        points, settings = np.load(self.landmark_file)["points"], self.config.parsing

        def write(i: int) -> None:
            _, teeth = parsing.find_mouth(files.read_rgb(self.layout.frame(i)), points[i], settings)
            writing.write_teeth(self.layout.teeth(i), teeth)

        with self._pool() as pool:
            for _ in in_order(pool, write, sorted(missing), self._ahead):
                advance(1)

    def make_plates(self, advance: Advance, missing: set[int]) -> list[str]:
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
                torso = self._torso(i, frame, codes)
                head = (codes == parsing.HEAD) | (codes == parsing.MOUTH)
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

    def _torso(self, i: int, frame: NDArray[np.uint8], codes: parsing.Codes) -> NDArray[np.uint8]:
        """The torso image of a frame, made and written unless it is another program's."""
        path = self.layout.torso(i)
        if self._is_kept(path):
            return files.read_rgba(path)
        torso = clean_plate.torso_image(frame, codes, self.config.plates)
        files.write_png(path, torso)
        return torso

    def make_features(self, advance: Advance, missing: set[int]) -> None:
        samples = load_sound(self.layout.audio, UNLIMITED).samples
        for name in FEATURES.keys() - {"mel", *self.vectors}:  # of a sound that is no longer the same
            if self.layout.audio_features(name).name not in self.kept:
                self.layout.audio_features(name).unlink(missing_ok=True)
        if self.layout.audio_features("mel").name not in self.kept:
            windows = mel_windows(samples, self.count, self.config.mel)
            writing.write_audio_features(self.layout.audio_features("mel"), windows)
        for name in self.vectors:
            if self.layout.audio_features(name).name not in self.kept:
                vectors = FEATURES[name].compute(samples).astype(np.float16)
                writing.write_audio_features(self.layout.audio_features(name), vectors)
        advance(1)

    def make_sheet(self, advance: Advance, c2w: NDArray[np.floating], intrinsics: Sequence[float]) -> None:
        """``c2w``: [T, 4, 4] of all frames; ``intrinsics``: focal length and principal point, pixels."""
        axes = [poses.project_points(contact_sheet.AXES, pose, *intrinsics) for pose in c2w]
        points = np.load(self.landmark_file)["points"]
        writing.write_contact_sheet(self.layout, mesh478.to_68(points), np.stack(axes))
        advance(1)
