"""Any video file -> RGB frames at 25 fps and 16 kHz mono sound that start at the same moment; and where it is cut.

It must not know faces, crops or datasets. Frames are streamed: memory does not grow with the length of the video.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from degstalk_ns.audio.sound import FORMATS
from degstalk_ns.audio.streams import Resampler, pieces
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.reading.access import refuse_unreadable

MINIMUM_SECONDS: float = 4.0
"""Shorter recordings hold too few mouth shapes to learn from (and too few frames for the split)."""
AUDIO_GAP_SECONDS: float = 0.05
"""A jump of the sound's timestamps larger than this is a gap (silence is put in), smaller is rounding."""
MISSING_END_SECONDS: float = 0.5
"""How much of the end may fail to decode (the last frame is held) before the file counts as damaged."""
CONTAINERS: Final[str] = f"{FORMATS},avi,mpegts,mpeg,flv,asf,mxf"
"""Containers that are opened: as for sounds, and some of videos. Playlists are not among them: they could name other
files to be read."""
MOST_STORED_PIXELS: Final[int] = 8192 * 8192
"""Pixels of a stored frame: larger ones are refused before they are decoded."""
MOST_ASPECT: Final[float] = 8.0
"""Ratio of a pixel's sides."""
_HDR: Final[dict[int, str]] = {16: "PQ", 18: "HLG"}
"""Transfer characteristics (ITU-T H.273) of high dynamic range."""
LONGEST_STILL: float = 20.0
"""Seconds for which one frame may stand; longer ones are no video of a talking person, or a timestamp is wrong. Chosen
for this project."""
IDENTITY_BYTES: int = 1 << 20
"""Bytes at the head and at the tail of a file that its identity is taken from."""
THUMBNAIL: Final[int] = 32
"""Width and height of the pictures that are compared, pixels."""
CUT_LEAST: Final[float] = 0.02
"""Mean difference of brightness (0 to 1) of two frames below which there is no cut. Chosen for this project: the
fastest movements of three talking heads reach 0.02 to 0.05."""
CUT_JUMP: Final[float] = 5.5
"""Ratio of the difference at a cut to the usual one around it. Chosen for this project: movements of the same three
heads reach 4.8, and cuts from one moment of them to another 6 to 9, to other scenes 20 and more."""
CUT_AROUND: Final[int] = 25
"""Number of frames whose median difference is the usual one."""
_STILL: Final[float] = 1e-3
"""Difference that is always usual: coding noise of a still picture."""


class Orientation(NamedTuple):
    """How a stored frame becomes upright: rows and columns are exchanged first, then what is left of it is mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[H, W, 3] -> [H, W, 3], or [W, H, 3]."""
        if self.transposed:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


@dataclass(frozen=True)
class VideoInfo:
    """What a video is once it is upright, with square pixels and at 25 fps.

    Attributes:
        path: the file.
        width, height: pixels after rotation and pixel aspect.
        upright: how a stored frame becomes upright.
        start: timestamp of the first frame, seconds; sound is aligned to it.
        seconds: from the first frame's start to the last frame's end.
        last: from the first frame's start to the last frame's start, seconds.
        source_rate: average frames per second in the file.
        num_frames: frames at 25 fps.
        hdr: name of the high dynamic range that it is in; empty for usual videos.
    """

    path: Path
    width: int
    height: int
    upright: Orientation
    start: float
    seconds: float
    last: float
    source_rate: float
    num_frames: int
    hdr: str = ""


def _open(path: Path) -> av.container.InputContainer:
    refuse_unreadable(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a video")
    try:
        return av.open(str(path), options={"format_whitelist": CONTAINERS})
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as a video ({_reason(error)}): it is damaged, or not a video; expected one "
            "such as an mp4, mov or mkv"
        ) from None


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not int(stream.disposition) & int(av.stream.Disposition.attached_pic):
            if stream.codec_context is None:  # at which PyAV 17 would end Python
                raise UserError(f"{path}: there is no decoder here for its video; convert it, for example to H.264")
            return stream
    raise UserError(f"{path}: holds no video stream; expected a video with audio")


