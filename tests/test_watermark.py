"""The visible watermark: where it lies, that it is readable on any background, and that the rest is untouched."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from degstalk_ns.export.watermark import Watermark

SIZES = [(512, 512), (640, 360), (240, 480), (64, 48), (24, 24)]


def _flat(level: int, width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def _box(changed: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_word_lies_whole_in_the_lower_right_corner(width: int, height: int) -> None:
    letters = (Watermark(width, height).draw(_flat(0, width, height)) > 100).any(-1)
    y0, y1, x0, x1 = _box(letters)
    assert y0 > 0.7 * height and y1 < height
    assert x0 > 0 and width - x1 < 0.1 * width
    # "synthetic" as one word, not cut off: it is the same shape in every size
    assert 4 < (x1 - x0) / (y1 - y0) < 9


def test_the_letters_are_as_high_as_said_and_keep_the_margin() -> None:
    y0, y1, _, x1 = _box((Watermark(1000, 1000, "H").draw(_flat(0, 1000, 1000)) > 100).any(-1))
    assert abs((y1 - y0) - 35) <= 3  # 0.035 of the side
    assert 25 <= 1000 - x1 <= 35  # 0.025 of the side, and what the font leaves free beside a letter


@pytest.mark.parametrize("level", [0, 128, 255])
def test_it_is_readable_on_any_background(level: int) -> None:
    marked = Watermark(512, 512).draw(_flat(level, 512, 512)).astype(int)
    # Eight tenths of the white letters and of their black outline lie over two tenths of the image.
    white, dark = 0.8 * 255 + 0.2 * level, 0.2 * level
    assert marked.max() == pytest.approx(white, abs=2)  # antialiasing leaves no letter quite white
    assert marked.min() == pytest.approx(dark, abs=2)
    assert (marked < dark + 3).all(-1).sum() > 50
    assert (marked.max(-1) - marked.min(-1) == 0).all()  # grey: no colour is shifted


def test_the_rest_and_the_image_that_is_given_stay_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    before = image.copy()
    mark = Watermark(640, 360)
    marked = mark.draw(image)
    np.testing.assert_array_equal(image, before)
    y0, y1, x0, x1 = _box((marked != image).any(-1))
    assert y0 > 300 and x0 > 480
    untouched = np.ones((360, 640), bool)
    untouched[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(marked[untouched], image[untouched])
    np.testing.assert_array_equal(mark.draw(image), marked)
