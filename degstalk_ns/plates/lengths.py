"""Lengths that are stored as fractions of a picture's height, in the pixels of a picture of some height.

A length of n pixels that was tuned at a height of 512 is stored as n / 512, which a float holds exactly. It must not
know which lengths there are, nor what they are for.
"""

from __future__ import annotations

from math import floor


def whole_pixels(fraction: float, height: int, least: int = 1) -> int:
    """A length in whole pixels.

    Args:
        fraction: the length as a fraction of the picture's height.
        height: of the picture, pixels.
        least: the result is never smaller, pixels.

    Returns:
        The nearest whole number; halves are rounded up, so that a length never shrinks from one size to the next.
    """
    return max(least, floor(fraction * height + 0.5))


def odd_window(half: float, height: int) -> int:
    """Side of the square window of a morphological operation that reaches ``half`` to each side of its centre.

    Args:
        half: the reach as a fraction of the picture's height.
        height: of the picture, pixels.

    Returns:
        An odd number of pixels, at least 3: a window of one pixel would do nothing.
    """
    return 2 * whole_pixels(half, height) + 1
