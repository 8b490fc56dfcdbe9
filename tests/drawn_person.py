"""A drawn, talking person, with stand-ins for the two MediaPipe models that know it, and a dataset made of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from video_files import tone, write_video

from degstalk_ns import model_files
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.blendshapes import BLENDSHAPES
from degstalk_ns.landmarks.tracker import FaceObservation
from degstalk_ns.preprocess import pipeline, products
from degstalk_ns.preprocess.pipeline import ProcessConfig, ProcessSummary, process
from degstalk_ns.preprocess.steps import parsing, poses, tracking

SIZE = 64
FRAMES = 104
CONFIG = ProcessConfig(size=SIZE, workers=2, audio="mel", poses=poses.PoseConfig(iterations=4, reweightings=0))


def turn(i: float) -> float:
    return 0.2 * float(np.sin(i / 9))


SHAPE = np.random.default_rng(1).uniform(-1, 1, (lm.NUM_POINTS, 3)) * (0.07, 0.1, 0.05)
for _rows, _radii, _centre in (
    (lm.FACE_OVAL, (0.07, 0.1), 0.0),
    (lm.LIPS_OUTER, (0.03, 0.02), 0.05),
    (lm.LIPS_INNER, (0.022, 0.012), 0.05),
):
    _angle = np.linspace(0, 2 * np.pi, len(_rows), endpoint=False)
    SHAPE[list(_rows)] = np.stack(
        [_radii[0] * np.sin(_angle), _centre - _radii[1] * np.cos(_angle), np.full(len(_rows), -0.02)], 1
    )
SHAPE[list(lm.RIGHT_EYE_CORNERS), 0] = (-0.045, -0.018)
SHAPE[list(lm.LEFT_EYE_CORNERS), 0] = (0.045, 0.018)
SHAPE[list(lm.RIGHT_EYE_CORNERS + lm.LEFT_EYE_CORNERS), 1:] = (-0.03, -0.03)


def face_points(i: float) -> np.ndarray:
    """Landmarks of frame ``i`` in a 64 x 64 picture: the rigid shape, turned."""
    c, s = np.cos(turn(i)), np.sin(turn(i))
    points = SHAPE @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    return points * 220 + (SIZE / 2, SIZE / 2, 0)


class DrawnFaceTracker:
    """Reads the frame's number from the shade of a corner, and knows the face of that frame."""

    absent: ClassVar[set[int]] = set()
    two: bool = False
    calls = 0

    def __enter__(self) -> DrawnFaceTracker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def observe(self, frame: np.ndarray, near: np.ndarray | None = None) -> FaceObservation | None:
        DrawnFaceTracker.calls += 1
        i = round(float(frame[2:6, 2:6].mean()) / 2)
        if i in self.absent:
            return None
        return FaceObservation(
            points=face_points(i) * (frame.shape[0] / SIZE),
            blendshapes=np.full(len(BLENDSHAPES), 0.1),
            second_face_size_ratio=0.9 * self.two,
        )


class DrawnSegmenter:
    """The drawn person by its colours: classes as MediaPipe's segmenter numbers them."""

    COLOURS = ((90, 90, 90), (60, 40, 20), (200, 140, 110), (230, 180, 150), (20, 40, 120))
    calls = 0
    fail_at: int | None = None

    def __init__(self, model: Path) -> None:
        pass

    def confidences(self, frame: np.ndarray) -> np.ndarray:
        DrawnSegmenter.calls += 1
        if DrawnSegmenter.calls == self.fail_at:
            raise KeyboardInterrupt
        distance = [np.abs(frame.astype(int) - colour).sum(-1) for colour in self.COLOURS]
        return np.eye(6, dtype=np.float32)[np.argmin(distance, 0)]

    def close(self) -> None:
        pass


def picture(i: int) -> np.ndarray:
    wall, hair, neck, face, shirt = DrawnSegmenter.COLOURS
    image = np.full((SIZE, SIZE, 3), wall, np.uint8)
    image[54:, 8:56] = shirt
    image[46:56, 24:40] = neck
    image[8:30, 14:50] = hair
    outline = face_points(i)[list(lm.FACE_OVAL), :2].astype(np.float32)
    image[parsing.fill_polygon(outline, SIZE, SIZE)] = face
    image[:8, :8] = 2 * i
    return image


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (tracking, pipeline):
        monkeypatch.setattr(module, "FaceTracker", DrawnFaceTracker)
    monkeypatch.setattr(products, "Segmenter", DrawnSegmenter)
    for name in ("face_landmarker", "selfie_segmenter"):
        monkeypatch.setattr(model_files, name, lambda: Path("unused"))
    DrawnFaceTracker.absent, DrawnFaceTracker.two, DrawnFaceTracker.calls = set(), False, 0
    DrawnSegmenter.calls, DrawnSegmenter.fail_at = 0, None
    yield


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "talk.mkv"
    times = [i / 25 for i in range(FRAMES)]
    return write_video(path, times, [picture(i) for i in range(FRAMES)], tone(FRAMES / 25))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, video: Path) -> tuple[Path, ProcessSummary]:
    """One finished dataset; read it only."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (tracking, pipeline):
            patch.setattr(module, "FaceTracker", DrawnFaceTracker)
        patch.setattr(products, "Segmenter", DrawnSegmenter)
        for name in ("face_landmarker", "selfie_segmenter"):
            patch.setattr(model_files, name, lambda: Path("unused"))
        output = tmp_path_factory.mktemp("made") / "deep" / "me"
        return output, process(video, output, CONFIG)


@pytest.fixture
def copy(made: tuple[Path, ProcessSummary], tmp_path: Path) -> Path:
    return shutil.copytree(made[0], tmp_path / "me")
