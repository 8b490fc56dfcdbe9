"""The sample head's face: form, determinism, and that lips, lids and landmarks do what a state says."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch

from degstalk_ns.avatar.camera import View
from degstalk_ns.rasterization import rasterize
from degstalk_ns.sample.body.face import Face
from degstalk_ns.sample.body.skull import skull_radius
from degstalk_ns.sample.body.surfels import CROWN_Y, EYE_CENTRES, MOUTH_CENTRE, FaceState, Floats, Part, Surfels

SPACING = 0.0018  # coarser than in use, for speed
SIZE, FOCAL, DISTANCE = 192, 576.0, 1.2
CLOSE = 1700.0  # pixels: focal length that shows the mouth or both eyes
MM = 0.001

STATES = {
    "rest": FaceState(),
    "shout": FaceState(jaw=1.0),
    "oo": FaceState(jaw=0.3, rounded=1.0),
    "ee": FaceState(jaw=0.2, spread=1.0),
    "m": FaceState(jaw=0.3, pressed=1.0),
    "l": FaceState(jaw=0.3, tongue=1.0),
    "smile": FaceState(smile=1.0, brows=1.0),
    "sad": FaceState(smile=-1.0, brows=-1.0),
    "blink": FaceState(blink=1.0),
    "look": FaceState(gaze=(0.4, 0.25), blink=0.4),
}


@pytest.fixture(scope="module")
def face() -> Face:
    return Face(seed=0, spacing=SPACING)


def draw(surfels: Surfels, colours: Floats, focal: float = FOCAL, aim: float = 0.0) -> tuple[Floats, Floats]:
    """[H, W, C] colours over nothing and [H, W] alpha, from the front; ``aim``: height in the middle, metres."""
    c2w = torch.eye(4)
    c2w[1, 3], c2w[2, 3] = aim, DISTANCE
    view = View.from_c2w(c2w, (focal, focal), (SIZE / 2, SIZE / 2), (SIZE, SIZE))
    parts = (surfels.means, surfels.quats, surfels.scales, surfels.opacities, colours.astype(np.float32))
    image, alpha, _ = rasterize(
        *(torch.from_numpy(np.ascontiguousarray(p)) for p in parts), view.viewmat[None], view.K[None], SIZE, SIZE
    )
    return image[0].numpy(), alpha[0, ..., 0].numpy()


def labels(face: Face, state: FaceState) -> Floats:
    """[H, W, 6] how much of each pixel shows each part."""
    surfels = face.surfels(state)
    return draw(surfels, np.eye(len(Part), dtype=np.float32)[surfels.parts], CLOSE, MOUTH_CENTRE[1])[0]


def mouth_pixels(face: Face, state: FaceState) -> int:
    """Pixels that show what is behind the lips."""
    seen = labels(face, state)
    return int((seen[..., Part.MOUTH] + seen[..., Part.TEETH] > 0.1).sum())


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_surfels_are_well_formed_in_every_state(face: Face, state: FaceState) -> None:
    surfels = face.surfels(state)
    shapes = {"means": 3, "quats": 4, "scales": 3, "normals": 3, "albedo": 3}
    for field in fields(surfels):
        values = getattr(surfels, field.name)
        width = shapes.get(field.name)
        assert values.shape == ((len(surfels), width) if width else (len(surfels),)), field.name
        assert values.dtype == (np.uint8 if field.name == "parts" else np.float32), field.name
        assert np.isfinite(values).all(), field.name
    np.testing.assert_allclose(np.linalg.norm(surfels.normals, axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(surfels.quats, axis=1), 1.0, atol=1e-4)
    assert surfels.scales.min() > 0 and surfels.scales.max() < 0.01
    for values in (surfels.albedo, surfels.gloss, surfels.opacities):
        assert values.min() >= 0 and values.max() <= 1
    assert set(np.unique(surfels.parts)) == {Part.HEAD, Part.MOUTH, Part.TEETH}
    assert np.abs(surfels.means).max() < 0.135


def test_the_third_axis_of_skin_follows_its_normal(face: Face) -> None:
    surfels = face.surfels(FaceState(jaw=0.6, smile=0.5))
    flat = surfels.scales[:, 2] < 0.5 * surfels.scales[:, 0]
    w, x, y, z = surfels.quats.T
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    agreement = (axis * surfels.normals).sum(axis=1)[flat & (surfels.scales[:, 1] > 0.0002)]
    assert np.abs(agreement).min() > 0.999


def test_equal_seeds_give_equal_bytes_and_others_differ() -> None:
    state = FaceState(jaw=0.4, blink=0.3, rounded=0.2, gaze=(0.1, 0.0))
    first, second, other = (Face(seed, SPACING) for seed in (3, 3, 4))
    for field in fields(Surfels):
        one, two = getattr(first.surfels(state), field.name), getattr(second.surfels(state), field.name)
        assert one.tobytes() == two.tobytes(), field.name
    assert first.landmarks(state).tobytes() == second.landmarks(state).tobytes()
    assert first.landmarks(state).tobytes() != other.landmarks(state).tobytes()


@pytest.mark.parametrize("name", ["rest", "m", "smile", "sad", "blink"])
def test_closed_lips_hide_the_mouth(face: Face, name: str) -> None:
    assert mouth_pixels(face, STATES[name]) == 0


def test_pressed_lips_stay_shut_whatever_the_jaw_does(face: Face) -> None:
    assert [mouth_pixels(face, FaceState(jaw=jaw, pressed=1.0)) for jaw in (0.1, 0.6, 1.0)] == [0, 0, 0]


def test_the_jaw_opens_the_mouth_monotonically(face: Face) -> None:
    pixels = [mouth_pixels(face, FaceState(jaw=jaw)) for jaw in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    assert all(b > a + 50 for a, b in pairwise(pixels)), pixels
    teeth = (labels(face, FaceState(jaw=0.5))[..., Part.TEETH] > 0.5).sum()
    assert 0.1 < teeth / mouth_pixels(face, FaceState(jaw=0.5)) < 0.8


def eye_white(face: Face, state: FaceState) -> tuple[float, float]:
    """Visible area of the balls of both eyes, and of that the part which is not white; pixels."""
    surfels = face.surfels(state)
    centres = np.array(EYE_CENTRES)
    middle = np.linalg.norm(surfels.means[:, None] - centres, axis=2).min(axis=1) < 0.0161
    ball = middle & (surfels.gloss >= 0.299) & (surfels.scales[:, 0] < 0.0003)
    white = ball & (surfels.albedo.min(axis=1) > 0.5)
    image, _ = draw(surfels, np.stack([ball, white], axis=1), CLOSE)
    return float(image[..., 0].sum()), float(image[..., 0].sum() - image[..., 1].sum())


def test_a_blink_covers_the_eyes(face: Face) -> None:
    seen = [eye_white(face, FaceState(blink=blink))[0] for blink in (0.0, 0.35, 0.7, 1.0)]
    assert seen[0] > 300 and all(b < a for a, b in pairwise(seen)), seen
    assert seen[-1] < 0.03 * seen[0]
    iris = eye_white(face, FaceState())[1]
    assert 0.2 * seen[0] < iris < 0.9 * seen[0]


def test_the_gaze_turns_both_irises_the_same_way(face: Face) -> None:
    def dark_centre(gaze: tuple[float, float], side: int) -> Floats:
        surfels = face.surfels(FaceState(gaze=gaze))
        near = np.linalg.norm(surfels.means - np.array(EYE_CENTRES[side]), axis=1) < 0.0161
        pupil = near & (surfels.albedo.max(axis=1) < 0.06) & (surfels.gloss >= 0.299)
        return surfels.means[pupil].mean(axis=0)

    for side in (0, 1):
        straight = dark_centre((0.0, 0.0), side)
        np.testing.assert_allclose(straight[:2], EYE_CENTRES[side][:2], atol=0.7 * MM)
        assert dark_centre((0.3, 0.0), side)[0] > straight[0] + 2 * MM
        assert dark_centre((-0.3, 0.0), side)[0] < straight[0] - 2 * MM
        assert dark_centre((0.0, 0.2), side)[1] > straight[1] + 1.5 * MM


def test_the_head_is_closed(face: Face) -> None:
    """No pixel inside the outline of the head lets the background through."""
    for state in (FaceState(), FaceState(jaw=1.0), FaceState(blink=0.5), FaceState(rounded=1.0, jaw=0.4)):
        surfels = face.surfels(state)
        _, alpha = draw(surfels, np.ones((len(surfels), 1)))
        y, x = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) * DISTANCE / FOCAL
        inside = (x / 0.062) ** 2 + (y / 0.088) ** 2 < 1
        assert alpha[inside].min() > 0.97, state


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_landmarks_lie_on_the_surface(face: Face, state: FaceState) -> None:
    points = face.landmarks(state)
    assert points.shape == (68, 3) and points.dtype == np.float32 and np.isfinite(points).all()
    means = face.surfels(state).means
    distance = np.linalg.norm(means[None] - points[:, None], axis=2).min(axis=1)
    assert distance.max() < 4.5 * MM, (distance.argmax(), distance.max())
    assert np.median(distance) < 1.5 * MM


def test_landmarks_follow_the_convention_at_rest(face: Face) -> None:
    p = face.landmarks(FaceState())
    mirror = p * np.array([-1, 1, 1], dtype=np.float32)
    for a, b in (
        (0, 16),
        (4, 12),
        (17, 26),
        (21, 22),
        (31, 35),
        (36, 45),
        (39, 42),
        (48, 54),
        (50, 52),
        (60, 64),
        (59, 55),
    ):
        np.testing.assert_allclose(p[a], mirror[b], atol=0.5 * MM)
    assert p[0, 0] < p[17, 0] < p[36, 0] < p[39, 0] < 0 < p[42, 0] < p[45, 0] < p[16, 0]
    assert p[37, 1] > p[36, 1] > p[41, 1] and p[51, 1] > p[57, 1] > p[8, 1]
    np.testing.assert_allclose(p[[48, 54]].mean(axis=0)[:2], MOUTH_CENTRE[:2], atol=2 * MM)


def test_landmarks_move_as_the_state_says(face: Face) -> None:
    rest = face.landmarks(FaceState())

    def gap(p: Floats) -> float:
        return float(p[62, 1] - p[66, 1])

    gaps = [gap(face.landmarks(FaceState(jaw=jaw))) for jaw in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(b > a + MM for a, b in pairwise(gaps))
    assert gap(face.landmarks(FaceState(jaw=0.3, pressed=1.0))) < gap(rest) + 0.5 * MM
    shout = face.landmarks(FaceState(jaw=1.0))
    assert shout[8, 1] < rest[8, 1] - 10 * MM and shout[8, 2] < rest[8, 2]  # the chin goes down and back
    np.testing.assert_allclose(shout[27:36], rest[27:36], atol=0.5 * MM)
    np.testing.assert_allclose(shout[[0, 16]], rest[[0, 16]], atol=0.5 * MM)
    width = {name: np.ptp(face.landmarks(STATES[name])[[48, 54], 0]) for name in ("rest", "oo", "ee")}
    assert width["oo"] < width["rest"] - 10 * MM and width["ee"] > width["rest"] + 5 * MM
    assert (face.landmarks(FaceState(smile=1.0))[[48, 54], 1] > rest[[48, 54], 1] + 2 * MM).all()
    assert (face.landmarks(FaceState(brows=1.0))[17:27, 1] > rest[17:27, 1]).all()
    shut = face.landmarks(FaceState(blink=1.0))
    assert np.abs(shut[37, 1] - shut[41, 1]) < 0.1 * np.abs(rest[37, 1] - rest[41, 1])


def test_the_skull_is_there_for_hair_to_lie_on(face: Face) -> None:
    up, back = np.array([[0.0, 1.0, 0.0]]), np.array([[0.0, 0.2, -1.0]])
    assert abs(skull_radius(up)[0] - CROWN_Y) < 2 * MM
    assert skull_radius(7.0 * back)[0] == pytest.approx(skull_radius(back)[0])
    means = face.surfels(FaceState()).means
    top = means[means[:, 1] > 0.06]
    assert np.abs(np.linalg.norm(top, axis=1) - skull_radius(top)).max() < 6 * MM
