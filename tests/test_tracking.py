from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from degstalk_ns.errors import UserError
from degstalk_ns.landmarks import mesh478 as lm
from degstalk_ns.landmarks.tracker import FaceObservation
from degstalk_ns.preprocess.steps import tracking
from degstalk_ns.preprocess.steps.tracking import TrackingConfig, assemble

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def seen(t: float, second: float = 0.0) -> FaceObservation:
    """A face whose every coordinate is t."""
    return FaceObservation(
        points=np.full((lm.NUM_POINTS, 3), float(t)),
        blendshapes=np.full(52, t / 1000.0),
        second_face_size_ratio=second,
    )


def test_short_gaps_are_filled_in_and_listed() -> None:
    frames: list[FaceObservation | None] = [seen(t) for t in range(100)]
    for t in (0, 40, 41, 42, 99):
        frames[t] = None
    track = assemble(frames, TrackingConfig(smoothing=0.0))
    assert track.gaps == [(0, 0), (40, 42), (99, 99)]
    assert track.valid.sum() == 95 and not track.valid[41]
    expected = np.clip(np.arange(100), 1, 98)  # linear inside, held at the ends
    np.testing.assert_allclose(track.points[:, 7, 1], expected)
    np.testing.assert_allclose(track.blendshapes[:, 3], expected / 1000.0, rtol=1e-6)
    assert track.points.dtype == track.blendshapes.dtype == np.float32


def test_no_gap_no_list() -> None:
    track = assemble([seen(t) for t in range(20)])
    assert track.gaps == [] and track.valid.all() and not track.notes


def test_a_face_lost_too_often_is_refused_with_times() -> None:
    frames = [seen(t) if not 50 <= t < 61 else None for t in range(100)]
    with pytest.raises(UserError, match=r"11 of 100 .*2\.0-2\.4 s"):
        assemble(frames)
    frames[55] = seen(55)
    assert assemble(frames).gaps == [(50, 54), (56, 60)]


@pytest.mark.parametrize("frames", [[], [None] * 20])
def test_nothing_to_follow_is_refused(frames: list) -> None:
    with pytest.raises(UserError):
        assemble(frames)


def test_two_faces_are_refused_with_times_but_a_flash_or_a_bystander_is_not() -> None:
    frames = [seen(t, second=0.9 if 25 <= t < 31 else 0.3) for t in range(100)]
    with pytest.raises(UserError, match=r"two faces .* 6 of 100 .*1\.0-1\.2 s"):
        assemble(frames)
    frames[25] = seen(25)
    (note,) = assemble(frames).notes
    assert "a second face of comparable size is seen in 5 frames (" in note


def test_smoothing_has_no_lag_and_keeps_lines() -> None:
    values = np.zeros((41, 2))
    values[20] = 1.0
    smoothed = tracking.smooth_over_time(values, 0.5)
    np.testing.assert_allclose(smoothed, smoothed[::-1])
    assert smoothed[20, 0] > 0.75 and smoothed.sum() == pytest.approx(2.0)
    line = np.arange(41.0)[:, None] * [[1.0, -2.0]]
    np.testing.assert_allclose(tracking.smooth_over_time(line, 0.5)[4:-4], line[4:-4])


@pytest.mark.skipif(not (SHARED / "data" / "clip_a.mp4").is_file(), reason="needs shared/data/clip_a.mp4")
def test_a_real_face_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setenv("DEGSTALK_MODELS", str(SHARED / "models"))
    done: list[tuple[int, int]] = []
    with av.open(str(SHARED / "data" / "clip_a.mp4")) as container:
        frames = [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), 12)]
    frames[5] = np.zeros_like(frames[5])  # the face is gone for one frame
    config = TrackingConfig(max_lost_fraction=0.2)
    track = tracking.track(frames, len(frames), lambda i, n: done.append((i, n)), config)
    assert done == [(i, 12) for i in range(1, 13)]
    assert track.gaps == [(5, 5)]
    assert track.points.shape == (12, lm.NUM_POINTS, 3) and np.isfinite(track.points).all()
    low, high = track.points[..., :2].min(axis=(0, 1)), track.points[..., :2].max(axis=(0, 1))
    assert (low > 0).all() and (high < 512).all() and (high - low > 150).all()
    assert 0.0 < track.blendshapes.max() <= 1.0
    with pytest.raises(UserError, match="no face"):
        tracking.track([np.zeros((64, 64, 3), np.uint8)] * 3, 3)


def test_a_cut_is_said_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing:
        def __enter__(self) -> "Seeing":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def observe(self, frame: np.ndarray, near: np.ndarray | None) -> FaceObservation:
            return seen(5.0)

    monkeypatch.setattr(tracking, "FaceTracker", Seeing)
    scene = [np.full((40, 40, 3), level, np.uint8) for level in (90, 91) * 15]
    assert tracking.track(scene, 30).notes == ()
    (note,) = tracking.track([*scene, *(frame + np.uint8(70) for frame in scene)], 60).notes
    assert note.startswith("the picture jumps at 1.2 s, as at a cut")
