"""The sample head's hair: where it lies, and how it sways."""

from __future__ import annotations

import numpy as np
import pytest
from sample_views import DISTANCE, FOCAL, REST, SIZE, plain_head, seen, turned

from degstalk_ns.sample.body.bust import body_distance
from degstalk_ns.sample.body.combing import NODES, HairStyle, comb
from degstalk_ns.sample.body.hair import STRANDS, Hair
from degstalk_ns.sample.body.scalp import above_hairline, face_opening
from degstalk_ns.sample.body.surfels import EYE_CENTRES, MOUTH_CENTRE, Floats, Part, Surfels
from degstalk_ns.sample.body.sway import AZIMUTHS, KINDS, LEVELS, simulate_sway

STILL = np.zeros((AZIMUTHS * KINDS, LEVELS, 3), dtype=np.float32)


NOSE_TIP = (0.0, -0.028, 0.096)


@pytest.fixture(scope="module")
def hair() -> Hair:
    return Hair(0)


@pytest.fixture(scope="module")
def at_rest(hair: Hair) -> Surfels:
    return hair.surfels(REST, STILL)


@pytest.fixture(scope="module")
def head() -> Surfels:
    return plain_head()


def shaken(frames: int, start: int, length: int, axis: str = "y", degrees: float = 25.0) -> Floats:
    angles = np.clip((np.arange(frames) - start) / length, 0.0, 1.0) * degrees
    return np.stack([turned(axis, float(angle)) for angle in angles])


def test_surfels_are_sound(at_rest: Surfels) -> None:
    count = len(at_rest)
    assert 40_000 < count < 60_000
    for name, shape in (("means", (count, 3)), ("quats", (count, 4)), ("scales", (count, 3)), ("normals", (count, 3))):
        values = getattr(at_rest, name)
        assert values.shape == shape and values.dtype == np.float32 and np.isfinite(values).all()
    for name in ("gloss", "opacities"):
        values = getattr(at_rest, name)
        assert values.shape == (count,) and values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    assert at_rest.albedo.shape == (count, 3) and at_rest.albedo.min() > 0 and at_rest.albedo.max() < 1
    np.testing.assert_allclose(np.linalg.norm(at_rest.quats, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(at_rest.normals, axis=1), 1, atol=1e-5)
    assert at_rest.parts.dtype == np.uint8 and (at_rest.parts == Part.HAIR).all()
    assert at_rest.scales.min() > 1e-4 and at_rest.scales.max() < 0.015


def test_the_first_axis_runs_along_the_strand(at_rest: Surfels) -> None:
    """A strand's neighbours lie along its surfels' first axis, before and after."""
    strands = at_rest.means[: NODES * 200].reshape(-1, NODES, 3)
    along = strands[:, 2:] - strands[:, :-2]
    along /= np.linalg.norm(along, axis=2, keepdims=True)
    w, x, y, z = at_rest.quats[: NODES * 200].reshape(-1, NODES, 4)[:, 1:-1].transpose(2, 0, 1)
    first = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=2)
    assert np.abs((first * along).sum(axis=2)).min() > 0.999


def test_equal_seeds_equal_bytes(at_rest: Surfels) -> None:
    again, other = Hair(0).surfels(REST, STILL), Hair(1).surfels(REST, STILL)
    for name in ("means", "quats", "albedo", "scales", "opacities"):
        assert getattr(at_rest, name).tobytes() == getattr(again, name).tobytes()
    assert len(other) != len(at_rest) or not np.array_equal(other.means, at_rest.means)


