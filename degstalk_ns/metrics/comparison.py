"""A rendered video beside the recording that it shows: matches their frames, and draws the worst moments.

It ties video files and datasets to `worst.py`. It must not know nerfstudio or models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from degstalk_ns.console.progress import Progress, quiet_native_messages
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.files import write_png
from degstalk_ns.landmarks.tracker import FaceTracker
from degstalk_ns.metrics.worst import Pair, draw_moments, worst_moments
from degstalk_ns.preprocess.steps import decode

SHORTEST_COMPARED = 0.1
"""Seconds that a video must last: the held-out part of a short recording is hardly longer. Origin: chosen for this
project."""


@dataclass(frozen=True)
class ComparedVideo:
    """A video whose frames show moments of a recording, one each.

    Attributes:
        info: of the video. recording: the dataset. images: ``img_id`` of the recorded frame of each frame.
    """

    info: decode.VideoInfo
    recording: Recording
    images: list[int]

    def pairs(self) -> Iterator[Pair]:
        """All frames in order of time.

        Raises:
            UserError: a file is missing or damaged.
        """
        for number, image in decode.frames(self.info):
            frame = read_frame(self.recording, self.images[number], what=())
            yield Pair(image, frame.image, frame.head | frame.mouth)


def compared_video(video: Path, data: Path) -> ComparedVideo:
    """Opens a video and the dataset whose recorded moments it shows.

    Raises:
        UserError: either cannot be read, or the video has another size than the recording or the length of no part
            of it.
    """
    recording, info = read_recording(data), decode.probe(video, SHORTEST_COMPARED)
    if (info.width, info.height) != (recording.width, recording.height):
        raise UserError(
            f"{video}: is {info.width} x {info.height} pixels, and the frames of {data} are {recording.width} x "
            f"{recording.height}; render it with `degstalk render --track`, without --side-by-side"
        )
    row_image = {row: image for image, row in recording.track_rows.items()}
    known = np.array(sorted(row_image))
    lengths = []
    for name, table in (("held-out", (recording.val,)), ("training", (recording.train,)), ("whole", ())):
        rows = np.sort(np.concatenate([part.aud_ids for part in table])) if table else known
        span = np.arange(rows[0], rows[-1] + 1)
        if len(span) == info.num_frames:
            nearest = [int(known[np.argmin(np.abs(known - row))]) for row in span]
            return ComparedVideo(info, recording, [row_image[row] for row in nearest])
        lengths.append(f"{name} part {len(span)}")
    raise UserError(
        f"{video}: has {info.num_frames} frames, and {data} has other numbers ({', '.join(lengths)}); expected a video "
        "of one of them: `degstalk render --track val|train|all`, without --start and --end"
    )


def draw_worst(compared: ComparedVideo, sheet: Path, progress: Progress | None = None) -> None:
    """Writes the sheet of the worst moments, a PNG.

    Raises:
        UserError: MediaPipe's model file cannot be had, or a file cannot be read or written.
    """
    stage = (progress or Progress(None)).stage("worst moments", len(compared.images))
    with quiet_native_messages(), FaceTracker() as tracker, stage as advance:

        def observe(image: np.ndarray) -> np.ndarray | None:
            seen = tracker.observe(image)
            return None if seen is None else seen.points

        moments = worst_moments(compared.pairs(), observe, advance)
    if not moments:
        raise UserError(f"{compared.info.path}: nothing to compare was found; expected frames with a face")
    shown = {moment.frame for moment in moments}
    pairs = {number: pair for number, pair in enumerate(compared.pairs()) if number in shown}
    write_png(sheet, draw_moments([(moment, pairs[moment.frame]) for moment in moments]))
