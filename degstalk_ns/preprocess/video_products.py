"""The steps that make a dataset from a video: which files each writes, and from what.

It must not know how a file is made from frames, nor what is done already or stale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns import files
from degstalk_ns.console.progress import Advance
from degstalk_ns.dataparsers import writing
from degstalk_ns.dataparsers.driving_files import PHONETIC
from degstalk_ns.dataparsers.layout import Layout
from degstalk_ns.landmarks import mesh478
from degstalk_ns.landmarks.ibug68 import lip_opening, lips_width
from degstalk_ns.parallel import in_order
from degstalk_ns.plates.build import FRAME_PLATE
from degstalk_ns.preprocess.config import ProcessConfig
from degstalk_ns.preprocess.products import FrameProducts
from degstalk_ns.preprocess.record import Step, key_settings
from degstalk_ns.preprocess.steps import crop, decode, heard
from degstalk_ns.speech.in_step import in_step

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


class VideoProducts(FrameProducts):
    """The steps that make one dataset from one video."""

    def __init__(
        self,
        info: decode.VideoInfo,
        identity: dict[str, Any],
        square: crop.Crop,
        layout: Layout,
        config: ProcessConfig,
        whisper: bool,
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """``identity`` is :func:`decode.identity` of the video; ``whisper``: whether its vectors are made; ``kept``:
        files that were brought in from elsewhere."""
        vectors = tuple(dict.fromkeys([*[PHONETIC] * whisper, *config.features]))
        super().__init__(layout, config, info.num_frames, (config.size, config.size), info.path, vectors, kept)
        self.whisper, self.info, self.identity, self.square = whisper, info, identity, square

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
                run=self.make_landmarks,
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
                run=self.make_poses,
                ticks=2 * self.count,
            ),
            Step(
                "expression",
                [],
                needs=("landmarks", "head poses"),
                products=one(*self.face_signal_files()),
                run=self.make_expression,
            ),
            Step(
                "masks",
                masks,
                needs=("landmarks",),
                products=list,
                run=self.make_parsing,
                per_frame=lambda i: [layout.parsing(i), layout.teeth(i)],
            ),
            Step(
                "plates",
                [settings["plates"], FRAME_PLATE.erosion_window(config.size)],
                needs=("masks",),
                products=one(layout.clean_plate),
                run=self.make_plates,
                per_frame=lambda i: [layout.torso(i), layout.plate(i)],
            ),
            Step(
                "audio features",
                [settings["mel"], self.vectors],
                needs=("audio",),
                products=one(*map(layout.audio_features, ("mel", *self.vectors))),
                run=self.make_features,
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
        samples = decode.read_audio(self.info)
        notes = heard.hush_notes(samples)
        if self.whisper and self.config.sync == "auto":
            marks = mesh478.to_68(np.load(self.landmark_file)["points"])
            samples, moved = in_step(samples, lip_opening(marks), lips_width(marks))
            notes += [f"the sound was {moved} and was moved; --sync off leaves it as it is"] if moved else []
        writing.write_sound(self.layout.audio, samples)
        advance(1)
        return notes

    def _sheet(self, advance: Advance, missing: set[int]) -> None:
        solved = np.load(self.pose_file)
        self.make_sheet(advance, solved["c2w"], solved["intrinsics"].tolist())

    def _transforms(self, advance: Advance, missing: set[int]) -> None:
        solved = np.load(self.pose_file)
        writing.write_transforms(self.layout, solved["c2w"], *solved["intrinsics"].tolist())
        advance(1)
