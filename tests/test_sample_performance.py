"""How the sample head acts."""

from __future__ import annotations

import numpy as np
import pytest

from degstalk_ns.landmarks.blendshapes import BLENDSHAPES, driving_signals
from degstalk_ns.sample.acting.performance import Performance, blendshapes, perform
from degstalk_ns.sample.acting.script import articulation, write_script
from degstalk_ns.sample.body.surfels import NECK_PIVOT

FRAMES = 750


@pytest.fixture(scope="module")
def performance() -> Performance:
    return perform(write_script(FRAMES / 25, 3), FRAMES, 3)


def test_every_value_is_in_its_range(performance: Performance) -> None:
    for name in ("jaw", "rounded", "spread", "pressed", "tongue", "blink"):
        values = performance.values(name)
        assert values.min() >= 0 and values.max() <= 1 and values.max() > 0.5
    for name in ("smile", "brows"):
        assert np.abs(performance.values(name)).max() <= 1
    assert np.abs(performance.values("gaze")).max() < 0.5


def test_the_mouth_is_the_script_s(performance: Performance) -> None:
    curves = articulation(write_script(FRAMES / 25, 3), np.arange(FRAMES) / 25)
    for name, curve in curves.items():
        np.testing.assert_allclose(performance.values(name), curve)


def test_blinks_come_every_few_seconds_and_close_the_eyes(performance: Performance) -> None:
    blink = performance.values("blink")
    starts = np.flatnonzero((blink[1:] > 0.05) & (blink[:-1] <= 0.05))
    assert FRAMES / 25 / 5 - 1 <= len(starts) <= FRAMES / 25 / 2
    for start in starts[:-1]:
        assert blink[start : start + 8].max() > 0.99
    assert (blink == 0).mean() > 0.85


def test_the_head_turns_rigidly_and_smoothly_about_the_neck(performance: Performance) -> None:
    poses = performance.room_from_head.astype(float)
    rotations = poses[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (FRAMES, 1, 1)), atol=1e-5)
    yaw = np.degrees(np.arctan2(rotations[:, 0, 2], rotations[:, 2, 2]))
    pitch = np.degrees(np.arcsin(rotations[:, 1, 2]))
    roll = np.degrees(np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1]))
    for angle, least, most in ((yaw, 6, 10.5), (pitch, 3, 7), (roll, 1.5, 3.5)):
        assert least < np.abs(angle).max() < most
        assert np.abs(np.diff(angle)).max() < 1.0
        assert np.abs(np.diff(angle, 2)).max() < 0.2
    joint = rotations @ np.array(NECK_PIVOT) + poses[:, :3, 3] - np.array(NECK_PIVOT)
    assert np.abs(joint).max() < 0.006


def test_the_head_nods_on_stresses() -> None:
    script = write_script(30.0, 3)
    rotations = perform(script, 750, 3).room_from_head[:, :3, :3]
    pitch = np.degrees(np.arcsin(rotations[:, 1, 2]))
    quick = pitch - np.convolve(np.pad(pitch, 25, mode="edge"), np.ones(51) / 51, mode="valid")
    at = [round(time * 25) for time, stress in script.stresses() if stress > 0.7]
    assert quick[at].mean() < -0.2


def test_blendshapes_name_what_moves(performance: Performance) -> None:
    shapes = blendshapes(performance)
    assert shapes.shape == (FRAMES, 52) and shapes.min() >= 0 and shapes.max() <= 1

    def column(name: str) -> np.ndarray:
        return shapes[:, BLENDSHAPES.index(name)]

    np.testing.assert_allclose(column("jawOpen"), performance.values("jaw"), rtol=1e-6)
    np.testing.assert_allclose(column("eyeBlinkLeft"), performance.values("blink"), rtol=1e-6)
    right = performance.values("gaze")[:, 0] > 0.02  # to the picture's right: the subject's left
    assert (column("eyeLookOutLeft")[right] > 0).all() and (column("eyeLookInLeft")[right] == 0).all()
    assert (column("eyeLookInRight")[right] > 0).all()
    signals = driving_signals(shapes, np.zeros(FRAMES))
    assert signals.expression_params.shape == (FRAMES, 50)
    np.testing.assert_array_equal(signals.jaw_params[:, 0], column("jawOpen"))
    assert not signals.jaw_params[:, 1:].any()


def test_the_seed_decides(performance: Performance) -> None:
    script = write_script(FRAMES / 25, 3)
    again, other = perform(script, FRAMES, 3), perform(script, FRAMES, 4)
    assert again.states == performance.states
    np.testing.assert_array_equal(again.room_from_head, performance.room_from_head)
    assert np.abs(other.room_from_head - performance.room_from_head).max() > 0.01
