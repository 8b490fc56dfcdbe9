"""The sample head's neck, shoulders and jumper, and the room behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sample_views import DISTANCE, FOCAL, REST, SIZE, plain_head, seen, turned

from degstalk_ns.sample.body.body import SKIN, Body
from degstalk_ns.sample.body.bust import DistanceGrid, body_distance, gradient, surface_points
from degstalk_ns.sample.body.scalp import head_distance
from degstalk_ns.sample.body.surfels import Floats, Part, Surfels
from degstalk_ns.sample.drawing.background import background


@pytest.fixture(scope="module")
def body() -> Body:
    return Body(0)


@pytest.fixture(scope="module")
def at_rest(body: Body) -> Surfels:
    return body.surfels(REST)


@pytest.fixture(scope="module")
def other() -> Surfels:
    return Body(1, skin=(0.4, 0.28, 0.2)).surfels(REST)


def carried(points: Floats, pose: Floats) -> Floats:
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])


def test_surfels_are_sound(at_rest: Surfels) -> None:
    count = len(at_rest)
    assert 20_000 < count < 70_000
    for name in ("means", "quats", "scales", "normals", "albedo", "gloss", "opacities"):
        values = getattr(at_rest, name)
        assert len(values) == count and values.dtype == np.float32 and np.isfinite(values).all()
    np.testing.assert_allclose(np.linalg.norm(at_rest.quats, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(at_rest.normals, axis=1), 1, atol=1e-5)
    assert set(np.unique(at_rest.parts)) == {Part.NECK, Part.TORSO}
    assert at_rest.albedo.min() >= 0 and at_rest.albedo.max() <= 1
    # The thin axis is the surface's normal.
    neck = at_rest.parts == Part.NECK
    w, x, y, z = at_rest.quats[neck].T
    third = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    assert (third * at_rest.normals[neck]).sum(axis=1).min() > 0.999
    assert (at_rest.scales[:, 2] < 0.3 * at_rest.scales[:, 0]).all()


def test_equal_seeds_equal_bytes(at_rest: Surfels, other: Surfels) -> None:
    again = Body(0).surfels(REST)
    for name in ("means", "quats", "albedo", "normals"):
        assert getattr(at_rest, name).tobytes() == getattr(again, name).tobytes()
    cloth, others = (s.albedo[s.parts == Part.TORSO].mean(axis=0) for s in (at_rest, other))
    assert np.abs(cloth - others).max() > 0.02


def test_the_skin_has_the_colour_asked_for(at_rest: Surfels, other: Surfels) -> None:
    for surfels, skin in ((at_rest, SKIN), (other, (0.4, 0.28, 0.2))):
        brightest = np.percentile(surfels.albedo[surfels.parts == Part.NECK], 95, axis=0)
        np.testing.assert_allclose(brightest, skin, atol=0.05)


@pytest.mark.parametrize(
    "pose", [turned("y", 25.0), turned("x", 15.0), turned("z", -12.0)], ids=["shake", "nod", "tilt"]
)
def test_the_neck_follows_the_head_at_its_top_and_stands_at_its_foot(
    body: Body, at_rest: Surfels, pose: Floats
) -> None:
    moved = body.surfels(pose)
    neck = at_rest.parts == Part.NECK
    y = at_rest.means[:, 1]
    top, foot = neck & (y > -0.074), neck & (y < -0.160)
    assert top.sum() > 1000 and foot.sum() > 1000
    np.testing.assert_allclose(moved.means[top], carried(at_rest.means, pose)[top], atol=2e-5)
    np.testing.assert_allclose(moved.normals[top], (at_rest.normals @ pose[:3, :3].T)[top], atol=1e-4)
    np.testing.assert_allclose(moved.means[foot], at_rest.means[foot], atol=1e-6)
    assert np.array_equal(moved.means[~neck], at_rest.means[~neck])
    # The bend is even: neighbours stay neighbours.
    middle = np.flatnonzero(neck & (np.abs(y + 0.115) < 0.02))
    near = middle[np.argsort(np.linalg.norm(at_rest.means[middle] - at_rest.means[middle[0]], axis=1))[1:9]]
    gaps = [np.linalg.norm(s.means[near] - s.means[middle[0]], axis=1) for s in (at_rest, moved)]
    np.testing.assert_allclose(gaps[1], gaps[0], rtol=0.35)


def test_the_stump_ends_inside_the_head(at_rest: Surfels) -> None:
    """As far as the camera could see its rim, it lies in the jaw; the nape behind is hidden by it."""
    neck = at_rest.means[at_rest.parts == Part.NECK].astype(np.float64)
    assert neck[:, 1].max() == pytest.approx(-0.064, abs=0.002)
    rim = neck[(neck[:, 1] > -0.070) & (neck[:, 2] > 0.0)]
    assert len(rim) > 300 and head_distance(rim).max() < 0.0


@pytest.mark.parametrize("pose", [turned("y", 28.0), turned("x", -18.0), turned("x", 18.0), turned("z", 15.0)], ids=str)
def test_no_gap_opens_between_neck_and_head(body: Body, pose: Floats) -> None:
    surfels, head = body.surfels(pose), plain_head()
    head = replace(head, means=carried(head.means, pose), scales=np.full_like(head.scales, 0.0013))
    ones = [(piece, np.ones((len(piece), 1))) for piece in (surfels, head)]
    alpha = seen(ones, "front")[..., 0]
    middle, pixel = SIZE // 2, FOCAL / DISTANCE
    below_the_chin = alpha[int(middle + 0.03 * pixel) :, int(middle - 0.028 * pixel) : int(middle + 0.028 * pixel)]
    assert below_the_chin.min() > 0.97


@pytest.mark.parametrize("pose", [REST, turned("y", 25.0), turned("x", -12.0)], ids=["rest", "shake", "nod"])
def test_the_body_is_closed_and_fills_the_frame_below(body: Body, pose: Floats) -> None:
    surfels = body.surfels(pose)
    neck = (surfels.parts == Part.NECK)[:, None]
    image = seen([(surfels, np.concatenate([neck, ~neck], axis=1))], "front")
    alpha = image.sum(axis=2)
    middle = SIZE // 2
    pixel = FOCAL / DISTANCE  # pixels a metre
    assert alpha[int(middle + 0.085 * pixel) :, middle - 20 : middle + 21].min() > 0.97, "no hole in neck or chest"
    assert alpha[-2, int(middle - 0.15 * pixel) : int(middle + 0.15 * pixel)].min() > 0.97, "cut by the lower edge"
    assert alpha[: int(middle + 0.03 * pixel)].max() < 0.02, "nothing where the head will be"
    assert image[int(middle + 0.12 * pixel), middle, 0] > 0.95 and image[-1, middle, 1] > 0.95


def test_the_body_goes_on_beyond_the_frame(at_rest: Surfels) -> None:
    assert np.abs(at_rest.means[:, 0]).max() > 0.24 and at_rest.means[:, 1].min() < -0.25


def test_points_on_a_surface_are_even() -> None:
    def ball(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points, axis=1) - 0.02

    points, normals = surface_points(ball, np.full(3, -0.03), np.full(3, 0.03), 0.001)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.02, atol=1e-6)
    np.testing.assert_allclose(normals, points / 0.02, atol=1e-4)
    # A column of voxels meets the surface once: between 1 and sqrt(3) square spacings a point.
    area = 4 * np.pi * 0.02**2 / 0.001**2
    assert area / np.sqrt(3) < len(points) < area


def test_a_grid_tells_the_distance_of_its_field() -> None:
    grid = DistanceGrid(body_distance, (-0.12, -0.24, -0.1), (0.12, -0.05, 0.08))
    random = np.random.default_rng(0)
    points = random.uniform((-0.1, -0.2, -0.08), (0.1, -0.1, 0.06), (2000, 3))
    near = np.abs(body_distance(points)) < 0.015
    distances, slopes = grid.look_up(points[near].astype(np.float32))
    assert np.percentile(np.abs(distances - body_distance(points[near])), 98) < 0.0012
    assert np.percentile((slopes * gradient(body_distance, points[near])[0]).sum(axis=1), 2) > 0.9
    assert (grid.look_up(np.float32([[0.0, 0.5, 0.0]]))[0] == 1.0).all()


def test_the_room() -> None:
    room = background(0, 256)
    assert room.shape == (256, 256, 3) and room.dtype == np.uint8
    assert np.array_equal(room, background(0, 256)) and not np.array_equal(room, background(1, 256))
    assert room.astype(float).std() > 12, "not flat"
    assert 60 < room.mean() < 210
    # Out of focus: neighbours differ little; the same room at another size.
    assert np.abs(np.diff(background(0, 512).astype(float), axis=1)).mean() < 4
    small = background(0, 128).astype(float)
    assert np.abs(small - room.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))).mean() < 2
