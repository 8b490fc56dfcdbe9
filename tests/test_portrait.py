import numpy as np
import pytest
import torch

from degstalk_ns.portrait import compose, dilate, dilate_layer, erode, frame_plate, over


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
