from __future__ import annotations

import numpy as np

from degstalk_ns.preprocess.steps.clean_plate import PlatesConfig, clean_plate, fill, torso_image
from degstalk_ns.preprocess.steps.parsing import BACKGROUND, HEAD, NECK, TORSO

SIZE = 128
ROWS, COLUMNS = np.indices((SIZE, SIZE))


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A head over a neck over a torso, before a wall that gets lighter to the right."""
    codes = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    codes[100:, 20:108] = TORSO
    codes[70:104, 50:78] = NECK
    codes[20:80, 40:88] = HEAD
    frame = np.repeat(np.clip(COLUMNS, 0, 255)[..., None], 3, -1).astype(np.uint8)
    frame[codes == TORSO] = (20, 40, 120)
    frame[codes == NECK] = (200, 140, 110)
    frame[codes == HEAD] = (220, 170, 140)
    return frame, codes


def test_torso_keeps_its_pixels_and_nothing_else() -> None:
    frame, codes = scene()
    image = torso_image(frame, codes)
    assert image.shape == (SIZE, SIZE, 4)
    assert set(np.unique(image[..., 3])) == {0, 255}
    deep = (codes == TORSO) | ((codes == NECK) & (ROWS > 84))
    np.testing.assert_array_equal(image[deep], np.concatenate([frame[deep], np.full((deep.sum(), 1), 255)], 1))
    assert not image[..., 3][codes == BACKGROUND].any()
    assert not image[image[..., 3] == 0].any()


def test_neck_goes_on_behind_the_head_without_a_hole() -> None:
    frame, codes = scene()
    config = PlatesConfig()
    image = torso_image(frame, codes, config)
    reach = round(config.neck_extension * SIZE)
    assert (image[80 - reach : 104, 50:78, 3] == 255).all()
    assert not image[: 80 - reach, :, 3].any()
    # its colour, in shadow: darker upward, never the face's
    column = image[80 - reach : 80, 64, :3].astype(int)
    assert (np.diff(column.sum(1)) >= 0).all()
    assert (column <= (200, 140, 110)).all()
    assert (column >= np.array([200, 140, 110]) * (1 - config.darkening) - 2).all()


def test_collar_that_touches_the_head_is_continued_less() -> None:
    frame, codes = scene()
    codes[78:104, 50:78] = TORSO
    frame[78:104, 50:78] = (250, 250, 250)
    codes[:80][codes[:80] == TORSO] = HEAD
    config = PlatesConfig()
    image = torso_image(frame, codes, config)
    top = np.flatnonzero(image[:, 64, 3])[0]
    assert 80 - top == round(config.torso_extension * SIZE)


def test_person_without_a_visible_neck_or_without_a_body() -> None:
    frame, codes = scene()
    codes[codes == NECK] = BACKGROUND
    assert (torso_image(frame, codes)[..., 3] > 0).sum() == (codes == TORSO).sum()
    codes[codes == TORSO] = BACKGROUND
    assert not torso_image(frame, codes).any()


def test_clean_plate_sees_what_the_person_uncovers() -> None:
    wall = np.repeat((COLUMNS + 60)[..., None], 3, -1).astype(np.uint8)
    samples = []
    for shift in (0, 10, 20, 30, 40, 50, 60):
        codes = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
        codes[40:, 10 + shift : 50 + shift] = TORSO
        frame = wall.copy()
        frame[codes == TORSO] = (255, 0, 0)
        samples.append((frame, codes))
    plate, seen = clean_plate(samples)
    np.testing.assert_array_equal(plate, wall)
    assert seen.all()


def test_clean_plate_ignores_what_flashes_by() -> None:
    codes = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    samples = [(np.full((SIZE, SIZE, 3), 90, np.uint8), codes) for _ in range(9)]
    samples[4][0][:] = 255
    np.testing.assert_array_equal(clean_plate(samples)[0], 90)


def test_clean_plate_says_where_the_background_was_never_seen() -> None:
    codes = np.full((SIZE, SIZE), BACKGROUND, np.uint8)
    codes[40:60, 40:60] = HEAD
    frame = np.full((SIZE, SIZE, 3), 90, np.uint8)
    _, seen = clean_plate([(frame, codes)] * 2)
    assert not seen[40:60, 40:60].any() and seen[:30].all()
    _, seen = clean_plate([(frame, np.full_like(codes, HEAD))])
    assert not seen.any()


def test_what_was_never_seen_is_filled_smoothly() -> None:
    wall = np.repeat((COLUMNS + 60)[..., None], 3, -1).astype(np.uint8)
    known = np.ones((SIZE, SIZE), bool)
    known[40:, 40:80] = False
    broken = wall.copy()
    broken[~known] = (255, 0, 0)
    filled = fill(broken, known)
    np.testing.assert_array_equal(filled[known], wall[known])
    inside = filled[~known].astype(int)
    assert inside.min() >= 60 and inside.max() <= 60 + SIZE
    assert (np.abs(inside[:, 0] - inside[:, 1]) <= 1).all()  # no red leaks in
    assert np.abs(filled[64, 41].astype(int) - wall[64, 39]).max() < 12
    np.testing.assert_array_equal(fill(broken, np.zeros_like(known)), broken)
