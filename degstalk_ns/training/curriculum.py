"""Chooses the frames of each training step: most are drawn from all, some from windows that move over the run.

Windows of the face: mouths from closed to wide open, eyes from open to closed. The window of the mouth interior begins
with wide open mouths and grows down to closed ones.

Every choice is a pure function of the step and a seed, so that a resumed run continues exactly where it stopped.
It must not know images, files or models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.training.stages import Schedule, Stage


@dataclass
class CurriculumConfig:
    """Sampling curriculum of the motion stage: which frames each step trains on. The values are those of the official
    DEGSTalk code, unless an option says otherwise."""

    window: float = 0.2
    """Width of the sliding window of mouth openings, as a fraction of their range in the training frames."""
    blink_window: float = 0.45
    """Width of the sliding window of blink strengths, as a fraction of their range in the training frames."""
    opening_every: int = 30
    """Interval, in motion steps, at which the face trains on a frame from the current window of mouth openings."""
    blink_every: int = 15
    """Interval, in motion steps, at which the face trains on a frame from the current window of blink strengths. Steps
    that already use the window of mouth openings are left out."""
    mouth_every: int = 7
    """Interval, in motion steps, at which the mouth interior trains on a frame from its window of mouth openings, which
    begins at wide open mouths and grows downwards to closed ones; the other steps draw from all frames."""
    min_mouth_area: float = 20 / 512**2
    """Mouth steps skip frames in which the mouth interior covers less than this fraction of the image area (20 pixels
    of 512 x 512), as long as they find another one."""
    candidates: int = 24
    """Maximum number of frames that a mouth step tries, in random order, until one shows enough of the mouth interior.
    Each try reads a mask file. Chosen for this project."""
    last_candidates: int = 4
    """Number of frames with the widest open mouth that a mouth step tries if none of the candidates shows enough of the
    mouth interior. Chosen for this project."""
    smallest_window: int = 16
    """Minimum number of frames in a window. A window that holds fewer is widened to this many nearest frames."""

    def min_mouth_pixels(self, height: int, width: int) -> float:
        """``min_mouth_area`` as a number of pixels in an image of that size: 20 at 512 x 512."""
        return self.min_mouth_area * height * width


def places(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Place of each of ``values`` [n] in their range (1st to 99th percentile), 0 to 1."""
    # In double precision: in single, 1 - 0.9 exceeds 0.1, and the strongest frames would lie outside the last window.
    values = np.asarray(values, np.float64)
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / max(float(high - low), 1e-8), 0.0, 1.0)


def sliding_window(place: NDArray[np.float64], centre: float, width: float, smallest: int) -> NDArray[np.int64]:
    """Indices of the places [n] (:func:`places`) that lie within ``width / 2`` of ``centre``, which is moved inwards so
    that the whole window lies in the range; the ``smallest`` nearest ones where it holds fewer."""
    centre = min(max(centre, width / 2), 1 - width / 2)
    distance = np.abs(place - centre)
    inside = np.flatnonzero(distance <= width / 2 + 1e-9)
    if len(inside) < min(smallest, len(place)):
        inside = np.sort(np.argsort(distance, kind="stable")[:smallest])
    return inside


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, stream, epoch]).permutation(count)


@dataclass(frozen=True)
class Curriculum:
    """Chooses training frames. Indices run over the training frames 0..n-1.

    Attributes:
        mouth_opening: [n] how far the mouth is open, any unit.
        blink: [n] how far the eyes are closed, any unit.
    """

    schedule: Schedule
    mouth_opening: NDArray[np.floating]
    blink: NDArray[np.floating]
    config: CurriculumConfig = field(default_factory=CurriculumConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.mouth_opening) != len(self.blink) or not len(self.blink):
            raise ValueError(
                f"the curriculum needs one opening and one blink value a frame, got {len(self.mouth_opening)} and "
                f"{len(self.blink)}"
            )

    @cached_property
    def _opening_places(self) -> NDArray[np.float64]:
        return places(self.mouth_opening)

    @cached_property
    def _blink_places(self) -> NDArray[np.float64]:
        return places(self.blink)

    @cached_property
    def _widest(self) -> list[int]:
        order = np.argsort(-self.mouth_opening, kind="stable")
        return [int(frame) for frame in order[: self.config.last_candidates]]

    def _drawn(self, step: int, stream: int) -> int:
        """Draw without replacement: each epoch is one permutation."""
        count = len(self.blink)
        return int(_permutation(self.seed, stream, step // count, count)[step % count])

    def face_frame(self, step: int) -> int:
        """The frame the face (and, in the fuse stage, the whole portrait) trains on."""
        if self.schedule.stage(step) is Stage.MOTION:
            rng = np.random.default_rng([self.seed, 1, step])
            c, progress, closing = self.config, self.schedule.progress(step), self.schedule.blink_progress(step)
            if step % c.opening_every == 0 and progress < 1.0:
                return int(rng.choice(sliding_window(self._opening_places, progress, c.window, c.smallest_window)))
            if step % c.blink_every == 0 and progress < 1.0:
                return int(rng.choice(sliding_window(self._blink_places, closing, c.blink_window, c.smallest_window)))
        return self._drawn(step, stream=0)

    def mouth_frames(self, step: int) -> list[int]:
        """Frames the mouth may train on, in order of preference: the caller takes the first that has at least
        ``min_mouth_area`` of mouth interior. In the fuse stage it is the face's frame alone."""
        stage = self.schedule.stage(step)
        if stage is Stage.FUSE:
            return [self.face_frame(step)]
        progress = self.schedule.progress(step)
        rng = np.random.default_rng([self.seed, 2, step])
        c = self.config
        if stage is Stage.STATIC or (progress < 1.0 and step % c.mouth_every == 0):
            # progress is 0 throughout the static stage: wide-open mouths only.
            width = c.window + (1.0 - c.window) * progress
            window = sliding_window(self._opening_places, 1.0 - width / 2, width, c.smallest_window)
            frames = rng.permutation(window).tolist()
        else:
            frames = [self._drawn(step, stream=3), *rng.permutation(len(self.blink)).tolist()]
        return [int(frame) for frame in frames[: c.candidates]] + self._widest
