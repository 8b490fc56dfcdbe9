"""What silence looks like in audio features whose silence is known. It must not know networks or nerfstudio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.mel import MelConfig


def silent_windows(name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Windows [T, L, C] of silence for the features called ``name``; None where silence is not a known constant
    (DeepSpeech and HuBERT answer to silence with what their networks make of it)."""
    return np.full(shape, MelConfig().silence, np.float32) if name == "mel" else None
