from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.preprocess.steps.crop import Crop, CropConfig, plan


def box(x: float, y: float, width: float, height: float) -> list[float]:
    """A face of this size centred on (x, y)."""
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def faces(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, np.float32)


def test_head_fills_half_of_a_wide_frame() -> None:
    crop = plan(faces(box(1200, 500, 150, 200)), 1920, 1080)
    head = 200 * CropConfig().head_over_face
    assert 0.44 <= head / crop.side <= 0.5
    assert crop.x + crop.side / 2 == pytest.approx(1200, abs=2)
    middle = (500 + 100 - head / 2 - crop.y) / crop.side  # of the head, from the top
    assert middle == pytest.approx(0.42, abs=0.02)


def test_crop_stays_inside_the_frame() -> None:
    for x, y in ((60, 80), (1880, 80), (60, 1000), (1880, 1000)):
        crop = plan(faces(box(x, y, 120, 160)), 1920, 1080)
        assert crop.x >= 0 and crop.y >= 0
        assert crop.x + crop.side <= 1920 and crop.y + crop.side <= 1080


def test_all_of_the_motion_is_inside() -> None:
    moving = faces(*(box(x, y, 150, 200) for x, y in ((700, 450), (900, 500), (1150, 420), (900, 640))))
    crop = plan(moving, 1920, 1080)
    assert crop.x < moving[:, 0].min() and crop.x + crop.side > moving[:, 2].max()
    assert crop.y < moving[:, 1].min() and crop.y + crop.side > moving[:, 3].max()
    assert crop.side > plan(moving[:1], 1920, 1080).side


def test_source_smaller_than_wanted_takes_the_largest_square() -> None:
    crop = plan(faces(box(320, 180, 200, 260)), 640, 360)
    assert crop.side == 360
    assert crop.y == 0
    assert crop.x + 180 == pytest.approx(320, abs=1)


def test_square_head_shot_stays_whole_but_a_distant_one_is_cropped() -> None:
    assert plan(faces(box(250, 230, 160, 200)), 512, 512) == Crop(0, 0, 512)
    distant = plan(faces(box(500, 300, 80, 100)), 1080, 1080)
    assert distant.side < 400


def test_apply_cuts_and_scales() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[20:60, 50:90] = 255
    assert (Crop(50, 20, 40).apply(frame, 40) == 255).all()
    assert (Crop(50, 20, 40).apply(frame, 16) == 255).all()
    larger = Crop(40, 10, 60).apply(frame, 120)
    assert larger.shape == (120, 120, 3)
    assert larger[60, 60].tolist() == [255, 255, 255] and larger[0, 0].tolist() == [0, 0, 0]
