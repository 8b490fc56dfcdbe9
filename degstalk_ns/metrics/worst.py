"""Where a rendered video is worst, compared with the recording that it should look like: one sheet for a person.

Means and best moments flatter. The moments are found by the metrics: cracks along the border of the head, lips and eyes
that are elsewhere, and jitter that the recording does not have. It must not know nerfstudio or models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from degstalk_ns.landmarks.ibug68 import LEFT_EYE_68, MOUTH_LANDMARKS, RIGHT_EYE_68, eye_opening
from degstalk_ns.landmarks.mesh478 import lip_gap_between_eye_corners, to_68
from degstalk_ns.metrics.seam import border_band, broken_pixels

_Image = NDArray[np.uint8]
Criterion = Literal["seam", "lips", "eyes", "jitter"]
CRITERIA: Final[tuple[Criterion, ...]] = ("seam", "lips", "eyes", "jitter")
MOMENTS_EACH: Final[int] = 3
"""Moments on the sheet for each criterion."""
MOMENTS_APART: Final[int] = 5
"""Least distance of two moments of one criterion, frames: neighbours show the same. Origin: chosen for this project."""
MOMENT_CELL: Final[int] = 384
"""Side of a cell of the sheet, pixels."""
CLOSE_UP: Final[float] = 0.35
"""Side of the part that is shown enlarged, as a fraction of the frame height. Origin: chosen for this project."""
_UNITS: Final = {
    "seam": "{:.0f} pixels of crack",
    "lips": "lips off by {:.3f} eye distances",
    "eyes": "eyes off by {:.2f} of their width",
    "jitter": "{:.1f} grey levels more jitter",
}


@dataclass(frozen=True)
class Moment:
    """One frame of the video beside the recorded one.

    Attributes:
        frame: number in the video. criterion: by which it is bad. value: how bad, in the criterion's unit.
        centre: x, y of what is bad, pixels.
    """

    frame: int
    criterion: Criterion
    value: float
    centre: tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """A rendered frame and the recorded one, RGB uint8 [H, W, 3], with the recorded head mask, bool [H, W]."""

    image: _Image
    truth: _Image
    head: NDArray[np.bool_]


def worst_moments(
    pairs: Iterable[Pair],
    observe: Callable[[_Image], NDArray[np.floating] | None],
    advance: Callable[[int], None] = lambda count: None,
) -> list[Moment]:
    """The worst moments by each criterion, worst first: at most :data:`MOMENTS_EACH` each.

    Args:
        pairs: rendered and recorded frames in order of time.
        observe: mesh landmarks [478, 2 or 3] of a frame in pixels, or None without a face.
        advance: is told of frames that are done.
    """
    found: dict[Criterion, list[Moment]] = {criterion: [] for criterion in CRITERIA}
    before: list[Pair] = []
    for number, pair in enumerate(pairs):
        for moment in _of_frame(number, pair, observe):
            found[moment.criterion].append(moment)
        before = [*before[-2:], pair]
        if len(before) == 3:
            found["jitter"].append(_jitter(number - 1, before))
        advance(1)
    return [moment for criterion in CRITERIA for moment in _apart(found[criterion])]


def _of_frame(number: int, pair: Pair, observe: Callable[[_Image], NDArray[np.floating] | None]) -> Iterable[Moment]:
    cracks = broken_pixels(_unit(pair.image), _unit(pair.truth)) & border_band(pair.head)
    if cracks.any():
        rows, columns = np.nonzero(cracks)
        # The densest place, not the mean of all: cracks may lie on both sides of the head.
        dense = cv2.blur(cracks.astype(np.float32), (31, 31))[rows, columns].argmax()
        yield Moment(number, "seam", float(len(rows)), (float(columns[dense]), float(rows[dense])))
    meshes = [observe(picture) for picture in (pair.image, pair.truth)]
    if meshes[0] is None or meshes[1] is None:
        return
    seen, true = meshes[0], meshes[1]
    marks = to_68(true)
    difference = abs(float(lip_gap_between_eye_corners(seen) - lip_gap_between_eye_corners(true)))
    yield Moment(number, "lips", difference, _middle(marks[MOUTH_LANDMARKS]))
    difference = abs(float(eye_opening(to_68(seen)) - eye_opening(marks)))
    yield Moment(number, "eyes", difference, _middle(marks[[*RIGHT_EYE_68, *LEFT_EYE_68]]))


def _jitter(number: int, three: list[Pair]) -> Moment:
    """By how much more the head shakes than the recorded one, where that is most."""

    def shake(pictures: list[_Image]) -> NDArray[np.float32]:
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
        return np.abs(grey[0] - 2 * grey[1] + grey[2])

    more = shake([pair.image for pair in three]) - shake([pair.truth for pair in three])
    more = np.where(three[1].head, np.maximum(more, 0.0), 0.0)
    y, x = np.unravel_index(cv2.blur(more, (31, 31)).argmax(), more.shape)
    return Moment(
        number, "jitter", float(more[three[1].head].mean()) if three[1].head.any() else 0.0, (float(x), float(y))
    )


def _apart(moments: list[Moment]) -> list[Moment]:
    chosen: list[Moment] = []
    for moment in sorted(moments, key=lambda moment: -moment.value):
        if len(chosen) == MOMENTS_EACH:
            break
        if all(abs(moment.frame - other.frame) >= MOMENTS_APART for other in chosen):
            chosen.append(moment)
    return chosen


def draw_moments(moments: list[tuple[Moment, Pair]]) -> _Image:
    """RGB [H, W, 3] uint8: one row a moment, with the whole recorded and rendered frame and both enlarged."""
    return np.vstack([_row(moment, pair) for moment, pair in moments]).astype(np.uint8, copy=False)


def _row(moment: Moment, pair: Pair) -> _Image:
    height, width = pair.truth.shape[:2]
    side = max(round(CLOSE_UP * min(height, width)), 1)
    x0 = int(np.clip(round(moment.centre[0] - side / 2), 0, width - side))
    y0 = int(np.clip(round(moment.centre[1] - side / 2), 0, height - side))
    cells = []
    for picture in (pair.truth, pair.image):
        whole = picture.copy()
        cv2.rectangle(whole, (x0, y0), (x0 + side - 1, y0 + side - 1), (255, 220, 0), 1)
        cells.append(cv2.resize(whole, (MOMENT_CELL, MOMENT_CELL), interpolation=cv2.INTER_AREA))
    for picture in (pair.truth, pair.image):
        part = np.ascontiguousarray(picture[y0 : y0 + side, x0 : x0 + side])
        cells.append(cv2.resize(part, (MOMENT_CELL, MOMENT_CELL), interpolation=cv2.INTER_CUBIC))
    what = f"frame {moment.frame}: {_UNITS[moment.criterion].format(moment.value)}"
    for cell, text in ((cells[0], what), (cells[1], "rendered"), (cells[2], "recorded"), (cells[3], "rendered")):
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(cell, text, (6, MOMENT_CELL - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thick, cv2.LINE_AA)
    return np.hstack(cells).astype(np.uint8, copy=False)


def _middle(points: NDArray[np.floating]) -> tuple[float, float]:
    x, y = points.mean(0)[:2]
    return float(x), float(y)


def _unit(image: _Image) -> torch.Tensor:
    return torch.from_numpy(image).float() / 255.0
