"""The worst moments of a video: each planted fault is found, at its frame and its place, and drawn."""

from __future__ import annotations

import numpy as np
import pytest
from mesh_faces import mesh_face, relative_gap

from degstalk_ns.landmarks.ibug68 import eye_opening
from degstalk_ns.landmarks.mesh478 import to_68
from degstalk_ns.metrics.worst import CRITERIA, MOMENT_CELL, MOMENTS_APART, Moment, Pair, draw_moments, worst_moments

SIZE, FRAMES = 200, 40
HEAD = np.zeros((SIZE, SIZE), bool)
HEAD[40:190, 40:160] = True
LIPS, EYES = 8, 5


def _picture(lips: int = LIPS, eyes: int = EYES) -> np.ndarray:
    """Grey; the first pixel, far from the head, says what the face does."""
    image = np.full((SIZE, SIZE, 3), 100, np.uint8)
    image[0, 0] = lips, eyes, 1
    return image


def _pairs(count: int = FRAMES) -> list[Pair]:
    return [Pair(_picture(), _picture(), HEAD) for _ in range(count)]


def _observe(image: np.ndarray) -> np.ndarray | None:
    lips, eyes, there = (int(value) for value in image[0, 0])
    return mesh_face(lips, eyes) if there else None


def _by(moments: list[Moment], criterion: str) -> list[Moment]:
    return [moment for moment in moments if moment.criterion == criterion]


def test_each_fault_is_found_where_it_is() -> None:
    pairs = _pairs()
    pairs[7].image[60:75, 40:42] = 0  # a slit of 30 pixels at the border of the head
    pairs[7].image[120, 158] = 0  # and a speck at the other side
    pairs[20].image[0, 0, 0] = LIPS - 2
    pairs[30].image[0, 0, 1] = EYES - 4
    pairs[12].image[100:140, 80:120] += 20  # one frame flashes
    moments = worst_moments(pairs, _observe)
    worst = {criterion: _by(moments, criterion)[0] for criterion in CRITERIA}
    assert {criterion: moment.frame for criterion, moment in worst.items()} == {
        "seam": 7, "lips": 20, "eyes": 30, "jitter": 12,
    }  # fmt: skip
    assert worst["seam"].value == 31
    x, y = worst["seam"].centre
    assert 40 <= x < 42 and 60 <= y < 75
    assert worst["lips"].value == pytest.approx(relative_gap(8) - relative_gap(6))
    assert worst["lips"].centre == pytest.approx((100, 150), abs=3)
    narrow, wide = (float(eye_opening(to_68(mesh_face(eyes=eyes)))) for eyes in (EYES - 4, EYES))
    assert worst["eyes"].value == pytest.approx(wide - narrow, rel=1e-5)
    assert worst["eyes"].centre == pytest.approx((100, 80), abs=3)
    assert worst["jitter"].value == pytest.approx(2 * 20 * 1600 / HEAD.sum())
    x, y = worst["jitter"].centre
    assert 80 <= x < 120 and 100 <= y < 140


def test_movement_that_the_recording_has_too_is_no_jitter() -> None:
    pairs = _pairs(20)
    for number in (6, 12):
        pairs[number].truth[100:140, 80:120] += 20
    pairs[6].image[100:140, 80:120] += 20
    pairs[9].image[:35] = 250  # outside the head
    assert {moment.value for moment in _by(worst_moments(pairs, _observe), "jitter")} == {0.0}


def test_moments_of_one_criterion_are_apart_and_the_worst_comes_first() -> None:
    pairs = _pairs()
    for number in range(3, 23):  # each crack is larger than the one before
        pairs[number].image[60 : 60 + number, 40:42] = 0
    seams = _by(worst_moments(pairs, _observe), "seam")
    assert [moment.frame for moment in seams] == [22, 22 - MOMENTS_APART, 22 - 2 * MOMENTS_APART]
    assert [moment.value for moment in seams] == [44.0, 34.0, 24.0]


def test_frames_without_a_face_or_a_crack_have_no_moment() -> None:
    pairs = _pairs(8)
    for pair in pairs:
        pair.image[0, 0, 2] = 0
    counted: list[int] = []
    moments = worst_moments(pairs, _observe, counted.append)
    assert {moment.criterion for moment in moments} == {"jitter"} and sum(counted) == 8
    assert worst_moments(pairs[:2], _observe) == []


def test_the_sheet_has_a_row_a_moment_with_both_frames_whole_and_enlarged() -> None:
    truth, image = _picture(), _picture()
    truth[:, :], image[:, :] = 100, 50
    image[95:106, 145:156] = 200
    moment = Moment(3, "seam", 12.0, (150.0, 100.0))
    corner = Moment(4, "jitter", 1.0, (0.0, SIZE - 1.0))
    sheet = draw_moments([(moment, Pair(image, truth, HEAD)), (corner, Pair(image, truth, HEAD))])
    assert sheet.shape == (2 * MOMENT_CELL, 4 * MOMENT_CELL, 3) and sheet.dtype == np.uint8
    cells = [sheet[:MOMENT_CELL, place * MOMENT_CELL : (place + 1) * MOMENT_CELL].astype(int) for place in range(4)]
    whole_truth, whole_image, near_truth, near_image = cells
    assert (np.median(whole_truth), np.median(whole_image)) == (100, 50)
    assert (whole_image[MOMENT_CELL // 2, 3 * MOMENT_CELL // 4] == 200).all() and (
        whole_truth[MOMENT_CELL // 2, 3 * MOMENT_CELL // 4] == 100
    ).all()
    middle = slice(MOMENT_CELL // 2 - 12, MOMENT_CELL // 2 + 12)  # 11 pixels of 70 are enlarged to 60
    assert (near_image[middle, middle] == 200).all() and (near_truth[middle, middle] == 100).all()
    assert (image[0, 0] == 50).all() and (truth == 100).all()  # nothing is drawn into what was given
    first, last = (sheet[row : row + MOMENT_CELL, 3 * MOMENT_CELL :] for row in (0, MOMENT_CELL))
    assert np.median(first) == 50 and (last[: MOMENT_CELL // 2] == 50).all()