@pytest.mark.parametrize("seed", range(4))
def test_the_face_is_free_and_the_shoulders_are_reached(seed: int) -> None:
    nodes = comb(HairStyle.from_seed(seed), STRANDS, STRANDS // 11, seed).nodes
    x, y, z = nodes.reshape(-1, 3).T
    for place, reach in ((EYE_CENTRES[0], 0.019), (EYE_CENTRES[1], 0.019), (MOUTH_CENTRE, 0.030), (NOSE_TIP, 0.035)):
        in_front = (np.hypot(x - place[0], y - place[1]) < reach) & (z > 0)
        assert not in_front.any(), f"hair in front of {place}"
    assert face_opening(nodes.reshape(-1, 3)).min() > -0.006
    tips = nodes[:, -1, 1]
    assert np.median(tips) < -0.15 and tips.min() > -0.26
    in_front_of_chest = (nodes[:, -1, 2] > 0.0) & (tips < -0.15)
    assert in_front_of_chest.sum() > 0.15 * len(nodes)
    below = nodes[y.reshape(len(nodes), NODES) < -0.08]
    assert body_distance(below).min() > 0.0, "hair inside of neck or shoulders"


@pytest.mark.parametrize("towards", ["front", "left", "right", "top"])
def test_no_scalp_shines_through(at_rest: Surfels, head: Surfels, towards: str) -> None:
    points = head.means.astype(np.float64)
    scalp = above_hairline(points, margin=0.010) > 0
    label = np.stack([scalp, ~scalp], axis=1)
    bald = seen([(head, label)], towards)[..., 0]
    covered = seen([(head, label), (at_rest, np.zeros((len(at_rest), 2)))], towards)[..., 0]
    assert bald.sum() > 500 and bald.max() > 0.99
    assert covered.max() < 0.15 and covered.sum() < 0.03 * bald.sum()


def test_the_face_is_seen_from_the_front(at_rest: Surfels, head: Surfels) -> None:
    image = seen([(head, np.ones((len(head), 1))), (at_rest, np.zeros((len(at_rest), 1)))], "front")
    for x, y, _ in (*EYE_CENTRES, MOUTH_CENTRE, NOSE_TIP):
        column, row = (int(SIZE / 2 + FOCAL / DISTANCE * v) for v in (x, -y))
        assert image[row - 3 : row + 4, column - 6 : column + 7].min() > 0.95


def test_hair_follows_a_turned_head_rigidly_at_the_root(hair: Hair, at_rest: Surfels) -> None:
    pose = turned("y", 20.0)
    moved = hair.surfels(pose, STILL)
    carried = at_rest.means @ pose[:3, :3].T + pose[:3, 3]
    roots = np.arange(0, NODES * 1000, NODES)
    np.testing.assert_allclose(moved.means[roots], carried[roots], atol=1e-5)
    assert body_distance(moved.means[moved.means[:, 1] < -0.09].astype(np.float64)).min() > -0.004


def test_sway_moves_tips_more_than_roots_and_keeps_lengths(hair: Hair, at_rest: Surfels) -> None:
    sway = simulate_sway(shaken(20, 2, 6), 25.0)[8]
    pose = turned("y", 25.0)
    stiff, swung = hair.surfels(pose, STILL), hair.surfels(pose, sway)
    apart = np.linalg.norm(swung.means - stiff.means, axis=1)[: NODES * 1000].reshape(-1, NODES)
    assert apart[:, 0].max() < 1e-6 and apart[:, 3].max() < 1e-3
    assert apart[:, -1].mean() > 0.004 and apart[:, -1].mean() > 2 * apart[:, NODES // 2].mean()
    assert apart.max() < 0.06
    before, after = (
        np.linalg.norm(np.diff(s.means[: NODES * 1000].reshape(-1, NODES, 3), axis=1), axis=2).sum(axis=1)
        for s in (stiff, swung)
    )
    assert np.median(np.abs(after / before - 1)) < 0.02


def test_swinging_hair_stays_out_of_the_face(hair: Hair) -> None:
    poses = np.concatenate([shaken(12, 2, 5), shaken(12, 2, 5)[::-1]])
    sway = simulate_sway(poses, 25.0)
    for frame in (7, 12, 17, 20):
        means = hair.surfels(poses[frame], sway[frame]).means
        local = (means - poses[frame, :3, 3]) @ poses[frame, :3, :3]
        x, y, z = local.T
        for place, reach in ((EYE_CENTRES[0], 0.017), (EYE_CENTRES[1], 0.017), (MOUTH_CENTRE, 0.028)):
            assert not ((np.hypot(x - place[0], y - place[1]) < reach) & (z > 0)).any()


def test_a_still_head_has_still_hair() -> None:
    np.testing.assert_allclose(simulate_sway(np.tile(REST, (30, 1, 1)), 25.0), 0.0, atol=1e-7)
    turned_still = simulate_sway(np.tile(turned("y", 30.0), (30, 1, 1)), 25.0)
    np.testing.assert_allclose(turned_still, 0.0, atol=1e-6)
    tilted = simulate_sway(np.tile(turned("z", 15.0), (30, 1, 1)), 25.0)
    np.testing.assert_allclose(tilted, tilted[:1].repeat(30, axis=0), atol=1e-7)
    assert np.abs(tilted).max() > 0.01, "gravity pulls the hair of a tilted head"


def test_hair_lags_behind_a_turn_then_overshoots_and_settles() -> None:
    rate, start, length = 25.0, 5, 5
    poses = shaken(125, start, length)
    sway = simulate_sway(poses, rate)
    assert sway.shape == (125, AZIMUTHS * KINDS, LEVELS, 3)
    # In front of the face at azimuth 0 a turn about +y carries hair towards +x: lagging is an offset towards -x.
    tip = sway[:, 1, 1, 0]
    assert np.abs(sway[: start + 1]).max() < 1e-6
    assert tip[start + length] < -0.004
    assert tip[start + length :].max() > 0.3 * -tip.min(), "it swings through"
    assert np.abs(sway[-1]).max() < 0.02 * np.abs(sway).max()
    frequencies = [np.argmax(sway[:, kind, 1, 0]) for kind in range(KINDS)]
    assert len(set(frequencies)) == KINDS, "locks of different stiffness swing through at different times"


def test_sway_hardly_depends_on_the_frame_rate() -> None:
    slow = simulate_sway(shaken(50, 5, 10), 25.0)
    fast = simulate_sway(shaken(99, 10, 20), 50.0)[::2]
    assert np.abs(slow - fast).max() < 0.03 * np.abs(slow).max()


def test_bad_input_is_named(hair: Hair) -> None:
    with pytest.raises(ValueError, match="room_from_head"):
        simulate_sway(REST, 25.0)
    with pytest.raises(ValueError, match="frame_rate"):
        simulate_sway(REST[None], 0.0)
    with pytest.raises(ValueError, match="sway"):
        hair.surfels(REST, STILL[:3])
