import pytest
import torch

from degstalk_ns.avatar.compositing import compose, dilate_layer, inside_rim, over


def test_composition_is_equation_7() -> None:
    torch.manual_seed(0)
    f, m, plate = (torch.rand(4, 5, 3, dtype=torch.float64) for _ in range(3))
    af, am = (torch.rand(4, 5, 1, dtype=torch.float64) for _ in range(2))
    expected = f + (1 - af) * (m + (1 - am) * plate)
    assert torch.allclose(compose(f, af, m, am, plate), expected)
    assert torch.allclose(compose(f, af * 0, m, am * 0, plate * 0), f + m)


def test_the_hair_of_a_plate_lies_in_front_of_face_and_mouth() -> None:
    torch.manual_seed(0)
    f, m, plate = (torch.rand(4, 5, 3, dtype=torch.float64) for _ in range(3))
    af, am, hair = (torch.rand(4, 5, 1, dtype=torch.float64) for _ in range(3))
    hair[0], hair[1] = 0, 1
    under = f + (1 - af) * (m + (1 - am) * plate)
    composed = compose(f, af, m, am, torch.cat([plate, hair], -1))
    assert torch.allclose(composed, hair * plate + (1 - hair) * under)
    assert torch.allclose(composed[0], under[0]) and torch.allclose(composed[1], plate[1])


def test_hair_in_front_leaves_no_gradient_to_what_it_hides() -> None:
    face = torch.rand(2, 2, 3, requires_grad=True)
    ones, plate = torch.ones(2, 2, 1), torch.rand(2, 2, 4)
    plate[..., 3] = torch.tensor([[1.0, 0.25], [0.0, 1.0]])
    compose(face, ones, torch.zeros(2, 2, 3), ones, plate).sum().backward()
    assert face.grad is not None and face.grad[..., 0].tolist() == [[0.0, 0.75], [1.0, 0.0]]


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


def test_over() -> None:
    half = over(torch.full((1, 1, 3), 0.3), torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 3))
    assert torch.allclose(half, torch.tensor(0.8))


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
