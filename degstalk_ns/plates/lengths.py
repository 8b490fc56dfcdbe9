"""Lengths in pixels from fractions of a picture's height, so that one number means the same at every resolution."""

from __future__ import annotations

import math


def odd_window(half: float, height: int) -> int:
    """Side of a square window around a pixel: 3 at least, and odd.

    Args:
        half: from the window's middle to its edge, as a fraction of the picture's height.
        height: of the picture, pixels.
    """
    return 2 * max(1, math.floor(half * height + 0.5)) + 1
