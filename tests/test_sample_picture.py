"""Drawing, masks and light of the sample."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from degstalk_ns.landmarks.ibug68 import MOUTH_LANDMARKS
from degstalk_ns.sample.acting.performance import Performance
from degstalk_ns.sample.body.rigid import moved
from degstalk_ns.sample.body.surfels import FaceState, Part, Surfels, join
from degstalk_ns.sample.drawing.picture import MASK_REGIONS, Camera, Picture, take
from degstalk_ns.sample.drawing.scene import SampleScene
from degstalk_ns.sample.drawing.shading import LightConfig, shade_surfels, visible_surfels

SIZE = 160
CAMERA = Camera(SIZE)
STILL = np.eye(4, dtype=np.float32)


def _turned(yaw: float) -> np.ndarray:
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0]
    return pose


STATES = (FaceState(), FaceState(jaw=0.75), FaceState(jaw=0.6, smile=0.3))
POSES = np.stack([STILL, STILL, _turned(0.17)])


@pytest.fixture(scope="module")
def scene() -> SampleScene:
    return SampleScene(Performance(STATES, POSES), 0, SIZE)


@pytest.fixture(scope="module")
def pictures(scene: SampleScene) -> list[Picture]:
    return [take(scene.surfels(i), POSES[i], CAMERA, scene.background) for i in range(len(STATES))]


def _region(picture: Picture, name: str) -> np.ndarray:
    return picture.codes == MASK_REGIONS.index(name)


def _pixels(scene: SampleScene, i: int) -> np.ndarray:
    return CAMERA.project(scene.landmarks(i) @ POSES[i, :3, :3].T + POSES[i, :3, 3])


def test_every_region_shows_and_each_pixel_has_one(pictures: list[Picture]) -> None:
    for picture in pictures:
        assert picture.codes.max() < len(MASK_REGIONS)
        shares = {name: _region(picture, name).mean() for name in MASK_REGIONS}
        assert sum(shares.values()) == pytest.approx(1.0)
        for name, least in (("head", 0.1), ("hair", 0.08), ("neck", 0.02), ("torso", 0.05), ("background", 0.3)):
            assert shares[name] > least, name


def test_the_mouth_shows_only_when_it_is_open(pictures: list[Picture]) -> None:
    closed, wide, _ = (_region(picture, "mouth").sum() for picture in pictures)
    assert closed <= 3 and wide > 40
    assert pictures[1].teeth.sum() > 3
    for picture in pictures:
        assert not (picture.teeth & ~_region(picture, "mouth")).any()


@pytest.mark.parametrize("i", [1, 2])
def test_landmarks_lie_on_what_they_mark(scene: SampleScene, pictures: list[Picture], i: int) -> None:
    lips = _pixels(scene, i)[MOUTH_LANDMARKS]
    inner = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.floor(lips[12:]).astype(int)], 1).astype(bool)
    outer = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.floor(lips[:12]).astype(int)], 1).astype(bool)
    mouth = _region(pictures[i], "mouth")
    assert (mouth & inner).sum() > 0.75 * cv2.contourArea(lips[12:].astype(np.float32))
    assert (mouth & cv2.dilate(outer.astype(np.uint8), np.ones((3, 3))).astype(bool)).sum() == mouth.sum()
    face = _region(pictures[i], "head") | mouth
    x, y = np.floor(lips).astype(int).T
    assert face[y, x].all()


def test_the_torso_is_whole_behind_the_head(pictures: list[Picture]) -> None:
    for picture in pictures:
        body = _region(picture, "neck") | _region(picture, "torso")
        assert (picture.torso[..., 3][body] > 100).all()
        hidden = (picture.torso[..., 3] > 250) & (_region(picture, "head") | _region(picture, "hair"))
        assert hidden.sum() > 100
        inside = cv2.erode(body.astype(np.uint8), np.ones((5, 5))).astype(bool)
        difference = np.abs(picture.torso[..., :3][inside].astype(int) - picture.image[inside])
        assert np.median(difference) <= 2


def test_the_background_is_left_alone(scene: SampleScene, pictures: list[Picture]) -> None:
    far = ~cv2.dilate((pictures[0].codes != MASK_REGIONS.index("background")).astype(np.uint8), np.ones((9, 9))).astype(
        bool
    )
    np.testing.assert_array_equal(pictures[0].image[far], scene.background[far])


def test_what_is_left_out_would_not_be_seen(scene: SampleScene) -> None:
    surfels = scene.surfels(2)
    visible, covered = visible_surfels(surfels, POSES[2], CAMERA.eye)
    assert 0.05 < 1 - (visible & ~covered).mean() < 0.6
    # Everything left out, painted green: none of it shows where it matters.
    hidden = ~visible | (covered & (surfels.parts != Part.NECK))
    whole = take(surfels, POSES[2], CAMERA, scene.background)
    green = replace(surfels, albedo=np.where(hidden[:, None], np.float32([0, 1, 0]), surfels.albedo))
    again = take(green, POSES[2], CAMERA, scene.background)
    np.testing.assert_array_equal(whole.image, again.image)


def test_the_stored_pose_projects_as_the_room_does(scene: SampleScene) -> None:
    points, pose = scene.landmarks(2), POSES[2]
    c2w = CAMERA.head_c2w(pose)
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    pixels = SIZE / 2 + CAMERA.focal * local[:, :2] * [1, -1] / -local[:, 2:]
    np.testing.assert_allclose(pixels, _pixels(scene, 2), atol=1e-3)
    homogeneous = np.append(points[30] @ pose[:3, :3].T + pose[:3, 3], 1.0)
    x, y, z, _ = CAMERA.viewmat @ homogeneous
    np.testing.assert_allclose(SIZE / 2 + CAMERA.focal * np.array([x, y]) / z, _pixels(scene, 2)[30], atol=1e-3)


def _patch(normal: tuple[float, float, float], part: Part = Part.HEAD, place: float = 0.05) -> Surfels:
    one = np.ones(1, np.float32)
    return Surfels(
        means=np.float32([[0, 0, place]]),
        quats=np.float32([[1, 0, 0, 0]]),
        scales=np.full((1, 3), 0.001, np.float32),
        normals=np.float32([normal]) / np.float32(np.linalg.norm(normal)),
        albedo=np.full((1, 3), 0.6, np.float32),
        gloss=0 * one,
        opacities=one,
        parts=np.array([part], np.uint8),
    )


def test_light_comes_from_the_upper_left_and_is_warm_there() -> None:
    directions = [(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (0, -1, 0.1)]
    left, right, low, bottom = shade_surfels(join([_patch(d) for d in directions]), STILL, CAMERA.eye)
    assert left.sum() > right.sum() > bottom.sum() and left.sum() > low.sum()
    assert left[0] - left[2] > right[0] - right[2]


def test_gloss_shines_and_hair_shines_across_its_strands() -> None:
    plain = _patch((-0.25, 0.5, 1.0))
    wet = replace(plain, gloss=np.ones(1, np.float32))
    assert shade_surfels(wet, STILL, CAMERA.eye).sum() > shade_surfels(plain, STILL, CAMERA.eye).sum() + 0.3
    strand = replace(wet, parts=np.array([Part.HAIR], np.uint8))
    upright = np.float32([[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]])  # its first axis points up
    away = np.float32([[np.sqrt(0.5), 0, -np.sqrt(0.5), 0]])  # and here at the camera
    assert shade_surfels(replace(strand, quats=upright), STILL, CAMERA.eye).sum() > (
        shade_surfels(replace(strand, quats=away), STILL, CAMERA.eye).sum() + 0.02
    )


def test_the_head_shades_the_neck_right_under_it() -> None:
    neck = replace(_patch((0, 0, 1), Part.NECK), means=np.float32([[0.01, -0.115, 0.02]]))
    low = replace(neck, means=np.float32([[0.01, -0.40, 0.02]]))
    assert shade_surfels(neck, STILL, CAMERA.eye).sum() < 0.85 * shade_surfels(low, STILL, CAMERA.eye).sum()
    free = LightConfig(shadow=0.0, contact=0.0)
    assert shade_surfels(neck, STILL, CAMERA.eye, free).sum() == pytest.approx(
        shade_surfels(low, STILL, CAMERA.eye, free).sum(), rel=0.05
    )


def test_moved_turns_places_normals_and_axes_alike() -> None:
    pose = _turned(0.7)
    pose[:3, 3] = 0.1, 0.2, 0.3
    before = _patch((1, 2, 3))
    after = moved(before, pose)
    np.testing.assert_allclose(after.means[0], pose[:3, :3] @ before.means[0] + pose[:3, 3], atol=1e-6)
    np.testing.assert_allclose(after.normals[0], pose[:3, :3] @ before.normals[0], atol=1e-6)
    w, x, y, z = after.quats[0]
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    np.testing.assert_allclose(first, pose[:3, 0], atol=1e-6)


def test_bits_do_not_depend_on_the_number_of_threads(scene: SampleScene, pictures: list[Picture]) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = take(scene.surfels(2), POSES[2], CAMERA, scene.background)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(again.image, pictures[2].image)
    np.testing.assert_array_equal(again.torso, pictures[2].torso)


PROGRAM = """
import sys, numpy as np
from degstalk_ns.sample.drawing.shading import visible_surfels, shade_surfels
from degstalk_ns.sample.body.surfels import Surfels
random = np.random.default_rng(0)
def draw(*shape): return random.normal(size=shape).astype(np.float32)
def unit(array): return array / np.linalg.norm(array, axis=1, keepdims=True)
n = 5000
amounts = [random.random(n, np.float32) for _ in range(2)]
albedo, parts = random.random((n, 3), np.float32), random.integers(0, 6, n).astype(np.uint8)
surfels = Surfels(0.1 * draw(n, 3), unit(draw(n, 4)), np.abs(draw(n, 3)), unit(draw(n, 3)), albedo, *amounts, parts)
eye, pose = np.float32([0, 0, 1.2]), np.eye(4, dtype=np.float32)
np.savez(sys.argv[1], shade_surfels(surfels, pose, eye), *visible_surfels(surfels, pose, eye))
"""


def test_the_kernels_cache_holds_the_code_that_was_compiled(tmp_path: Path) -> None:
    results = []
    for name in ("compiling.npz", "loading.npz"):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / name)], env=environment, check=True)
        results.append(np.load(tmp_path / name))
    assert list((tmp_path / "cache").rglob("*.nbi"))
    for key in results[0].files:
        np.testing.assert_array_equal(results[0][key], results[1][key])
