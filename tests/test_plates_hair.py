"""The hair in front of the face: where its matte is, and what the face has under it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from degstalk_ns.plates.build import dilate, erode
from degstalk_ns.plates.hair import HAIR_LAYER, hair_matte, skin_under_hair, with_hair_in_front

DARK, SKIN = 30, 200
HAIRLINE = 200
"""Row of a picture of 512 pixels, in which lengths are as they were tuned, at which the hair mask ends."""


def _picture(height: int = 512, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Dark hair above bright skin, and the mask of the hair."""
    hair = np.zeros((height, width), bool)
    hair[: HAIRLINE * height // 512] = True
    frame = np.where(hair[..., None], DARK, SKIN).repeat(3, -1).astype(np.uint8)
    return frame, hair


def test_the_matte_is_nothing_far_from_hair_and_everything_deep_inside() -> None:
    random = np.random.default_rng(0)
    hair = _picture()[1]
    frame = random.integers(0, 256, (*hair.shape, 3), np.uint8)
    matte = hair_matte(frame, hair)
    assert matte.shape == hair.shape and matte.dtype == np.uint8
    assert (matte[erode(hair, 13)] == 255).all() and (matte[~dilate(hair, 33)] == 0).all()
    assert not (hair_matte(frame, np.zeros_like(hair))).any()
    assert (hair_matte(frame, np.ones_like(hair)) == 255).all()


def test_a_plain_edge_stays_where_it_is() -> None:
    frame, hair = _picture()
    matte = hair_matte(frame, hair)
    assert (matte[:HAIRLINE] > 200).all() and (matte[HAIRLINE:] < 55).all()


def test_strands_beside_the_mask_and_skin_inside_it_are_told_by_their_brightness() -> None:
    frame, hair = _picture()
    frame[HAIRLINE : HAIRLINE + 6, 40:43] = DARK  # a strand that the mask cuts off
    frame[HAIRLINE - 6 : HAIRLINE, 80:83] = SKIN  # a gap that the mask fills
    matte = hair_matte(frame, hair).astype(int)
    strand, beside = matte[HAIRLINE : HAIRLINE + 6, 40:43], matte[HAIRLINE : HAIRLINE + 6, 52:60]
    # Deeper in the mask hair is opaque, however bright.
    gap, around = matte[HAIRLINE - 2 : HAIRLINE, 80:83], matte[HAIRLINE - 6 : HAIRLINE, 60:68]
    assert strand.min() > 127 and beside.max() < 55
    assert gap.max() < 127 and around.min() > 200
    frame[HAIRLINE + 30 : HAIRLINE + 50, 40:43] = DARK  # too far away to be hair
    assert (hair_matte(frame, hair)[HAIRLINE + 17 :] == 0).all()


def test_where_the_picture_has_no_edge_the_matte_is_the_mask_softened() -> None:
    frame, hair = np.full_like(_picture()[0], 90), _picture()[1]
    column = hair_matte(frame, hair)[:, 64].astype(int)
    assert (np.diff(column) <= 0).all()
    pair = column[HAIRLINE - 1] + column[HAIRLINE]  # alike on both sides
    assert pair == pytest.approx(255, abs=2) and 127 < column[HAIRLINE - 1] < 160


@pytest.mark.parametrize("wrong", [False, True])
def test_the_matte_is_the_same_at_another_size(wrong: bool) -> None:
    frame, hair = _picture()
    frame[HAIRLINE : HAIRLINE + 6, 40:44] = DARK
    frame[HAIRLINE - 6 : HAIRLINE, 80:84] = SKIN
    small = hair_matte(frame, hair).astype(float)
    config = replace(HAIR_LAYER, strands=HAIR_LAYER.strands / 3) if wrong else HAIR_LAYER
    large = hair_matte(frame.repeat(3, 0).repeat(3, 1), hair.repeat(3, 0).repeat(3, 1), config)
    shrunk = large.reshape(512, 3, 128, 3).mean((1, 3))
    assert (np.abs(shrunk - small).max() < 26) is not wrong


def _hairline() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin of two colours below the hairline, with the hair's shadow on its first five rows; background above row 150.

    Frame, head and hair.
    """
    frame, hair = _picture()
    frame[HAIRLINE:, :64], frame[HAIRLINE:, 64:] = (200, 150, 120), (160, 110, 90)
    frame[HAIRLINE : HAIRLINE + 5] = DARK
    hair[:150] = False
    head = np.zeros_like(hair)
    head[HAIRLINE:400] = True
    return frame, head, hair


def test_the_face_reaches_under_the_hair_at_its_border() -> None:
    frame, head, hair = _hairline()
    image, under = skin_under_hair(frame, head, hair)
    rows = np.flatnonzero(under.all(1))
    assert (rows[0], rows[-1]) == (HAIRLINE - 16, HAIRLINE - 1) and under.sum() == 16 * 128
    # It has the colour of the skin that is sure to be skin, the nearest.
    for columns, colour in ((slice(0, 50), (200, 150, 120)), (slice(78, 128), (160, 110, 90))):
        found = image[HAIRLINE - 16 : HAIRLINE + 5, columns].astype(int)
        assert np.abs(found - colour).max() <= 1
    seen = ~under & ~(head & dilate(hair, 33))
    np.testing.assert_array_equal(image[seen], frame[seen])


def test_only_hair_near_the_head_is_lifted() -> None:
    frame, head, hair = _hairline()
    before = frame.copy()
    head[:, 64:] = False
    image, under = skin_under_hair(frame, head, hair)
    assert not (under & ~hair).any() and under[:, :64].any() and not under[:, 64 + 16 :].any()
    np.testing.assert_array_equal(frame, before)
    assert (image[:150] == frame[:150]).all()


@pytest.mark.parametrize("what", ["no hair", "no head", "no reach", "no skin"])
def test_where_there_is_nothing_to_lift_the_frame_stays(what: str) -> None:
    frame, head, hair = _hairline()
    if what == "no hair":
        hair[:] = False
    elif what == "no head":
        head[:] = False
    elif what == "no skin":  # all that is seen of the head may be hair
        head[HAIRLINE + 5 :] = False
    config = replace(HAIR_LAYER, reach=0.0) if what == "no reach" else HAIR_LAYER
    image, under = skin_under_hair(frame, head, hair, config)
    np.testing.assert_array_equal(image, frame)
    assert image is not frame and under.dtype == bool and not under.any()


def test_the_face_reaches_as_far_at_another_size() -> None:
    frame, head, hair = (part.repeat(2, 0).repeat(2, 1) for part in _hairline())
    _, under = skin_under_hair(frame, head, hair)
    assert under.sum() == 32 * 256


def _shaded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin with a shadow that fades within 10 rows of the hairline, and no hair below it. Frame, head and hair."""
    frame, head, hair = _hairline()
    frame[HAIRLINE:] = (200, 150, 120)
    fading = np.linspace(0.6, 1.0, 10)[:, None, None]
    frame[HAIRLINE : HAIRLINE + 10] = (fading * (200, 150, 120)).astype(np.uint8)
    return frame, head, hair


@pytest.mark.parametrize("scene", [_hairline, _shaded])
def test_what_is_in_front_over_the_skin_behind_it_is_the_recorded_frame(scene: Any) -> None:
    frame, head, hair = scene()
    plate = np.zeros_like(frame)
    layered = with_hair_in_front(plate, frame, head, hair).astype(float)
    skin, under = skin_under_hair(frame, head, hair)
    share = layered[..., 3:] / 255
    shown = share * layered[..., :3] + (1 - share) * skin
    sure = erode(head | under, 17)
    assert np.abs(shown - frame).max(-1)[sure & (share[..., 0] < 1)].max() <= HAIR_LAYER.unseen + 1
    assert (layered[..., :3][share[..., 0] == 0] == 0).all()


def test_the_shadow_of_the_hair_is_not_of_the_face() -> None:
    frame, head, hair = _shaded()
    skin, _ = skin_under_hair(frame, head, hair)
    below = skin[HAIRLINE : HAIRLINE + 9, 64].astype(int)
    assert np.abs(below[:4] - (200, 150, 120)).max() < 20 and (frame[HAIRLINE] < 0.7 * skin[HAIRLINE]).all()
    layered = with_hair_in_front(np.zeros_like(frame), frame, head, hair)
    share = layered[HAIRLINE + 9 : HAIRLINE + 20, 64, 3]
    assert share[0] < 20 and not share[2:].any()  # and what is seen in light is wholly of the face


def test_a_brow_that_ends_at_the_hair_stays_on_the_face() -> None:
    frame, head, hair = _shaded()
    frame[hair] = 230  # a brow that is as dark as the hair is taken for fine hair
    brow = slice(62, 66)
    frame[HAIRLINE + 4 : HAIRLINE + 30, brow] = (60, 45, 40)
    skin, _ = skin_under_hair(frame, head, hair)
    rows = slice(HAIRLINE + 5, HAIRLINE + 10)
    assert (skin[rows, brow] < 110).all() and (skin[rows, 90:] > 100).all()
    seen = frame[HAIRLINE + 12, 90].astype(int)
    assert (skin[HAIRLINE : HAIRLINE + 12].astype(int) <= seen + 1).all()  # and no rim brighter than the skin beyond
