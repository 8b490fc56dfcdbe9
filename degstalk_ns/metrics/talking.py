"""Quality of a talking head in a video: lips against audio, lips in silence, blinks, jitter between jaw and neck.

:func:`measure_talking` takes a video file or a dataset; :func:`measure_frames` and what it stands on see frames and
sound only. None of it must know how the frames were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from degstalk_ns.audio.sound import UNLIMITED, load_sound
from degstalk_ns.console.progress import Progress, quiet_native_messages
from degstalk_ns.dataparsers.frame import read_frame
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.landmarks.blendshapes import BLENDSHAPES, EYELID_NAMES
from degstalk_ns.landmarks.ibug68 import JAW_LINE, NUM_POINTS_68, lip_opening, lips_width
from degstalk_ns.landmarks.mesh478 import CHIN, FOREHEAD_TOP, to_68
from degstalk_ns.landmarks.tracker import FaceTracker
from degstalk_ns.metrics.image import correlation, temporal_jitter
from degstalk_ns.preprocess.steps import decode

_Image = NDArray[np.uint8]
Series = NDArray[np.float64]

SILENT_DB: Final[float] = -40.0
"""Level in dB relative to the loudest speech (:data:`LOUD_PERCENTILE`) up to which a frame counts as silent. Origin:
chosen for this project: pauses of a recording lie below it, unvoiced consonants above."""
LOUD_PERCENTILE: Final[float] = 95.0
"""Percentile of the frames' loudness that counts as the loudest speech, so that a single knock does not. Origin: chosen
for this project."""
SETTLING_FRAMES: Final[int] = 4
"""Number of frames next to speech that do not count as silent: lips open before a sound and close after it (4 frames
are 0.16 s). Origin: chosen for this project."""
RANGE_PERCENTILES: Final[tuple[float, float]] = (2.0, 98.0)
"""Percentiles of the lip opening that bound its range, so that a frame or two of wrong landmarks do not widen it.
Origin: chosen for this project."""
BLINK_CLOSED: Final[float] = 0.45
"""Closure of the eyelids (of MediaPipe, 0 to 1) above which they count as closed. Origin: chosen for this project."""
BLINK_OPEN: Final[float] = 0.3
"""Closure below which closed eyelids count as open again. It is lower than :data:`BLINK_CLOSED`, so that a trembling
lid blinks once. Origin: chosen for this project."""
BAND_ABOVE: Final[float] = 0.04
"""Distance, in face heights, by which the band between jaw and neck extends above the median jaw line. Origin: chosen
for this project."""
BAND_BELOW: Final[float] = 0.16
"""Distance, in face heights, by which the band between jaw and neck extends below the median jaw line. Origin: chosen
for this project."""
LEAST_FOUND: Final[float] = 0.5
"""Minimum fraction of frames with a face for anything to be measured. Origin: chosen for this project."""
_CHUNK: Final[int] = 250
"""Number of frames that are held in memory at once."""
_NO_LENGTH: Final[float] = 1e-9
"""Minimum of lengths that are divided by, in pixels."""


class ObservedFace(Protocol):
    """What is seen of a face in one frame: landmarks [478, 3] in pixels, and MediaPipe's blendshapes [52]."""

    @property
    def points(self) -> NDArray[np.float64]: ...

    @property
    def blendshapes(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Observed:
    """A face over T frames; NaN where it was not found.

    Attributes:
        opening, width: [T] gap between the lips, and width of the mouth, over the distance between the eyes.
        closure: [T] of the lids, 0 to 1.
        jaw: [T, P, 2] line of the jaw, pixels. height: [T] of the face, pixels.
    """

    opening: Series
    width: Series
    closure: Series
    jaw: Series
    height: Series

    @property
    def found(self) -> NDArray[np.bool_]:
        return np.isfinite(self.opening)


@dataclass(frozen=True)
class TalkingReport:
    """What was measured; None where something could not be measured.

    Attributes:
        frames: number of frames.
        found: number of frames in which a face was found.
        lips_follow_sound: Pearson's r between the lip opening and the loudness (RMS of the audio of each frame).
        opening_in_silence: mean lip opening in silent frames as a fraction of its range: 0 is closed, 1 wide open.
        silent_frames: number of silent frames, from which ``opening_in_silence`` is measured.
        blinks_per_minute: number of blinks per minute.
        jaw_jitter: root mean square of second differences in time in the band between jaw and neck, grey levels.
        lips: [T, 2] gap between the lips, and width of the mouth, over the distance between the eyes; NaN without a
            face.
    """

    frames: int
    found: int
    lips_follow_sound: float | None
    opening_in_silence: float | None
    silent_frames: int
    blinks_per_minute: float
    jaw_jitter: float | None
    lips: Series = field(default_factory=lambda: np.empty((0, 2)), repr=False, compare=False)

    def to_json(self) -> dict[str, float | int | None]:
        return {name: value for name, value in asdict(self).items() if name != "lips"}


@dataclass(frozen=True)
class TalkingSource:
    """A stretch of video at 25 frames a second that is ready to be measured.

    Attributes:
        name: for messages. count: frames.
        frames: gives them from the first to the last, RGB uint8 [H, W, 3], all of one size; may be called again.
        sound: [S] 16 kHz mono, from the first frame on.
    """

    name: str
    count: int
    frames: Callable[[], Iterable[_Image]]
    sound: NDArray[np.float32]


def talking_source(path: Path, frames: int | None = None, shortest: float = decode.MINIMUM_SECONDS) -> TalkingSource:
    """What :func:`measure_talking` measures of ``path``, checked before anything is measured.

    Args:
        path: a video, or the folder of a dataset.
        frames: measure no more than this many from the beginning; all where None.
        shortest: seconds that a video must last.

    Raises:
        UserError: not a video with audio, or not a dataset with ``aud.wav``.
    """
    return _of_dataset(path, frames) if path.is_dir() else _of_video(path, frames, shortest)


def measure_talking(
    source: Path | str | TalkingSource, frames: int | None = None, progress: Progress | None = None
) -> TalkingReport:
    """Measure how well a talking head in a video or dataset follows its audio. MediaPipe finds the face.

    Args:
        source: any video of one talking face with audio; or the folder of a dataset, of which the training part is
            measured up to its first gap.
        frames: measure no more than this many from the beginning; all where None.
        progress: where it reports to; None is silent.

    Raises:
        UserError: as :func:`talking_source`; MediaPipe's model file cannot be had; there is hardly ever a face.
    """
    if not isinstance(source, TalkingSource):
        source = talking_source(Path(source), frames)
    stage = (progress or Progress(None)).stage(Path(source.name).name, 2 * source.count)
    with quiet_native_messages(), FaceTracker() as tracker, stage as advance:
        return measure_frames(source.frames, source.sound, tracker.observe, source.name, advance)


def _of_video(path: Path, frames: int | None, shortest: float) -> TalkingSource:
    info = decode.probe(path, shortest)
    count = info.num_frames if frames is None else min(frames, info.num_frames)
    return TalkingSource(
        str(path), count, lambda: (image for _, image in decode.frames(info, range(count))), decode.read_audio(info)
    )


def _of_dataset(folder: Path, frames: int | None) -> TalkingSource:
    """Its training part from the beginning to the first gap, ``frames`` frames of it at most."""
    recording = read_recording(folder)
    if not recording.layout.audio.is_file():
        raise UserError(f"{recording.layout.audio}: missing; expected the audio of the recording")
    rows = recording.train.aud_ids
    gaps = np.flatnonzero(np.diff(rows) != 1)
    images = recording.train.img_ids[: int(gaps[0]) + 1 if len(gaps) else len(rows)][:frames]
    sound = load_sound(recording.layout.audio, UNLIMITED).samples[int(rows[0] * SAMPLE_RATE / FRAME_RATE) :]
    return TalkingSource(
        str(folder),
        len(images),
        lambda: (read_frame(recording, int(image), what=()).image for image in images),
        sound,
    )


def measure_frames(
    frames: Callable[[], Iterable[_Image]],
    sound: NDArray[np.float32],
    observe: Callable[[_Image], ObservedFace | None],
    name: str,
    advance: Callable[[int], None] = lambda count: None,
) -> TalkingReport:
    """Measures a stretch of video at 25 frames a second. The frames are gone through twice.

    Args:
        frames: gives the frames from the first to the last, RGB uint8 [H, W, 3], all of one size.
        sound: [S] 16 kHz mono, from the first frame on.
        observe: finds the face in a frame.
        name: of the video, for messages.
        advance: is told of frames that are done, each twice.

    Raises:
        UserError: there is hardly ever a face.
    """
    seen = _observed(frames(), observe, advance)
    count, found = len(seen.opening), int(seen.found.sum())
    if found < LEAST_FOUND * count or not count:
        raise UserError(f"{name}: a face was found in {found} of {count} frames; expected one in at least half of them")
    loudness = frame_loudness(sound, count)
    silent = silent_frames(loudness) & seen.found
    return TalkingReport(
        frames=count,
        found=found,
        lips_follow_sound=correlation(seen.opening[seen.found].tolist(), loudness[seen.found].tolist()),
        opening_in_silence=opening_in_silence(seen.opening, silent),
        silent_frames=int(silent.sum()),
        blinks_per_minute=blinks(seen.closure) / (count / FRAME_RATE / 60),
        jaw_jitter=_jaw_jitter(frames(), seen, advance),
        lips=np.stack([seen.opening, seen.width], 1),
    )


def frame_loudness(sound: NDArray[np.float32], frames: int) -> Series:
    """RMS [frames] of the sound [S] (16 kHz) during each frame; silence where the sound has ended."""
    size = int(SAMPLE_RATE / FRAME_RATE)
    whole = np.zeros(frames * size)
    part = np.asarray(sound[: len(whole)], np.float64)
    whole[: len(part)] = part
    return np.sqrt((whole.reshape(frames, size) ** 2).mean(1))


def silent_frames(loudness: Series) -> NDArray[np.bool_]:
    """[T] where nothing sounds, but for the moments right before and after a sound."""
    loud = float(np.percentile(loudness, LOUD_PERCENTILE)) if len(loudness) else 0.0
    sounding = loudness > loud * 10 ** (SILENT_DB / 20)
    return ~binary_dilation(sounding, iterations=SETTLING_FRAMES)


def opening_in_silence(opening: Series, silent: NDArray[np.bool_]) -> float | None:
    """Mean of the opening [T] in ``silent`` frames, 0 to 1 over its range; None without silence or range."""
    low, high = np.nanpercentile(opening, RANGE_PERCENTILES)
    if not silent.any() or high <= low:
        return None
    return float(np.clip((np.nanmean(opening[silent]) - low) / (high - low), 0.0, 1.0))


def blinks(closure: Series) -> int:
    """How often lids with this closure [T] shut: past :data:`BLINK_CLOSED`, after having been open."""
    count, open_before = 0, True
    for value in closure[np.isfinite(closure)]:
        if open_before and value > BLINK_CLOSED:
            count, open_before = count + 1, False
        elif value < BLINK_OPEN:
            open_before = True
    return count


def jaw_band(jaw: Series, height: float, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels between jaw and neck.

    Args:
        jaw: [P, 2] its line from side to side, pixels. height: of the face, pixels. size: rows and columns.
    """
    import cv2

    middle = (jaw[0] + jaw[-1]) / 2
    down = jaw[len(jaw) // 2] - middle
    down = down / max(float(np.linalg.norm(down)), _NO_LENGTH) * height
    outline = np.concatenate([jaw - BAND_ABOVE * down, (jaw + BAND_BELOW * down)[::-1]])
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], (1,))
    return mask.astype(bool)


def _observed(
    frames: Iterable[_Image], observe: Callable[[_Image], ObservedFace | None], advance: Callable[[int], None]
) -> Observed:
    lids = [BLENDSHAPES.index(name) for name in EYELID_NAMES]
    points = len(range(*JAW_LINE.indices(NUM_POINTS_68)))
    opening, width, closure, jaw, height = [], [], [], [], []
    for image in frames:
        face = observe(image)
        advance(1)
        if face is None:
            opening.append(np.nan)
            width.append(np.nan)
            closure.append(np.nan)
            jaw.append(np.full((points, 2), np.nan))
            height.append(np.nan)
            continue
        flat = face.points[:, :2]
        marks = to_68(face.points)
        opening.append(float(lip_opening(marks)))
        width.append(float(lips_width(marks)))
        closure.append(float(face.blendshapes[lids].mean()))
        jaw.append(marks[JAW_LINE])
        height.append(float(np.linalg.norm(flat[CHIN] - flat[FOREHEAD_TOP])))
    return Observed(*(np.asarray(values, np.float64) for values in (opening, width, closure, jaw, height)))


def _jaw_jitter(frames: Iterable[_Image], seen: Observed, advance: Callable[[int], None]) -> float | None:
    """In a band that stands still: where the jaw is on the whole."""
    line, height = np.nanmedian(seen.jaw, 0), float(np.nanmedian(seen.height))
    mask: NDArray[np.bool_] | None = None
    held: list[NDArray[np.uint8]] = []
    squares = steps = 0.0

    def add() -> None:
        nonlocal squares, steps
        jitter = temporal_jitter(np.stack(held))
        if jitter is not None:
            squares, steps = squares + jitter**2 * (len(held) - 2), steps + len(held) - 2

    for image in frames:
        if mask is None:
            mask = jaw_band(line, height, (image.shape[0], image.shape[1]))
        held.append(image[mask])
        advance(1)
        if len(held) == _CHUNK:
            add()
            held = held[-2:]
    if len(held) > 2:
        add()
    return float(np.sqrt(squares / steps)) if steps else None
