"""Encodes frames and audio as an .mp4 that plays everywhere. It is written in segments, so that an interrupted export
can be resumed.

It must not know what the frames show, nor where they come from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from degstalk_ns.audio.sound import Soundtrack, decoded, natural_format
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE

Frame = NDArray[np.uint8]
RATE: Final[int] = int(FRAME_RATE)
_TICKS: Final[int] = 512
"""Ticks of the time base in one video frame, as in the container of x264."""
_BT709: Final[int] = 1
"""Code of BT.709 for matrix, primaries and transfer in H.264, so that colours are decoded unchanged at any frame
size."""


Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]


@dataclass(frozen=True)
class VideoConfig:
    """These options control the compression of the video."""

    quality: int = 17
    """Constant rate factor (CRF) of the x264 encoder: 0 is lossless, 17 is visually lossless, and 23 is the default of
    x264."""
    preset: Preset = "veryfast"
    """Encoding preset of x264, from ultrafast to veryslow. A fast preset leaves CPU time for rendering; a slow one
    makes smaller files."""
    audio_bit_rate: int = 160_000
    """Bit rate of the AAC audio, in bits per second."""
    segment_frames: int = 250
    """Number of frames per segment (250 frames are 10 s). At most one segment is rendered again after an
    interruption."""

    def __post_init__(self) -> None:
        for name, low, high in (("quality", 0, 51), ("audio_bit_rate", 8_000, 512_000), ("segment_frames", 1, 100_000)):
            if not low <= getattr(self, name) <= high:
                option = f"--video.{name.replace('_', '-')}"
                raise UserError(f"{option} {getattr(self, name)}: expected a number from {low} to {high}")


class VideoExport:
    """The export of one video. Its parts lie in a hidden folder beside the output until the video is complete.

    Args:
        output: the .mp4 file; it is replaced in one step at the end.
        frames: number of frames of the video.
        fingerprint: hash of everything that the frames depend on; parts with another fingerprint are not reused.
        config: compression; the defaults for None.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, output: Path, frames: int, fingerprint: str, config: VideoConfig | None = None) -> None:
        self.config = config or VideoConfig()
        self.output, self.frames = Path(output), frames
        self.folder = self.output.parent / f".{self.output.name}.parts"
        state = {"fingerprint": fingerprint, "frames": frames, "segment_frames": self.config.segment_frames}
        with self._writing():
            self.output.parent.mkdir(parents=True, exist_ok=True)
            manifest = self.folder / "export.json"
            if not manifest.exists() or manifest.read_text(encoding="utf-8") != json.dumps(state):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
                manifest.write_text(json.dumps(state), encoding="utf-8")

    def _part(self, first: int) -> Path:
        return self.folder / f"{first:08d}.mp4"

    def missing(self) -> list[tuple[int, int]]:
        """First frame and end (excluded) of the parts that are still to be rendered."""
        step = self.config.segment_frames
        starts = range(0, self.frames, step)
        return [(first, min(first + step, self.frames)) for first in starts if not self._part(first).exists()]

    def write(self, first: int, pictures: Iterable[Frame]) -> None:
        """Writes one part, whole or not at all.

        Args:
            first: number of its first frame, one of :meth:`missing`.
            pictures: RGB [H, W, 3] uint8, all of one size; an odd side is made even by repeating its last line.

        Raises:
            UserError: the disk is full or the folder cannot be written, or what a picture is made of cannot be read.
        """
        final = self._part(first)
        unfinished = final.with_suffix(".unfinished")
        try:
            with self._writing():
                with av.open(str(unfinished), "w", format="mp4") as container:
                    stream: Any = None
                    for number, picture in enumerate(_inputs(pictures)):
                        even = np.pad(
                            picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge"
                        )
                        if stream is None:
                            stream = self._video_stream(container, even.shape[1], even.shape[0])
                        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24").reformat(
                            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                        )
                        frame.pts, frame.time_base = number, Fraction(1, RATE)
                        container.mux(stream.encode(frame))
                    container.mux(stream.encode(None))
                os.replace(unfinished, final)
        finally:
            unfinished.unlink(missing_ok=True)  # half a part is of no use, and may fill the disk

    def _video_stream(self, container: Any, width: int, height: int) -> Any:
        # No B-frames: each part then starts at time 0, and they join without gaps. A key frame every 2 s, for seeking.
        options = {"crf": str(self.config.quality), "preset": self.config.preset, "profile": "high", "bf": "0"}
        stream = container.add_stream("libx264", rate=RATE, options={**options, "g": str(2 * RATE)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, RATE)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        return stream

    def finish(
        self,
        soundtrack: Soundtrack | None,
        metadata: Mapping[str, str],
        advance: Callable[[int], None] = lambda frames: None,
    ) -> None:
        """Joins the parts without compressing them again, adds the sound, puts the video in its place and tidies up.

        Raises:
            UserError: the sound cannot be decoded, or the folder cannot be written.
        """
        if self.missing():
            raise ValueError(f"parts are missing: {self.missing()}")
        whole = self.folder / "whole.unfinished"
        with self._writing():
            with av.open(str(whole), "w", format="mp4", options={"movflags": "+faststart"}) as container:
                container.metadata.update(metadata)
                starts = range(0, self.frames, self.config.segment_frames)
                with self._reading(self._part(0)), av.open(str(self._part(0))) as first:
                    video = container.add_stream_from_template(first.streams.video[0])
                    video.time_base = Fraction(1, RATE * _TICKS)
                sound = self._encoded_sound(container, soundtrack) if soundtrack else iter(())
                following = next(sound, None)
                for packet, time in self._copied_video(starts, video):
                    # In the order of time, so that a player need not look far for the sound of a picture.
                    while following is not None and following[1] <= time:
                        container.mux(following[0])
                        following = next(sound, None)
                    container.mux(packet)
                    advance(1)
                while following is not None:
                    container.mux(following[0])
                    following = next(sound, None)
            os.replace(whole, self.output)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _copied_video(self, starts: Iterable[int], stream: Any) -> Iterator[tuple[Any, float]]:
        """The compressed frames of all parts on one clock, with their times in seconds."""
        for start in starts:
            with self._reading(self._part(start)), av.open(str(self._part(start))) as part:
                for packet in part.demux(part.streams.video[0]):
                    if packet.size == 0 or packet.pts is None:
                        continue
                    frame = start + round(packet.pts * packet.time_base * RATE)
                    packet.stream, packet.time_base = stream, Fraction(1, RATE * _TICKS)
                    packet.pts = packet.dts = frame * _TICKS
                    packet.duration = _TICKS
                    yield packet, frame / RATE

    def _encoded_sound(self, container: Any, track: Soundtrack) -> Iterator[tuple[Any, float]]:
        """AAC packets with their times in seconds; as long as the part of the sound, and no longer than the video."""
        rate, layout = natural_format(track.sound.source, track.sound.name)
        stream = container.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = self.config.audio_bit_rate
        stream.time_base = Fraction(1, rate)
        count = round(min(track.seconds, self.frames / RATE) * rate)
        skip = round(track.start * rate)

        def packets() -> Iterator[tuple[Any, float]]:
            place = -skip  # of the next block in the part that is wanted
            for block in decoded(track.sound.source, rate, layout, track.sound.name):
                begin, end = max(-place, 0), min(block.shape[1], count - place)
                place += block.shape[1]
                if begin < end:
                    frame = av.AudioFrame.from_ndarray(
                        np.ascontiguousarray(block[:, begin:end], np.float32), format="fltp", layout=layout
                    )
                    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                    frame.pts = place - block.shape[1] + begin
                    yield from ((packet, float(packet.pts * packet.time_base)) for packet in stream.encode(frame))
                if place >= count:
                    break
            yield from ((packet, float(packet.pts * packet.time_base)) for packet in stream.encode(None))

        return packets()

    @contextmanager
    def _reading(self, part: Path) -> Iterator[None]:
        """A part that cannot be read is removed, so that it is rendered anew."""
        try:
            yield
        except (InvalidDataError, IndexError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            part.unlink(missing_ok=True)
            raise UserError(
                f"{part}: this part of the video is damaged ({reason}) and was removed; the same command again renders "
                "it anew"
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except (OSError, FFmpegError) as error:
            reason = error.strerror or type(error).__name__
            raise UserError(
                f"{self.output}: cannot be written ({reason}); nothing there was changed: give a folder that can be "
                "written and has room, with --output"
            ) from None


def _inputs(pictures: Iterable[Frame]) -> Iterator[Frame]:
    """The pictures; what goes wrong while they are made is not taken for a fault of the output."""
    try:
        yield from pictures
    except (OSError, FFmpegError) as error:
        what = getattr(error, "filename", None) or "the head or its dataset"
        raise UserError(
            f"{what}: cannot be read ({error.strerror or type(error).__name__}); is it still there?"
        ) from None
