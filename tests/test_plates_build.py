from dataclasses import replace

import numpy as np
import pytest
import torch

from degstalk_ns.avatar.compositing import compose, dilate_layer, inside_rim, over
from degstalk_ns.plates.build import FRAME_PLATE, FramePlateConfig, dilate, erode, frame_plate, freed_plate

AT_512 = FramePlateConfig(erosion=6 / 160, seam=4 / 160, rise=40 / 160, smoothing=3 / 160)
"""In a picture of 160 pixels the lengths that the defaults have at 512."""


def test_plate_keeps_the_frame_outside_the_eroded_head_and_fills_the_inside() -> None:
    size = 64
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    head = np.zeros((size, size), bool)
    head[16:48, 16:48] = True
    torso = np.zeros((size, size, 4), np.uint8)
    torso[40:] = (10, 20, 30, 255)
    clean = np.full((size, size, 3), 200, np.uint8)
    plate = frame_plate(frame, head, torso, clean, FramePlateConfig(erosion=6 / size))
    inside = erode(head, 13)
    assert inside.sum() == (32 - 12) ** 2
    assert (plate[~inside] == frame[~inside]).all()
    assert (plate[inside & (torso[..., 3] == 0)] == 200).all()
    assert (plate[inside & (torso[..., 3] == 255)] == (10, 20, 30)).all()


def test_half_transparent_torso_is_mixed_with_the_clean_plate() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    head = np.ones((40, 40), bool)
    torso = np.full((40, 40, 4), (255, 0, 0, 51), np.uint8)
    clean = np.full((40, 40, 3), 100, np.uint8)
    assert tuple(frame_plate(frame, head, torso, clean)[20, 20]) == (131, 80, 80)


def test_composition_is_equation_7() -> None:
    torch.manual_seed(0)
    f, m, plate = (torch.rand(4, 5, 3, dtype=torch.float64) for _ in range(3))
    af, am = (torch.rand(4, 5, 1, dtype=torch.float64) for _ in range(2))
    expected = f + (1 - af) * (m + (1 - am) * plate)
    assert torch.allclose(compose(f, af, m, am, plate), expected)
    assert torch.allclose(compose(f, af * 0, m, am * 0, plate * 0), f + m)


def test_dilated_mouth_covers_more_in_its_own_colour() -> None:
    alpha = torch.zeros(31, 31, 1)
    alpha[15, 15] = 1
    colour = alpha * torch.tensor([0.8, 0.2, 0.1])
    grown_colour, grown = dilate_layer(colour, alpha, 13)
    assert grown.sum() == 13 * 13
    assert torch.allclose(grown_colour[12, 12], torch.tensor([0.8, 0.2, 0.1]), atol=1e-4)
    assert grown_colour[0, 0].abs().max() == 0
    with pytest.raises(ValueError, match="odd"):
        dilate_layer(colour, alpha, 12)


def test_over_and_windows() -> None:
    assert torch.allclose(
        over(torch.full((1, 1, 3), 0.3), torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 3)), torch.tensor(0.8)
    )
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


def test_freed_plate_leaves_nothing_of_the_face_but_beside_hair() -> None:
    scene = _neck_scene()
    hair = scene["hair"]
    freed = freed_plate(**scene, config=AT_512)
    face = (freed == CHIN).all(-1)
    recorded = frame_plate(**{k: v for k, v in scene.items() if k not in ("neck", "hair")}, config=AT_512)
    assert (recorded == CHIN).all(-1).sum() > 1000
    assert face.any() and not face[~dilate(hair, 13)].any()
    # Hair, background and the neck well below the jaw are as they were.
    assert (freed[hair] == scene["frame"][hair]).all()
    assert (freed[:, :30] == 120).all() and (freed[115:, 60:100] == scene["frame"][115:, 60:100]).all()


def test_a_higher_jaw_finds_the_shadow_that_lies_on_the_neck_behind_it() -> None:
    column = freed_plate(**_neck_scene(), config=AT_512)[:, 80, 0].astype(int)
    # Right at the old jaw it is the shadow; upward it passes, without a step, into the torso image.
    assert abs(column[80:105] - SHADOW[0]).max() < 25
    assert (abs(np.diff(column[52:105])) <= 5).all()
    assert column[52] > 140


def test_freed_plate_without_a_neck_in_sight_shows_the_clean_plate() -> None:
    scene = _neck_scene()
    scene["torso"][:] = 0
    scene["frame"][scene["neck"]] = 120
    scene["neck"][:] = False
    freed = freed_plate(**scene, config=AT_512)
    assert (freed[~dilate(scene["hair"], 13)] == 120).all()


def test_freed_plate_without_a_head_is_the_frame() -> None:
    scene = _neck_scene()
    scene["head_region"][:] = False
    assert (freed_plate(**scene) == scene["frame"]).all()


@pytest.mark.parametrize(("height", "window"), [(256, 7), (450, 11), (512, 13), (1024, 25)])
def test_the_cut_is_as_deep_at_every_height(height: int, window: int) -> None:
    assert FRAME_PLATE.erosion_window(height) == window
    frame, clean = np.zeros((height, 64, 3), np.uint8), np.full((height, 64, 3), 255, np.uint8)
    head = np.zeros((height, 64), bool)
    head[height // 4 :, :] = True
    plate = frame_plate(frame, head, np.zeros((height, 64, 4), np.uint8), clean)
    assert int(np.argmax(plate[:, 32, 0])) - height // 4 == window // 2


def _larger(scene: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
    return {name: picture.repeat(times, 0).repeat(times, 1) for name, picture in scene.items()}


@pytest.mark.parametrize("wrong", [None, "erosion", "seam", "rise", "smoothing"])
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


def test_the_silhouette_moves_inwards_but_not_at_the_images_border() -> None:
    covered = torch.zeros(40, 40, 1)
    covered[:, 10:30] = 1.0
    covered[20, 20] = 0.9  # slightly translucent places inside stay
    left = inside_rim(covered, 3)
    assert (left[:, 14:26] == 1).all() and (left[:, :12] == 0).all() and (left[:, 28:] == 0).all()
    assert ((left[:, 12:14] > 0) & (left[:, 12:14] < 1)).all()  # soft over a pixel to each side of the new edge


def test_the_silhouette_between_two_pixels_stays_between_them() -> None:
    covered = torch.zeros(20, 30, 1)
    covered[:, 10:] = 1.0
    edges = []
    for share in (0.0, 0.25, 0.5):
        covered[:, 9] = share
        edges.append(float(inside_rim(covered, 2)[10].sum()))
    assert edges[0] < edges[1] < edges[2] < edges[0] + 1