def probe(path: Path, minimum_seconds: float = MINIMUM_SECONDS, maximum_seconds: float = math.inf) -> VideoInfo:
    """Look at a video without decoding more than its first frame.

    Raises:
        UserError: not a video; no sound; shorter than ``minimum_seconds`` or longer than ``maximum_seconds``; pictures
            that are too large; gaps in its timestamps.
    """
    with _open(path) as container:
        stream = _video_stream(container, path)
        if not container.streams.audio:
            raise UserError(
                f"{path}: has no audio; the avatar is driven by speech, so expected a video with an audio track"
            )
        _check_size(stream, path)
        try:
            frame = next(container.decode(stream))
        except (StopIteration, av.error.FFmpegError, ValueError):  # the last of a codec that PyAV 19 does not know
            raise UserError(
                f"{path}: not one frame of its video can be decoded; the file is damaged or not a video"
            ) from None
        upright = _orientation(frame)
        hdr = _HDR.get(int(stream.codec_context.color_trc or 0), "")
        aspect = stream.sample_aspect_ratio or Fraction(1)
        width, height = max(round(frame.width * aspect), 1), frame.height
        if upright.transposed:
            width, height = height, width
    start, last, end, count = _time_range(path)
    seconds = end - start
    if seconds < minimum_seconds - 1e-3:
        raise UserError(f"{path}: {seconds:.1f} s long; expected at least {minimum_seconds:g} s of speech")
    if seconds > maximum_seconds:
        raise UserError(
            f"{path}: {seconds / 60:.0f} minutes long; at most {maximum_seconds / 60:g} are accepted: cut it, or raise "
            "--longest-minutes"
        )
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        upright=upright,
        start=start,
        seconds=seconds,
        last=last - start,
        source_rate=count / seconds,
        # A tenth of a frame of tolerance: time bases round the last frame's end a little short.
        num_frames=int(seconds * FRAME_RATE + 0.1),
        hdr=hdr,
    )


def _check_size(stream: av.VideoStream, path: Path) -> None:
    """Refuse, before anything is decoded, pictures that would fill the memory."""
    aspect = float(stream.sample_aspect_ratio or 1)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_STORED_PIXELS:
        raise UserError(
            f"{path}: {width} x {height} pixels; at most {MOST_STORED_PIXELS:,} are accepted; make it smaller"
        )
    if not 1 / MOST_ASPECT <= aspect <= MOST_ASPECT:
        raise UserError(f"{path}: its pixels are {aspect:g} times as wide as high; re-encode it with square pixels")


def _time_range(path: Path) -> tuple[float, float, float, int]:
    """First frame's start, last frame's start and end (seconds) and number of frames, from packets: headers can be
    wrong.

    Raises:
        UserError: no timestamps, or a gap in them.
    """
    times: list[int] = []
    last_duration = 0
    with _open(path) as container:
        stream = _video_stream(container, path)
        base = float(stream.time_base or Fraction(1, 1000))
        try:
            for packet in container.demux(stream):
                if packet.pts is None or packet.size == 0 or getattr(packet, "is_discard", False):
                    continue
                if not times or packet.pts >= max(times[-64:]):
                    last_duration = packet.duration or 0
                times.append(packet.pts)
        except av.error.FFmpegError:
            pass  # a broken tail: what was read so far counts
        average = float(stream.average_rate or 0)
    if not times:
        raise UserError(f"{path}: its video carries no timestamps; re-encode it, for example to mp4")
    first, last = min(times), max(times)
    if last_duration == 0 and len(times) > 1:
        last_duration = round((last - first) / (len(times) - 1))
    elif last_duration == 0 and average:
        last_duration = round(1 / average / base)
    between = np.diff(np.sort(np.array([*times, last + last_duration], np.float64))) * float(base)
    if between.max() > LONGEST_STILL:
        at = float(np.sort(times)[int(between.argmax())] - first) * base
        raise UserError(
            f"{path}: after {at:.1f} s the picture stands still for {between.max():.0f} s, or a timestamp is wrong; "
            "cut that part out, or re-encode the video"
        )
    return first * base, last * base, (last + last_duration) * base, len(times)


def _orientation(frame: av.VideoFrame) -> Orientation:
    """Of the display matrix that cameras write: turned by quarters, and mirrored by those that face their owner."""
    side_data: Any = frame.side_data  # a container by type, though its stub says otherwise
    matrix = side_data.get(SideData.DISPLAYMATRIX)
    if matrix is None:
        return Orientation()
    # A point (x, y) of the stored frame is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.int64).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def _seconds(frame: av.VideoFrame | av.AudioFrame, pts: int) -> float:
    return float(pts * (frame.time_base or Fraction(1, 1000)))


