"""What a recording does not show, and an avatar trained on it therefore cannot have learned, in words.

Series of numbers in, lines for the user out. It must not know files, images or models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.metrics.lips_and_eyes import CLOSED_LIPS, wide_opening

BLINK = 0.5
"""Blink strength (0 open to 1 closed) that a blink reaches. Origin: chosen for this project."""
FEW_SECONDS = 20.0
"""Length of the training part below which expressions that it lacks are to be expected. Origin: chosen for this
project."""


def what_is_missing(opening: NDArray[np.floating], blink: NDArray[np.floating]) -> list[str]:
    """One line for each thing that the training frames do not show.

    Args:
        opening: [n] how far the mouth is open in each training frame, any unit, 0 is closed.
        blink: [n] how far the eyes are closed, 0 (open) to 1.
    """
    lines = []
    seconds = len(opening) / FRAME_RATE
    if seconds < FEW_SECONDS:
        lines.append(
            f"the avatar has seen {seconds:.0f} s of video: expressions beyond these come out weaker than they should; "
            "a minute or more of speech teaches them"
        )
    wide = wide_opening(opening.tolist()) or 0.0
    if wide <= 0:
        lines.append("the mouth never opens in the training frames: the avatar has not learned to open it")
    elif float(opening.min()) >= CLOSED_LIPS * wide:
        lines.append("the lips are never closed in the training frames: the avatar has not learned to close them")
    if not len(blink) or float(blink.max()) < BLINK:
        lines.append("there is no blink in the training frames: the avatar has not learned to close its eyes")
    return lines
