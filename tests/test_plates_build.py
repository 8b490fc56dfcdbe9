from dataclasses import replace

import numpy as np
import pytest

from degstalk_ns.plates.build import FRAME_PLATE, FramePlateConfig, dilate, erode, frame_plate, freed_plate

AT_512 = FramePlateConfig(erosion=6 / 160, seam=4 / 160, rise=40 / 160, continued=32 / 160, smoothing=3 / 160)
"""In a picture of 160 pixels the lengths that the defaults have at 512."""


def test_plate_keeps_the_frame_outside_the_eroded_head_and_fills_it_deep_inside() -> None:
    size = 64
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    head = np.zeros((size, size), bool)
    head[16:48, 16:48] = True
    torso = np.zeros((size, size, 4), np.uint8)
    torso[34:] = (10, 20, 30, 255)
    clean = np.full((size, size, 3), 200, np.uint8)
    plate = frame_plate(frame, head, torso, clean, FramePlateConfig(erosion=6 / size, continued=2 / size))
    inside = erode(head, 13)
    assert inside.sum() == (32 - 12) ** 2
    assert (plate[~inside] == frame[~inside]).all()
    deep = erode(inside, 9)  # farther inside than twice the distance by which the frame is continued
    assert deep.sum() == 12**2
    assert (plate[deep & (torso[..., 3] == 0)] == 200).all()
    assert (plate[deep & (torso[..., 3] == 255)] == (10, 20, 30)).all()


def test_what_is_seen_beside_the_face_goes_on_behind_it_and_fades() -> None:
    hair, skin, clean = 30, 200, 120
    frame = np.full((160, 160, 3), skin, np.uint8)
    frame[:, :46] = hair
    frame[:, 46:114] = 0  # of the face itself nothing is left
    head = np.zeros((160, 160), bool)
    head[:, 40:120] = True
    behind = np.full((160, 160, 3), clean, np.uint8)
    config = replace(AT_512, continued=10 / 160, smoothing=0.5 / 160)
    plate = frame_plate(frame, head, np.zeros((160, 160, 4), np.uint8), behind, config)
    for side, colour in ((plate[80, 46:80], hair), (plate[80, 113:79:-1], skin)):
        row = side[:, 0].astype(int)  # the first pixel is 1 from what is seen
        assert (row[:9] == colour).all()
        assert abs(row[14] - (colour + clean) / 2) <= 2  # halfway between once and twice the distance
        assert (row[20:] == clean).all()
        assert (np.diff(row) * np.sign(clean - colour) >= 0).all()


def test_half_transparent_torso_is_mixed_with_the_clean_plate() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    head = np.ones((40, 40), bool)
    torso = np.full((40, 40, 4), (255, 0, 0, 51), np.uint8)
    clean = np.full((40, 40, 3), 100, np.uint8)
    assert tuple(frame_plate(frame, head, torso, clean)[20, 20]) == (131, 80, 80)


def test_masks_grow_and_shrink_by_odd_windows() -> None:
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    assert dilate(mask, 3).sum() == 9 and erode(dilate(mask, 3), 3).sum() == 1
    with pytest.raises(ValueError, match="odd"):
        dilate(mask, 4)


def _neck_scene(size: int = 160) -> dict[str, np.ndarray]:
    """A head (rows 30 to 90) over a neck (rows 91 on, columns 60 to 99), hair right of the head, background elsewhere.

    The jaw's shadow lies on the upper 20 rows of the neck, its bright edge on the first two.
    """
    frame = np.full((size, size, 3), 120, np.uint8)
    head, neck, hair = (np.zeros((size, size), bool) for _ in range(3))
    head[30:91, 40:120] = True
    neck[91:, 60:100] = True
    hair[30:130, 120:140] = True
    frame[head] = CHIN
    frame[neck] = (150, 100, 80)
    frame[91:111, 60:100] = SHADOW
    frame[91:93, 60:100] = CHIN
    frame[30:91, 38:40] = CHIN  # the mask ends a little early on the left
    frame[hair] = (20, 10, 5)
    torso = np.zeros((size, size, 4), np.uint8)
    torso[50:, 60:100] = (150, 100, 80, 255)
    clean = np.full((size, size, 3), 120, np.uint8)
    return {
        "frame": frame,
        "head_region": head,
        "neck": neck,
        "hair": hair,
        "torso": torso,
        "clean_plate": clean,
    }


CHIN, SHADOW = (220, 160, 140), (60, 40, 30)