def _upright(frame: av.VideoFrame, info: VideoInfo) -> NDArray[np.uint8]:
    image = info.upright.apply(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
    if image.shape[:2] != (info.height, info.width):  # pixel aspect, or a stream that changes its size
        return cv2.resize(image, (info.width, info.height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.ascontiguousarray(image)


def frames(info: VideoInfo, indices: range | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stream the frames of the 25 fps video: frame ``i`` is the stored frame nearest to ``i / 25`` s.

    Args:
        info: from :func:`probe`.
        indices: the frames wanted (a range that rises); None is all. Only these are converted to RGB.

    Yields:
        (i, RGB [height, width, 3] uint8), i rising.

    Raises:
        UserError: the video ends, or cannot be decoded, long before its stated end.
    """
    indices = range(info.num_frames) if indices is None else indices
    if not indices:
        return
    wanted = iter(indices)
    target: int | None = next(wanted)
    held: av.VideoFrame | None = None
    held_time = 0.0
    converted: NDArray[np.uint8] | None = None
    with _open(info.path) as container:
        stream = _video_stream(container, info.path)
        stream.thread_type = "AUTO"
        for frame in _decoded(container, stream):
            if frame.pts is None:
                continue
            time = _seconds(frame, frame.pts) - info.start
            while target is not None and held is not None and target / FRAME_RATE <= (held_time + time) / 2:
                if converted is None:
                    converted = _upright(held, info)
                yield target, converted
                target = next(wanted, None)
            if target is None:
                return
            held, held_time, converted = frame, time, None
        # The last frame may be held for long; what matters is whether it is the last one.
        whole = held_time >= info.last - MISSING_END_SECONDS - 1 / min(info.source_rate, FRAME_RATE)
        if held is None or not whole:
            raise UserError(
                f"{info.path}: decoding stops at {held_time:.1f} s of {info.seconds:.1f} s; the file is damaged, "
                "re-encode or cut it"
            )
        last = _upright(held, info)
        while target is not None:
            yield target, last
            target = next(wanted, None)


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decoded frames in presentation order; packets that cannot be decoded are skipped."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue
        except av.error.FFmpegError:
            return


def read_audio(info: VideoInfo) -> NDArray[np.float32]:
    """Sound of the video: 16 kHz mono in [-1, 1], sample 0 at the first frame's start, ``num_frames / 25`` s long.

    An offset between the streams and gaps inside the sound are honoured by timestamps; what is missing is silence.

    Raises:
        UserError: there is no sound, or none of it can be decoded.
    """
    samples = np.zeros(round(info.num_frames / FRAME_RATE * SAMPLE_RATE), np.float32)
    resampler = Resampler(SAMPLE_RATE, channels=1)
    position: int | None = None  # where the next resampled sample goes; None before the first
    source_time = 0.0  # where the next piece is expected, seconds

    def put(blocks: list[NDArray[np.float32]]) -> None:
        nonlocal position
        for block in blocks:
            assert position is not None
            low, high = max(position, 0), min(position + block.shape[1], len(samples))
            if high > low:
                samples[low:high] = block[0, low - position : high - position]
            position += block.shape[1]

    with _open(info.path) as container:
        if not container.streams.audio:
            raise UserError(f"{info.path}: has no audio; expected a video with an audio track")
        try:
            for piece in pieces(container):
                time = source_time if piece.start is None else piece.start - info.start
                if position is None or abs(time - source_time) > AUDIO_GAP_SECONDS:
                    if position is not None:
                        put(resampler.rest())
                    position = round(time * SAMPLE_RATE)
                    source_time = time
                source_time += piece.samples.shape[1] / piece.rate
                put(resampler.put(piece))
        except av.error.FFmpegError:
            pass  # a broken tail: what was read so far counts
        if position is None:
            raise UserError(
                f"{info.path}: none of its audio can be decoded; expected a video with a readable audio track"
            )
        put(resampler.rest())
    return np.clip(samples, -1.0, 1.0)


def identity(path: Path) -> dict[str, int | str]:
    """What tells one video from another: its size in bytes and the SHA-1 of its head and tail."""
    size = path.stat().st_size
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        digest.update(file.read(IDENTITY_BYTES))
        file.seek(max(size - IDENTITY_BYTES, 0))
        digest.update(file.read(IDENTITY_BYTES))
    return {"size": size, "sha1": digest.hexdigest()}


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness of a frame (RGB uint8 [H, W, 3]) as a picture of :data:`THUMBNAIL` x :data:`THUMBNAIL`."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8)


def cuts(thumbnails: NDArray[np.uint8]) -> list[int]:
    """The frames before which a video [T, 32, 32] is cut."""
    if len(thumbnails) < 3:
        return []
    change = np.abs(np.diff(thumbnails.astype(np.float32), axis=0)).mean((1, 2)) / 255.0
    usual = np.maximum(median_filter(change, CUT_AROUND, mode="reflect"), _STILL)
    return [int(i) + 1 for i in np.flatnonzero((change > CUT_LEAST) & (change > CUT_JUMP * usual))]
