"""Boxes of pixels: around masks, enlarged within an image, and cut out of a part as out of the whole."""

from __future__ import annotations

import pytest
import torch

from degstalk_ns.avatar.boxes import Area, Box, box_pixels, cropped, grown_to, union_box

HEIGHT, WIDTH = 20, 30


def test_the_box_around_masks_holds_all_of_them_and_no_more() -> None:
    a, b = (torch.zeros(HEIGHT, WIDTH, dtype=torch.bool) for _ in range(2))
    assert union_box(a, b) == (0, 0, 0, 0)
    a[3, 4], b[10, 29] = True, True
    assert union_box(a) == (3, 4, 4, 5)
    assert union_box(a, b) == (3, 11, 4, 30)


@pytest.mark.parametrize(
    ("box", "pixels"), [((3, 11, 4, 30), 208), ((5, 6, 5, 6), 1), ((0, 0, 0, 0), 0), ((3, 1, 4, 1), 0)]
)
def test_pixels_of_a_box(box: Box, pixels: int) -> None:
    assert box_pixels(box) == pixels


@pytest.mark.parametrize(
    ("box", "size", "grown"),
    [
        ((5, 6, 5, 6), 4, (4, 8, 4, 8)),
        ((0, 2, 28, 30), 11, (0, 11, 19, 30)),  # moved inwards at the border
        ((1, 9, 2, 20), 8, (1, 9, 2, 20)),  # large enough as it is
        ((1, 2, 1, 2), 25, (0, 20, 0, 25)),  # larger than the image is high
    ],
)
def test_a_box_grows_as_far_as_the_image_allows(box: Box, size: int, grown: Box) -> None:
    assert grown_to(box, size, HEIGHT, WIDTH) == grown


@pytest.mark.parametrize(
    ("box", "margin", "least", "around"),
    [
        ((10, 12, 0, 3), 2, 1, (8, 14, 0, 5)),
        ((10, 12, 0, 3), 2, 8, (7, 15, 0, 8)),
        ((0, 0, 0, 0), 0, 1, (0, 1, 0, 1)),  # an area is never empty
        ((0, 20, 0, 30), 5, 64, (0, 20, 0, 30)),
    ],
)
def test_the_area_around_a_box(box: Box, margin: int, least: int, around: Box) -> None:
    assert Area.around(box, margin, HEIGHT, WIDTH, least) == Area(around, HEIGHT, WIDTH)


def test_what_is_taken_from_a_part_is_that_of_the_whole() -> None:
    image = torch.arange(HEIGHT * WIDTH * 3).view(HEIGHT, WIDTH, 3)
    box = (6, 9, 20, 27)
    area = Area.around(box, 3, HEIGHT, WIDTH)
    part = cropped(image, area.box)
    assert part.shape == (9, 13, 3) and torch.equal(part[0, 0], image[3, 17])
    assert torch.equal(area.inside(part, box), image[6:9, 20:27])
    assert torch.equal(Area.whole(image).inside(image, box), image[6:9, 20:27])
    assert Area.whole(image) == Area((0, HEIGHT, 0, WIDTH), HEIGHT, WIDTH)
