"""Cracks along the border of the head, broken pixels of the face, and sharpness, on pictures whose faults are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from degstalk_ns.metrics.seam import BROKEN, border_band, broken_pixels, is_plain, seam_errors, sharpness

SIZE = 512
HEAD = (slice(150, 350), slice(180, 330))


def _head() -> np.ndarray:
    head = np.zeros((SIZE, SIZE), bool)
    head[HEAD] = True
    return head


def _grey(level: float = 0.5) -> Tensor:
    return torch.full((SIZE, SIZE, 3), level)


def test_a_pixel_is_broken_where_its_grey_differs_by_more_than_the_limit() -> None:
    image, truth = _grey(), _grey()
    image[0, 0] += BROKEN + 1e-4
    image[0, 1] -= BROKEN + 1e-4
    image[0, 2] += BROKEN - 1e-4
    image[0, 3] += torch.tensor([0.5, -0.2547, 0.0])  # another colour of the same grey
    image[0, 4, 2] += 0.5  # blue hardly counts
    image[0, 5, 1] += 0.5  # 0.587 of green does
    assert np.flatnonzero(broken_pixels(image, truth)).tolist() == [0, 1, 5]


def test_the_band_lies_16_pixels_to_each_side_of_the_border() -> None:
    outer, inner = _head(), _head()
    outer[134:366, 164:346] = True
    inner[:] = False
    inner[166:334, 196:314] = True
    np.testing.assert_array_equal(border_band(_head()), outer & ~inner)


def test_cracks_are_broken_pixels_along_the_border_and_those_near_hair_are_named() -> None:
    truth, image, head = _grey(), _grey(), _head()
    hair = np.zeros_like(head)
    hair[100:150, 180:330] = True
    image[150:152, 200:230] = 0  # a slit below the hairline: 60 pixels
    image[345:347, 200:210] = 0  # one at the chin: 20 pixels
    image[250:260, 250:260] = 0  # in the middle of the face: 100 pixels
    image[:50] = 0  # far from the head
    errors = seam_errors(image, truth, head, hair)
    assert errors is not None and (errors.cracks, errors.cracks_at_hair) == (80, 60)
    assert errors.broken_face == pytest.approx(180 / head.sum())
    assert errors.band_l1 == pytest.approx(80 * 0.5 / border_band(head).sum(), rel=1e-5)


def test_what_is_merely_inexact_is_no_crack() -> None:
    errors = seam_errors(_grey(0.5 + BROKEN - 0.01), _grey(), _head(), np.zeros((SIZE, SIZE), bool))
    assert errors is not None and (errors.cracks, errors.broken_face) == (0, 0)
    assert errors.band_l1 == pytest.approx(BROKEN - 0.01, rel=1e-4)


def test_without_a_head_there_is_no_seam() -> None:
    nothing = np.zeros((SIZE, SIZE), bool)
    assert seam_errors(_grey(), _grey(), nothing, nothing) is None


def test_a_crack_is_plain_to_see_from_as_much_of_the_frame_at_any_size() -> None:
    assert [is_plain(count, 512) for count in (50, 51)] == [False, True]
    assert [is_plain(count, 256) for count in (12.5, 12.6)] == [False, True]


def _texture() -> Tensor:
    noise = np.random.default_rng(0).uniform(0, 1, (SIZE, SIZE)).astype(np.float32)
    return torch.from_numpy(noise)[..., None].repeat(1, 1, 3)


@pytest.mark.parametrize("contrast", [0.25, 1.0, 1.5])
def test_sharpness_is_the_contrast_of_what_is_fine(contrast: float) -> None:
    truth = _texture()
    assert sharpness(contrast * truth + 0.1, truth, _head()) == pytest.approx(contrast, rel=1e-4)


def test_blur_takes_sharpness_inside_the_region_alone() -> None:
    truth, inside = _texture(), _head()
    blurred = torch.from_numpy(cv2.GaussianBlur(truth.numpy(), (0, 0), 3.0))
    value = sharpness(blurred, truth, inside)
    assert value is not None and 0 < value < 0.1
    elsewhere = torch.where(
        torch.from_numpy(cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0)[..., None], truth, blurred
    )
    assert sharpness(elsewhere, truth, inside) == pytest.approx(1.0)


def test_where_nothing_is_sharp_sharpness_cannot_be_told() -> None:
    assert sharpness(_texture(), _grey(), _head()) is None
    assert sharpness(_texture(), _texture(), _head() & ~_head()) is None
    assert sharpness(_grey(), _texture(), _head()) == pytest.approx(0.0, abs=1e-6)
