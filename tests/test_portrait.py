import numpy as np
import pytest
import torch

from degstalk_ns.portrait import JAW_SEAM, compose, dilate, dilate_layer, erode, frame_plate, freed_plate, over


def test_plate_keeps_the_frame_outside_the_eroded_head_and_fills_the_inside() -> None:
    size = 64
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    head = np.zeros((size, size), bool)
    head[16:48, 16:48] = True
    torso = np.zeros((size, size, 4), np.uint8)
    torso[40:] = (10, 20, 30, 255)
    clean = np.full((size, size, 3), 200, np.uint8)
    plate = frame_plate(frame, head, torso, clean, erosion=13)
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


def _neck_scene(size: int = 96) -> dict[str, np.ndarray]:
    """A head (rows 10 to 60) over a neck (rows 61 to 95, columns 30 to 66), with hair right of the head."""
    frame = np.full((size, size, 3), 120, np.uint8)  # background
    head, body, hair = (np.zeros((size, size), bool) for _ in range(3))
    head[10:61, 20:76] = True
    body[61:, 30:67] = True
    hair[10:90, 76:90] = True
    frame[head] = (220, 160, 140)
    frame[body] = (150, 100, 80)
    frame[61:67][body[61:67]] = (60, 40, 30)  # the jaw's shadow
    frame[hair] = (20, 10, 5)
    torso = np.zeros((size, size, 4), np.uint8)
    torso[30:, 30:67] = (150, 100, 80, 255)
    clean = np.full((size, size, 3), 120, np.uint8)
    return {"frame": frame, "head_region": head, "body": body, "torso": torso, "clean_plate": clean}


def test_freed_plate_leaves_nothing_of_the_jaw_over_the_neck_and_keeps_the_rest() -> None:
    scene = _neck_scene()
    body = scene.pop("body")
    kept = frame_plate(**scene)
    freed = freed_plate(body=body, **scene)
    chin = (220, 160, 140)
    below = np.s_[55:61, 34:63]
    assert (kept[below] == chin).all()
    assert (freed[below] == (150, 100, 80)).all()
    # The shadow fades: from the neck's own colour at the cut to what was seen at the seam's end, never back.
    column = freed[61:75, 48, 0].astype(int)
    assert column[0] > 145 and abs(int(freed[80, 48, 0]) - 150) <= 1
    assert (freed[61:67, 48, 0].astype(int) > scene["frame"][61:67, 48, 0]).all()
    # Hair, background, the rim towards them and the body beyond the seam are as they were.
    changed = (freed != kept).any(-1)
    assert not changed[:40].any() and not changed[:, 76:].any()
    assert not changed[61 + JAW_SEAM :].any()


def test_freed_plate_without_a_body_in_sight_is_the_plate() -> None:
    scene = _neck_scene()
    scene["torso"][:] = 0
    scene["body"][:] = False
    body = scene.pop("body")
    assert (freed_plate(body=body, **scene) == frame_plate(**scene)).all()
