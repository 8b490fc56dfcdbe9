"""Vectors of audio features -> the windows of the frames of a video.

It must not know which features they are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from degstalk_ns.frame_rate import FRAME_RATE

VECTORS_PER_SECOND: Final[int] = 50
"""Two for each frame of a video."""
WINDOW: Final[int] = 16
"""Vectors in the window of a frame (320 ms), as in AD-NeRF and DEGSTalk."""


def windows_of(
    vectors: NDArray[np.floating],
    num_frames: int,
    silence: float | None = None,
    window: int = WINDOW,
    vectors_per_second: int = VECTORS_PER_SECOND,
) -> NDArray[np.float32]:
    """The windows of the frames of a 25 fps video: views of the vectors, so they take no more memory than those.

    Args:
        vectors: [V, C].
        num_frames: T.
        silence: what lies before the first vector and after the last one; None repeats them.
        window: L, vectors in a window. vectors_per_second: how many there are in a second.

    Returns:
        float32 [T, L, C], read-only. Window ``i`` is centred on frame ``i``: with 50 vectors a second and 16 in a
        window it holds those from ``2 i - 7`` to ``2 i + 8``.
    """
    stride, first = vectors_per_second // int(FRAME_RATE), window // 2 - 1
    needed = stride * num_frames + window
    inside = vectors[: needed - first]
    room = ((first, needed - first - len(inside)), (0, 0))
    padded = np.pad(inside, room, mode="edge") if silence is None else np.pad(inside, room, constant_values=silence)
    seen = np.lib.stride_tricks.sliding_window_view(padded.astype(np.float32, copy=False), window, axis=0)
    return seen[: stride * num_frames : stride].transpose(0, 2, 1)
