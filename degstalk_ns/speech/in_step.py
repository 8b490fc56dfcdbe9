"""Moves the sound of a recording in which it is early or late against the lips.

It must not know videos, files, or how lips are found in pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.audio.sound import shifted
from degstalk_ns.audio.whisper import whisper_vectors
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.speech.lip_motion import lip_motion
from degstalk_ns.speech.lip_sync import recorded_lip_sync


def in_step(
    samples: NDArray[np.float32], opening: NDArray[np.floating], width: NDArray[np.floating]
) -> tuple[NDArray[np.float32], str | None]:
    """The sound of a recording in step with its picture.

    Args:
        samples: [S], 16 kHz mono. opening, width: [T] of the mouth in each frame, any units.

    Returns:
        The samples, moved where their offset is noticeable, and then by how much it was, in words; as they were, and
        None, where it is not or the recording does not tell.
    """
    found = recorded_lip_sync(opening, width, lip_motion(whisper_vectors(samples)), FRAME_RATE)
    if found is None or not found.noticeable:
        return samples, None
    return shifted(samples, -found.seconds), str(found)
