"""Renders an animation as a video or as single frames. Plates are read in advance, and interrupted exports are resumed.
``side_by_side`` puts the recorded frame to the left of the rendered one.

The animation decides what is shown, and the portrait composes each frame. It must not know nerfstudio.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from degstalk_ns import __version__
from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.frames import Image, Portrait, Size, backdrop
from degstalk_ns.avatar.camera import View
from degstalk_ns.console.progress import Progress
from degstalk_ns.dataparsers.recording import Recording
from degstalk_ns.errors import UserError
from degstalk_ns.export.provenance import Provenance
from degstalk_ns.export.watermark import Watermark
from degstalk_ns.export.writer import VideoConfig, VideoExport
from degstalk_ns.files import only_one

READ_AHEAD: int = 4
"""Number of frames whose plates are read in advance while others are rendered."""


class TrainedRun(Protocol):
    """A trained run, as :func:`degstalk_ns.load_run` loads one.

    Attributes:
        portrait: renders the frames.
        recording: the dataset that it was trained on.
        name: name of the checkpoint, without any folder.
    """

    @property
    def portrait(self) -> Portrait: ...
    @property
    def recording(self) -> Recording: ...
    @property
    def name(self) -> str: ...
    def fingerprint(self) -> str:
        """Hash of everything that its frames depend on; parts of an export with another one are not reused."""
        ...


@dataclass(frozen=True)
class RenderSummary:
    """What :func:`render_video` did.

    Attributes:
        output: the video.
        frames: number of frames of the video.
        rendered: number of frames rendered now; the others were left by an interrupted export.
        seconds: duration of the rendering.
    """

    output: Path
    frames: int
    rendered: int
    seconds: float


def picture_size(run: TrainedRun, animation: Animation, side_by_side: bool = False) -> Size:
    """Width and height of the pictures of an animation."""
    views, frames = animation.views, run.portrait.frames
    width, height = (views[0].width, views[0].height) if views else frames.size
    return (2 * width if side_by_side else width), height


def render_frames(
    run: TrainedRun, animation: Animation, first: int = 0, end: int | None = None, side_by_side: bool = False
) -> Iterator[Image]:
    """Pictures ``first`` to ``end`` (excluded; None is the last) of an animation, one at a time.

    Args:
        side_by_side: the recorded frame to the left of the rendered one.

    Yields:
        RGB [H, W, 3] uint8, or [H, 2 W, 3] side by side.

    Raises:
        UserError: a file of the dataset is missing or damaged, or there is no recorded frame to be shown beside.
    """
    portrait = run.portrait
    if side_by_side and (animation.freed or animation.views is not None):
        raise UserError("side by side: only the recording itself, seen by its own camera, has recorded frames")

    def scene(number: int) -> tuple[View, torch.Tensor, Image | None]:
        row = int(animation.recorded[number])
        own = None if animation.views is None else animation.views[number]
        view = (portrait.frames.view(row) if own is None else own).to(portrait.device)
        truth = portrait.frames.truth(row) if side_by_side else None
        return view, backdrop(portrait, view, row, animation.freed), truth

    last = len(animation) if end is None else end
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="plates") as reader:
        ahead: dict[int, Future[tuple[View, torch.Tensor, Image | None]]] = {}
        try:
            for number in range(first, last):
                for later in range(number, min(number + 1 + READ_AHEAD, last)):
                    if later not in ahead:
                        ahead[later] = reader.submit(scene, later)
                view, plate, truth = ahead.pop(number).result()
                conditions = animation.conditions(number).to(portrait.device)
                image = portrait.frame(view, conditions, plate).cpu().numpy()
                yield image if truth is None else np.concatenate([truth, image], 1)
        finally:
            for future in ahead.values():
                future.cancel()


def render_video(
    run: TrainedRun,
    animation: Animation,
    output: Path | str,
    *,
    side_by_side: bool = False,
    watermark: bool = False,
    overwrite: bool = False,
    config: VideoConfig | None = None,
    progress: Progress | None = None,
) -> RenderSummary:
    """Renders an animation into an .mp4 with its audio; interrupted, the same call goes on where it stopped.

    The video's metadata say that it is synthetic, by which version and checkpoint it was made, and when.

    Args:
        run: as :func:`degstalk_ns.load_run` gives it.
        animation: what is shown.
        output: the video; a name that ends in .mp4.
        side_by_side: the recorded frame to the left of the rendered one.
        watermark: the word "synthetic" in the corner of every frame.
        overwrite: replace the output where it exists.
        config: how the video is compressed; the defaults where None.
        progress: where progress is shown; None is silent.

    Raises:
        UserError: the output exists or cannot be written, or a file of the dataset is missing or damaged.
    """
    output, config, progress = Path(output), config or VideoConfig(), progress or Progress(None)
    check_video_path(output, overwrite)
    size = picture_size(run, animation, side_by_side)
    mark = Watermark(*size) if watermark else None
    asked = (run.fingerprint(), animation.fingerprint(), __version__, size, side_by_side, config, watermark)
    with only_one(output):
        export = VideoExport(output, len(animation), hashlib.sha256(str(asked).encode()).hexdigest(), config)
        missing = export.missing()
        wanted = sum(last - first for first, last in missing)
        if wanted < len(animation):
            progress.say(f"resuming: {len(animation) - wanted} of {len(animation)} frames were rendered before")
        begin = time.perf_counter()
        if missing:
            with progress.stage("frames", wanted) as advance:
                for first, last in missing:

                    def pictures(first: int = first, last: int = last) -> Iterator[Image]:
                        for image in render_frames(run, animation, first, last, side_by_side):
                            yield image if mark is None else mark.draw(image)
                            advance(1)

                    export.write(first, pictures())
        seconds = time.perf_counter() - begin
        with progress.stage("joining", len(animation)) as advance:
            export.finish(animation.sound, Provenance.now(run.name, animation.spoken).metadata(), advance)
        return RenderSummary(output, len(animation), wanted, seconds)


def check_video_path(output: Path, overwrite: bool) -> None:
    """Refuses what is no place for a video.

    Raises:
        UserError: another ending than .mp4, a folder, or a file that exists where ``overwrite`` is False.
    """
    if output.suffix.lower() != ".mp4":
        raise UserError(f"--output {output}: expected a name that ends in .mp4")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a name for the video in it")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: exists; give another name, or --overwrite to replace it")
