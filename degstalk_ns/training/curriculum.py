"""Chooses the frames of each training step: over the run, mouths go from wide open to closed, and eyes from open to
closed.

Every choice is a pure function of the step and a seed, so that a resumed run continues exactly where it stopped.
It must not know images, files or models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.training.stages import Schedule, Stage


@dataclass
class CurriculumConfig:
    """Sampling curriculum of the motion stage: which frames each step trains on. During the stage one window slides
    from wide open to closed mouths and another from open to closed eyes. The values are those of the official DEGSTalk
    code, unless an option says otherwise."""

    window: float = 0.2
    """Width of the two sliding windows, as a fraction of the range of mouth openings or of blink strengths in the
    training frames."""
    opening_every: int = 30
    """Interval, in motion steps, at which the face trains on a frame from the current window of mouth openings."""
    blink_every: int = 15
    """Interval, in motion steps, at which the face trains on a frame from the current window of blink strengths. Steps
    that already use the window of mouth openings are left out."""
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


def sliding_window(values: NDArray[np.floating], centre: float, width: float, smallest: int) -> NDArray[np.int64]:
    """Indices of ``values`` [n] whose place in their range (1st to 99th percentile, scaled to 0..1) lies within
    ``width / 2`` of ``centre``; the ``smallest`` nearest ones where the window holds fewer."""
    # In double precision: in single, 1 - 0.9 exceeds 0.1, and the strongest frames would lie outside the last window.
    values = np.asarray(values, np.float64)
    low, high = np.percentile(values, [1, 99])
    place = np.clip((values - low) / max(float(high - low), 1e-8), 0.0, 1.0)
    centre = min(max(centre, width / 2), 1 - width / 2)
    distance = np.abs(place - centre)
    inside = np.flatnonzero(distance <= width / 2 + 1e-9)
    if len(inside) < min(smallest, len(values)):
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

    def _drawn(self, step: int, stream: int) -> int:
        """Draw without replacement: each epoch is one permutation."""
        count = len(self.blink)
        return int(_permutation(self.seed, stream, step // count, count)[step % count])

    def _window(self, values: NDArray[np.floating], centre: float) -> NDArray[np.int64]:
        return sliding_window(values, centre, self.config.window, self.config.smallest_window)

    def face_frame(self, step: int) -> int:
        """The frame the face (and, in the fuse stage, the whole portrait) trains on."""
        if self.schedule.stage(step) is Stage.MOTION:
            rng = np.random.default_rng([self.seed, 1, step])
            if step % self.config.opening_every == 0:
                return int(rng.choice(self._window(self.mouth_opening, self.schedule.progress(step))))
            if step % self.config.blink_every == 0:
                return int(rng.choice(self._window(self.blink, self.schedule.blink_progress(step))))
        return self._drawn(step, stream=0)

    def mouth_frames(self, step: int) -> list[int]:
        """Frames the mouth may train on, in order of preference: the caller takes the first that has at least
        ``min_mouth_area`` of mouth interior. In the fuse stage it is the face's frame alone."""
        stage = self.schedule.stage(step)
        if stage is Stage.FUSE:
            return [self.face_frame(step)]
        progress = self.schedule.progress(step)
        rng = np.random.default_rng([self.seed, 2, step])
        if stage is Stage.MOTION and progress >= 1.0:
            frames = [self._drawn(step, stream=3), *rng.permutation(len(self.blink)).tolist()]
        else:
            # progress is 0 throughout the static stage: wide-open mouths only.
            frames = rng.permutation(self._window(self.mouth_opening, 1.0 - progress)).tolist()
        widest = np.argsort(-self.mouth_opening, kind="stable")[: self.config.last_candidates].tolist()
        return [int(frame) for frame in frames[: self.config.candidates] + widest]
