"""The contact sheet: each cell shows what was found, where it was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from degstalk_ns.dataparsers.contact_sheet import CELL, HEADER, Row, draw

SIDE = 144
TIMES = CELL // SIDE
FRAME, PARSING, TORSO, PLATE = (200, 100, 50), (0, 0, 255), (10, 20, 30), (60, 120, 180)


def _flat(colour: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, len(colour)), colour, np.uint8)


@pytest.fixture
def row() -> Row:
    """Nothing but flat colours."""
    return Row(
        name="7",
        frame=_flat(FRAME),
        parsing=_flat(PARSING),
        teeth=np.zeros((SIDE, SIDE), bool),
        landmarks=np.full((68, 2), -50.0),
        axes=np.full((4, 2), np.nan),
        torso=_flat((*TORSO, 255)),
        plate=_flat(PLATE),
    )


def _cells(sheet: NDArray[np.uint8], index: int = 0) -> list[NDArray[np.uint8]]:
    """Cells of a row; the pixels of its frame are ``TIMES`` apart."""
    line = sheet[HEADER + index * CELL : HEADER + (index + 1) * CELL]
    return [line[:, x : x + CELL] for x in range(0, line.shape[1], CELL)]


def test_every_product_has_its_column(row: Row) -> None:
    sheet = draw([row, replace(row, plate=_flat((1, 2, 3)))])
    assert sheet.shape == (HEADER + 2 * CELL, 6 * CELL, 3) and sheet.dtype == np.uint8
    frame, overlay, landmarks, pose, torso, plate = _cells(sheet)
    for cell, colour in ((landmarks, FRAME), (pose, FRAME), (torso, TORSO), (plate, PLATE)):
        assert (cell == colour).all()
    assert (overlay == (100, 50, 152)).all()  # half of each
    assert (_cells(sheet, 1)[5] == (1, 2, 3)).all()
    named = (frame != FRAME).any(-1)
    assert named[-30:, :30].any() and not named[:-30].any() and not named[:, 30:].any()
    for column in range(6):
        assert (sheet[:HEADER, column * CELL : (column + 1) * CELL] > 200).any()


def test_teeth_are_yellow_on_the_masks(row: Row) -> None:
    row.teeth[20:30, 40:60] = True
    yellow = (_cells(draw([row]))[1] == (255, 255, 0)).all(-1)
    assert yellow[20 * TIMES : 30 * TIMES, 40 * TIMES : 60 * TIMES].all() and yellow.sum() == 10 * 20 * TIMES**2


def test_landmarks_lie_where_they_were_found(row: Row) -> None:
    row.landmarks[5] = (100, 30)  # x, y
    changed = np.argwhere((_cells(draw([row]))[2] != FRAME).any(-1))
    np.testing.assert_allclose(changed.mean(0), (30 * TIMES, 100 * TIMES), atol=0.5)
    assert len(changed) < 20


def test_the_axes_are_red_green_and_blue(row: Row) -> None:
    axes = np.array([[70, 70], [110, 70], [70, 30], [30, 110]], float)
    pose = _cells(draw([replace(row, axes=axes)]))[3].astype(int)
    brightest = [int(pose[round(y * TIMES), round(x * TIMES)].argmax()) for x, y in ((90, 70), (70, 50), (50, 90))]
    assert brightest == [0, 1, 2]
    assert (pose[90 * TIMES, 110 * TIMES] == FRAME).all()


def test_a_pose_far_outside_is_drawn_without_an_error(row: Row) -> None:
    axes = np.array([[70, 70], [1e12, 70], [70, -1e12], [70, 70]])
    pose = _cells(draw([replace(row, axes=axes, landmarks=np.full((68, 2), 1e9))]))[3]
    assert (pose[70 * TIMES, -1] != FRAME).any() and (pose[0, 70 * TIMES] != FRAME).any()


def test_checks_show_where_the_torso_is_transparent(row: Row) -> None:
    row.torso[:72, :, 3] = 0
    cell = _cells(draw([row]))[4]
    upper = cell[: 72 * TIMES]
    assert set(np.unique(upper)) >= {150, 200} and (upper[..., 0] == upper[..., 2]).all()
    assert (cell[73 * TIMES :] == TORSO).all()
