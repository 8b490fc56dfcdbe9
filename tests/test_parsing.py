from __future__ import annotations

import numpy as np

from degstalk_ns.dataparsers.layout import PALETTE
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.preprocess.steps import parsing
from degstalk_ns.preprocess.steps.parsing import BACKGROUND, HAIR, HEAD, MOUTH, NECK, TORSO, ParsingConfig

SIZE = 128
BG, HA, BODY, FACE, CLOTHES, OTHERS = range(6)
NO_MOUTH = np.zeros((SIZE, SIZE), bool)


def ring(centre: tuple[float, float], radii: tuple[float, float], count: int) -> np.ndarray:
    """Clockwise on the screen from the top."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radii[0] * np.sin(angle), centre[1] - radii[1] * np.cos(angle)], 1)


def face_points(opening: float = 0.0) -> np.ndarray:
    """Landmarks of a round face of radius 30 around (64, 60): outline, nose base, and lips around (64, 78)."""
    points = np.zeros((lm.NUM_POINTS, 3), np.float32)
    points[list(lm.FACE_OVAL), :2] = ring((64, 60), (30, 30), len(lm.FACE_OVAL))
    points[2, :2] = (64, 70)
    # lips start at the subject's right corner: a quarter turn back
    for rows, radii in ((lm.LIPS_OUTER, (14, 7 + opening)), (lm.LIPS_INNER, (11, opening))):
        points[list(rows), :2] = np.roll(ring((64, 78), radii, len(rows)), len(rows) // 4, 0)
    return points


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def person() -> np.ndarray:
    """Segmenter classes of a face with hair above, a neck and a shirt below."""
    classes = np.full((SIZE, SIZE), BG)
    classes[110:, 20:108] = CLOTHES
    classes[80:112, 52:76] = BODY
    classes[disc(64, 52, 36)] = HA
    classes[disc(64, 60, 30)] = FACE
    return classes


def confidences(classes: np.ndarray) -> np.ndarray:
    return np.eye(6, dtype=np.float32)[classes]


def parse(classes: np.ndarray, mouth: np.ndarray = NO_MOUTH) -> np.ndarray:
    return parsing.parse(confidences(classes), face_points(), mouth, ParsingConfig())


def test_the_six_regions() -> None:
    mouth = disc(64, 78, 4)
    codes = parse(person(), mouth)
    assert codes[60, 64] == HEAD
    assert codes[20, 64] == HAIR
    assert codes[100, 64] == NECK
    assert codes[120, 64] == TORSO
    assert codes[60, 5] == BACKGROUND
    assert (codes[mouth] == MOUTH).all() and (codes == MOUTH).sum() == mouth.sum()


def test_chin_line_follows_the_landmarks() -> None:
    wrong = person()
    wrong[84:90, 58:70] = BODY  # the chin taken for neck
    wrong[94:104, 52:76] = FACE  # the throat taken for face
    codes = parse(wrong)
    assert (codes[84:88, 60:68] == HEAD).all()
    assert (codes[95:103, 54:74] == NECK).all()


def test_an_ear_outside_the_outline_is_head() -> None:
    classes = person()
    classes[52:68, 94:99] = FACE
    assert (parse(classes)[54:66, 95:98] == HEAD).all()


def test_glasses_go_to_the_head_a_hat_to_the_hair_a_microphone_to_the_torso() -> None:
    classes = person()
    classes[50:56, 44:84] = OTHERS
    classes[8:20, 40:88] = OTHERS
    classes[114:124, 30:40] = OTHERS
    codes = parse(classes)
    assert codes[53, 64] == HEAD
    assert codes[12, 64] == HAIR
    assert codes[118, 35] == TORSO


def test_beard_moves_with_the_head_but_long_hair_does_not() -> None:
    classes = person()
    classes[82:89, 56:72] = HA
    classes[50:80, 34:39] = HA
    codes = parse(classes)
    assert (codes[83:88, 58:70] == HEAD).all()
    assert (codes[60:76, 36:38] == HAIR).all()


def test_a_hand_is_torso_and_a_poster_is_background() -> None:
    classes = person()
    classes[100:120, 96:112] = BODY  # joined to the shirt
    classes[10:30, 100:120] = FACE  # joined to nothing
    codes = parse(classes)
    assert codes[104, 104] == TORSO
    assert codes[20, 110] == BACKGROUND


def test_small_islands_disappear() -> None:
    classes = person()
    classes[40:42, 60:62] = CLOTHES
    classes[118:120, 60:62] = BG
    codes = parse(classes)
    assert (codes[39:43, 59:63] == HEAD).all()
    assert (codes[117:121, 59:63] == TORSO).all()


def test_low_resolution_confidences_give_a_smooth_outline() -> None:
    small = confidences(person())[::2, ::2]
    codes = parsing.parse(small, face_points(), NO_MOUTH)
    assert codes.shape == (SIZE, SIZE)
    differ = (codes != parse(person())).mean()
    assert differ < 0.03


def test_a_face_that_is_cut_off_does_not_break_it() -> None:
    points = face_points()
    points[:, :2] += (70, -60)
    codes = parsing.parse(confidences(person()), points, NO_MOUTH)
    assert codes.shape == (SIZE, SIZE)
    empty = parsing.parse(confidences(np.zeros((SIZE, SIZE), int)), points, NO_MOUTH)
    assert (empty == BACKGROUND).all()


def test_polygon_covers_its_area_and_counts_from_the_corner() -> None:
    square = np.array([[10, 20], [30, 20], [30, 50], [10, 50]], np.float32)
    mask = parsing.fill_polygon(square, 64, 64)
    assert mask[20:50, 10:30].all() and mask.sum() == 20 * 30
    sliver = np.array([[10, 20], [30, 20.05], [30, 20.1]], np.float32)
    assert not parsing.fill_polygon(sliver, 64, 64).any()
    assert not parsing.fill_polygon(square + 500, 64, 64).any()
    assert parsing.fill_polygon(square - 15, 64, 64).sum() == 15 * 30


def face_picture(opening: float) -> tuple[np.ndarray, np.ndarray]:
    points = face_points(opening)
    picture = np.full((SIZE, SIZE, 3), (190, 150, 130), np.uint8)
    outer = parsing.fill_polygon(points[list(lm.LIPS_OUTER), :2], SIZE, SIZE)
    picture[outer] = (180, 90, 90)
    return picture, points


def test_mouth_with_teeth() -> None:
    picture, points = face_picture(6)
    inner = parsing.fill_polygon(points[list(lm.LIPS_INNER), :2], SIZE, SIZE)
    picture[inner] = (30, 15, 15)
    row = np.indices((SIZE, SIZE))[0]
    teeth_drawn = inner & (row < 76)
    picture[teeth_drawn] = (200, 195, 180)
    interior, teeth = parsing.find_mouth(picture, points)
    assert (interior & inner).sum() > 0.95 * inner.sum()
    assert interior.sum() < 1.1 * inner.sum()
    assert not (teeth & ~interior).any()
    assert (teeth & teeth_drawn).sum() > 0.8 * teeth_drawn.sum()
    assert (teeth & ~teeth_drawn).sum() < 0.1 * teeth_drawn.sum()


def test_open_mouth_without_teeth_and_closed_mouth() -> None:
    picture, points = face_picture(6)
    picture[parsing.fill_polygon(points[list(lm.LIPS_INNER), :2], SIZE, SIZE)] = (30, 15, 15)
    interior, teeth = parsing.find_mouth(picture, points)
    assert interior.any() and not teeth.any()
    interior, teeth = parsing.find_mouth(*face_picture(0.3))
    assert not interior.any() and not teeth.any()


def test_colours_there_and_back() -> None:
    codes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    colours = parsing.to_colours(codes)
    assert [tuple(colour) for colour in colours.reshape(-1, 3).tolist()] == list(PALETTE.values())
    np.testing.assert_array_equal(parsing.from_colours(colours), codes)


def test_smoothing_is_symmetric_and_keeps_probabilities() -> None:
    one, other = (np.full((4, 4, 6), value, np.float32) for value in (0.0, 1.0))
    config = ParsingConfig(smoothing=0.25)
    np.testing.assert_allclose(parsing.smooth_confidences(one, other, one, config), 0.5)
    np.testing.assert_allclose(parsing.smooth_confidences(other, other, None, config), 1.0)
    np.testing.assert_array_equal(parsing.smooth_confidences(one, other, one, ParsingConfig(smoothing=0)), other)
