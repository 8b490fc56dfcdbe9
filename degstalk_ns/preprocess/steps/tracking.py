"""Face landmarks and blendshapes of every frame of a video, with what to do when the face is lost or not alone.

It must not know files of a dataset, nor how landmarks are used afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.landmarks.tracker import FaceObservation, FaceTracker
from degstalk_ns.preprocess.steps.decode import cuts, thumbnail

SMOOTHING_REACH: Final[float] = 4.0
"""Standard deviations to each side at which the smoothing's Gaussian is cut off: it is 0.0003 of its peak there."""
TIMES_NAMED: Final[int] = 4
"""Stretches of time that a message names; of more it says how many there are."""


@dataclass(frozen=True)
class TrackingConfig:
    """Options of face tracking. The values were chosen for this project on talking-head videos."""

    frame_rate: float = FRAME_RATE
    """Frames per second of the tracked frames; it is used only for the times in messages."""
    max_lost_fraction: float = 0.10
    """Fraction of the frames in which the face may be lost; a video above it is rejected."""
    comparable_size: float = 0.6
    """Size of a second face, as a fraction of the first, from which it counts as another person."""
    max_other_face_frames: int = 5
    """Maximum number of frames in which another person may appear, since false detections last a frame or two."""
    smoothing: float = 0.5
    """Standard deviation, in frames, of the symmetric Gaussian filter that smooths the landmarks over time. The default
    preserves lip movement: at 25 frames/s it keeps 85 % of a movement at 5 Hz, the rate of syllables, and 57 % of
    jitter at the highest rate."""


@dataclass(frozen=True)
class FaceTrack:
    """One face through T frames. Lost frames are filled in; ``valid`` says which were measured."""

    points: NDArray[np.float32]
    """[T, 478, 3] pixels as in :class:`FaceObservation`, lightly smoothed in time without lag."""
    blendshapes: NDArray[np.float32]
    """[T, 52] in [0, 1]."""
    valid: NDArray[np.bool_]
    """[T] the face was found in this frame."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Interpolated runs of frames, first and last, both included."""
    notes: tuple[str, ...] = ()
    """What a user should know of it, one line each."""


def track(
    frames: Iterable[NDArray[np.uint8]],
    total: int,
    progress: Callable[[int, int], None] | None = None,
    config: TrackingConfig | None = None,
) -> FaceTrack:
    """Follows the face through a video. One frame is held at a time.

    Args:
        frames: RGB uint8 [H, W, 3], all of one size.
        total: how many frames there will be, for ``progress`` only.
        progress: called as ``progress(done, total)`` after each frame.
        config: options; defaults where None.

    Raises:
        UserError: no frame; no face at all; the face lost in more than ``max_lost_fraction`` of the frames; two faces
            of comparable size in more than ``max_other_face_frames`` frames; the model file cannot be had.
    """
    config = config or TrackingConfig()
    observations: list[FaceObservation | None] = []
    small: list[NDArray[np.uint8]] = []
    near: NDArray[np.floating] | None = None
    with FaceTracker() as tracker:
        for done, frame in enumerate(frames, start=1):
            seen = tracker.observe(frame, near)
            observations.append(seen)
            small.append(thumbnail(frame))
            if seen is not None:
                near = seen.points[:, :2].mean(axis=0)
            if progress is not None:
                progress(done, total)
    found = assemble(observations, config)
    return replace(found, notes=found.notes + _cut(cuts(np.stack(small)), config))


def assemble(observations: list[FaceObservation | None], config: TrackingConfig | None = None) -> FaceTrack:
    """The track of one face from what was seen in each frame; rules and errors of :func:`track`."""
    config = config or TrackingConfig()
    if not observations:
        raise UserError("tracking: the video has no frames")
    T = len(observations)
    valid = np.array([o is not None for o in observations])
    if not valid.any():
        raise UserError("tracking: no face in any frame; a video of one person looking towards the camera is expected")
    other = np.array([o is not None and o.second_face_size_ratio >= config.comparable_size for o in observations])
    if other.sum() > config.max_other_face_frames:
        raise UserError(
            f"tracking: two faces of comparable size in {other.sum()} of {T} frames "
            f"({_times(other, config.frame_rate)}); one person is expected: crop or cut the video"
        )
    lost = ~valid
    if lost.sum() > config.max_lost_fraction * T:
        raise UserError(
            f"tracking: the face is lost in {lost.sum()} of {T} frames ({100 * lost.mean():.0f} %, at most "
            f"{100 * config.max_lost_fraction:.0f} % can be filled in), at {_times(lost, config.frame_rate)}; "
            "cut these parts out of the video"
        )
    index = np.flatnonzero(valid)
    points = np.stack([o.points for o in observations if o is not None])
    blendshapes = np.stack([o.blendshapes for o in observations if o is not None])
    return FaceTrack(
        points=smooth_over_time(_fill(points, index, T), config.smoothing).astype(np.float32),
        blendshapes=_fill(blendshapes, index, T).astype(np.float32),
        valid=valid,
        gaps=_runs(lost),
        notes=_other_face(other, config),
    )


def _other_face(other: NDArray[np.bool_], config: TrackingConfig) -> tuple[str, ...]:
    if not other.any():
        return ()
    return (
        f"a second face of comparable size is seen in {int(other.sum())} frames ({_times(other, config.frame_rate)}): "
        "look whether the same person is followed there",
    )


def _cut(places: list[int], config: TrackingConfig) -> tuple[str, ...]:
    if not places:
        return ()
    times = ", ".join(f"{place / config.frame_rate:.1f} s" for place in places[:TIMES_NAMED])
    more = f" and {len(places) - TIMES_NAMED} more" if len(places) > TIMES_NAMED else ""
    return (
        f"the picture jumps at {times}{more}, as at a cut: one avatar cannot learn two scenes, lights or haircuts; if "
        "they differ, keep one part of the video",
    )


def _fill(values: NDArray[np.float64], index: NDArray[np.intp], total: int) -> NDArray[np.float64]:
    """[T, ...] linear in the gaps, held at the ends; ``values`` belong to the frames ``index``."""
    if len(index) == total:
        return values
    every = np.arange(total)
    after = np.clip(np.searchsorted(index, every), 0, len(index) - 1)
    before = np.clip(np.searchsorted(index, every, side="right") - 1, 0, len(index) - 1)
    span = np.maximum(index[after] - index[before], 1)
    weight = np.clip((every - index[before]) / span, 0.0, 1.0).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[before] * (1.0 - weight) + values[after] * weight)


def smooth_over_time(values: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """[T, ...] Gaussian over time with standard deviation ``sigma`` frames (0: none): symmetric, so without lag."""
    from scipy.ndimage import gaussian_filter1d

    values = np.asarray(values, dtype=np.float64)
    return (
        values
        if sigma <= 0
        else np.asarray(gaussian_filter1d(values, sigma, axis=0, mode="nearest", truncate=SMOOTHING_REACH))
    )


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _times(flags: NDArray[np.bool_], rate: float) -> str:
    """The first few runs of True in seconds, to be read by a person."""
    runs = _runs(flags)
    text = ", ".join(f"{a / rate:.1f}-{(b + 1) / rate:.1f} s" for a, b in runs[:TIMES_NAMED])
    return text + (f" and {len(runs) - TIMES_NAMED} more" if len(runs) > TIMES_NAMED else "")


class naming_video:
    """Put the video's name before a message that only speaks of frames."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(f"{self._path}: {str(error).removeprefix('tracking: ')}") from None
