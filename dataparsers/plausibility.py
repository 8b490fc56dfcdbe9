"""What is not corrupt but wrong: masks, expressions or sound of another video, of the right size and length.

It must not know files but the masks and the sound, nor nerfstudio.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from degstalk_ns.dataparsers.driving_files import Float32
from degstalk_ns.dataparsers.layout import remedy
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE

INNER_FACE: Final = slice(27, 68)
"""Nose, eyes and mouth among the 68 points: they lie well within the head."""
LEAST_INSIDE: Final[float] = 0.5
"""Share of these points that must lie in the masks' head or mouth, in the median of the frames looked at. In three
videos it is 0.95 and more."""
LEAST_FRAMES: Final[int] = 200
"""Frames from which on the expression is compared with the lips; of fewer, chance tells too much."""
LEAST_EXPRESSION: Final[float] = 0.5
"""Correlation of the lips' opening with what the expression tells of it, below which it is doubted: three videos' own
scored 0.99, those of each other -0.02 to 0.40."""
LEAST_FRAMES_HEARD: Final[int] = 1_000
"""The same for the sound, which tells less."""
LEAST_SOUND: Final[float] = 0.15
"""The same for the sound: a video of 45 s scored 0.50 with its own, 0.05 with that of another moment. Chosen for this
project, as all of these."""
MOST_APART: Final[float] = 1.0
"""Seconds by which the recorded sound and the frames may differ in length,"""
MOST_APART_SHARE: Final[float] = 0.02
"""or this share of them: frames are dropped at the end of datasets that others have made."""
_BLOCK: Final[int] = 25
"""Frames that are held out together: a second, longer than what one moment tells of the next."""
_STRENGTH: Final[float] = 0.1


def check_masks_fit(heads: Sequence[NDArray[np.bool_]], points: Sequence[Float32], folder: Path, root: Path) -> None:
    """Refuse masks in which the face is elsewhere than its landmarks.

    Args:
        heads: bool [H, W], head and mouth interior of the frames looked at.
        points: [68, 2] their landmarks, pixels.
        folder: of the masks.
        root: of the dataset.

    Raises:
        UserError: as said.
    """
    shares = []
    for head, marks in zip(heads, points, strict=True):
        height, width = head.shape
        x, y = marks[INNER_FACE].round().astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        shares.append(float((head[y.clip(0, height - 1), x.clip(0, width - 1)] & inside).mean()))
    if shares and np.median(shares) < LEAST_INSIDE:
        raise UserError(
            f"{folder}: eyes, nose and mouth of the landmarks lie in the head of the masks with a share of "
            f"{np.median(shares):.0%} only; are they of another video? {remedy(root)}"
        )


def doubts(opening: Float32, expression: Float32, audio: Float32) -> list[str]:
    """A line for each of the driving signals that has little in common with the lips of the frames.

    Args:
        opening: [T] of the lips, from the landmarks.
        expression: [T, E] expression and jaw coefficients.
        audio: [T, L, C] windows.
    """
    if len(opening) < LEAST_FRAMES or not opening.std() > 1e-3:
        return []
    lines = []
    told = foretold(opening, expression)
    if expression.shape[1] and told < LEAST_EXPRESSION:
        lines.append(f"the expression tells little of the lips in the frames (r = {told:.2f}): is it of this video?")
    if len(opening) < LEAST_FRAMES_HEARD:
        return lines
    middle = audio.shape[1] // 2
    heard = foretold(opening, np.concatenate([audio[:, : middle or 1].mean(1), audio[:, middle:].mean(1)], 1))
    if heard < LEAST_SOUND:
        lines.append(
            f"the sound tells little of the lips in the frames (r = {heard:.2f}): is it of this video, and in step?"
        )
    return lines


def length_doubts(sound: Path, frames: int) -> list[str]:
    """A line where the recorded sound is not as long as so many frames; none where it is not there or, which is said by
    whoever plays it, cannot be read."""
    try:
        about = soundfile.info(sound)
    except (soundfile.LibsndfileError, OSError):
        return []
    seconds, shown = about.frames / about.samplerate, frames / FRAME_RATE
    if abs(seconds - shown) <= max(MOST_APART, MOST_APART_SHARE * shown):
        return []
    return [f"{sound.name} lasts {seconds:.1f} s and the frames {shown:.1f} s: is it of this video?"]


def foretold(opening: Float32, signal: Float32) -> float:
    """Correlation of ``opening`` [T] with what ``signal`` [T, D] tells of it linearly, each second of frames from the
    others."""
    x = signal.astype(np.float64)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9 + 1e-3 * x.std())
    y = opening.astype(np.float64) - opening.mean()
    fold = np.arange(len(y)) // _BLOCK % 5
    guess = np.zeros(len(y))
    for k in range(5):
        rest, held = fold != k, fold == k
        gram = x[rest].T @ x[rest] + _STRENGTH * rest.sum() * np.eye(x.shape[1])
        guess[held] = x[held] @ np.linalg.solve(gram, x[rest].T @ y[rest])
    return float(np.corrcoef(guess, y)[0, 1]) if guess.std() > 0 else 0.0
