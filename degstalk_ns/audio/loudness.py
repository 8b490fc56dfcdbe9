"""How loud each frame of a sound is, and how loud its speech is.

It must not know files, networks or faces.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.mel import MelConfig

SPEECH_PERCENTILE: Final[float] = 90.0
"""Frames louder than this share are the strong vowels: their level is the level of the speech, whatever the pauses."""


def frame_levels(windows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Level of each frame, dB of the power summed over the bands of its two middle vectors.

    Args:
        windows: [T, L, C] of :func:`degstalk_ns.audio.mel.mel_windows`.

    Returns:
        [T]; a frame without sound has the floor (``floor_db`` in every band).
    """
    config, middle = MelConfig(), windows.shape[1] // 2
    decibels = windows[:, middle - 1 : middle + 1] * config.scale_db + config.centre_db
    power = (10 ** (decibels / 10)).sum(2).mean(1)
    return (10 * np.log10(power)).astype(np.float32)


def speech_level(levels: NDArray[np.floating]) -> float:
    """Level of the speech in a sound from its frames' levels [T], dB."""
    return float(np.percentile(levels, SPEECH_PERCENTILE))