def _without_hair() -> dict[str, np.ndarray]:
    """The scene with background in place of hair; beside it the mask of the face ends as the face does."""
    scene = _neck_scene()
    scene["frame"][scene["hair"]] = 120
    scene["hair"][:] = False
    return scene


def test_freed_plate_leaves_nothing_of_the_face_but_beside_hair() -> None:
    bald = _without_hair()
    recorded = frame_plate(**{k: v for k, v in bald.items() if k not in ("neck", "hair")}, config=AT_512)
    assert (recorded == CHIN).all(-1).sum() > 1000
    assert np.abs(freed_plate(**bald, config=AT_512).astype(int) - CHIN).max(-1).min() > 40
    scene = _neck_scene()
    hair, freed = scene["hair"], freed_plate(**scene, config=AT_512)
    face = (freed == CHIN).all(-1)
    # Beside hair the border stays, and goes on behind the face as what is seen does.
    assert face[40:80, 114:120].all() and not face[~dilate(hair, 2 * (6 + 32) + 1)].any()
    # Hair, background and the neck well below the jaw are as they were.
    assert (freed[hair] == scene["frame"][hair]).all()
    assert (freed[:, :30] == 120).all() and (freed[115:, 60:100] == scene["frame"][115:, 60:100]).all()


def test_a_higher_jaw_finds_the_shadow_that_lies_on_the_neck_behind_it() -> None:
    # This head is so small that what lies above it would otherwise be continued down to the neck.
    config = replace(AT_512, continued=10 / 160)
    column = freed_plate(**_neck_scene(), config=config)[:, 80, 0].astype(int)
    # Right at the old jaw it is the shadow; upward it passes, without a step, into the torso image.
    assert abs(column[80:105] - SHADOW[0]).max() < 25
    assert (abs(np.diff(column[52:105])) <= 5).all()
    assert column[52] > 140


def test_freed_plate_without_a_neck_in_sight_shows_the_clean_plate() -> None:
    scene = _without_hair()
    scene["torso"][:] = 0
    scene["frame"][scene["neck"]] = 120
    scene["neck"][:] = False
    assert (freed_plate(**scene, config=AT_512) == 120).all()


def test_freed_plate_without_a_head_is_the_frame() -> None:
    scene = _neck_scene()
    scene["head_region"][:] = False
    assert (freed_plate(**scene) == scene["frame"]).all()


@pytest.mark.parametrize(("height", "window"), [(256, 7), (450, 11), (512, 13), (1024, 25)])
def test_cut_and_continuation_are_as_deep_at_every_height(height: int, window: int) -> None:
    assert FRAME_PLATE.erosion_window(height) == window
    clean, torso = np.full((height, 64, 3), 255, np.uint8), np.zeros((height, 64, 4), np.uint8)
    head = np.zeros((height, 64), bool)
    head[height // 4 :, :] = True
    cut = height // 4 + window // 2
    striped = np.zeros((height, 64, 3), np.uint8)
    striped[::2] = 100
    differs = (frame_plate(striped, head, torso, clean) != striped).any((1, 2))
    assert int(np.argmax(differs)) == cut
    plate = frame_plate(np.zeros((height, 64, 3), np.uint8), head, torso, clean)[:, 32, 0]
    half, full = (int(np.argmax(plate >= value)) - (cut - 1) for value in (128, 255))
    assert abs(half - 1.5 * 32 / 512 * height) <= 1
    assert 1.9 * 32 / 512 * height < full <= 2 * 32 / 512 * height + 1


def _larger(scene: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
    return {name: picture.repeat(times, 0).repeat(times, 1) for name, picture in scene.items()}


@pytest.mark.parametrize("wrong", [None, "erosion", "seam", "rise", "continued", "smoothing"])
def test_a_freed_plate_is_the_same_at_another_size(wrong: str | None) -> None:
    """The plate of a scene that is three times as large is three times as large; with a length that stayed the pixels
    it was, it would not be."""
    scene, times = _neck_scene(), 3
    scene["frame"][91:111, 60:100:6] = scene["frame"][91:111, 61:100:6] = (160, 140, 130)  # stripes to be evened out
    config = AT_512 if wrong is None else replace(AT_512, **{wrong: getattr(AT_512, wrong) / times})
    large = freed_plate(**_larger(scene, times), config=config).astype(float)
    shrunk = large.reshape(160, times, 160, times, 3).mean((1, 3))
    differs = (np.abs(shrunk - freed_plate(**scene, config=AT_512)).max(-1) > 12).mean()
    assert differs < 0.004 if wrong is None else differs > 0.008
