from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from degstalk_ns.animation.camera_path import read_camera_path
from degstalk_ns.errors import UserError


def _path(cameras: int = 5, times: bool = True, **changes: Any) -> dict[str, Any]:
    poses = []
    for k in range(cameras):
        angle = 0.1 * k
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = pose[:3, 2] * 0.7
        entry: dict[str, Any] = {"camera_to_world": pose.flatten().tolist(), "fov": 24.0, "aspect": 1.0}
        if times:
            entry["render_time"] = k / max(cameras - 1, 1)
        poses.append(entry)
    content = {"camera_type": "perspective", "render_width": 64, "render_height": 48, "fps": 5, "camera_path": poses}
    return content | changes


def _written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "path.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_path_is_resampled_smoothly(tmp_path: Path) -> None:
    path = read_camera_path(_written(tmp_path, _path()))
    assert path.frames == 25
    views, times = path.at(25)
    assert times is not None and np.allclose(times, np.linspace(0, 1, 25))
    places = np.stack([-(view.viewmat[:3, :3].T @ view.viewmat[:3, 3]).numpy() for view in views])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1
    for view in views:
        assert np.allclose(view.viewmat[:3, :3] @ view.viewmat[:3, :3].T, np.eye(3), atol=1e-5)
    assert float(views[0].K[0, 0]) == pytest.approx(24 / np.tan(np.radians(12)))
    assert (views[0].width, views[0].height) == (64, 48)


def test_as_nerfstudio_reads_it(tmp_path: Path) -> None:
    from nerfstudio.cameras.camera_paths import get_path_from_json

    content = _path()
    theirs = get_path_from_json(content)
    ours = read_camera_path(_written(tmp_path, content))
    assert np.allclose(ours.c2w[:, :3], theirs.camera_to_worlds, atol=1e-6)
    assert np.allclose(ours.focal, theirs.fx[:, 0])
    assert ours.times is not None and np.allclose(ours.times, theirs.times[:, 0])


def test_one_camera_without_times_stands_still(tmp_path: Path) -> None:
    path = read_camera_path(_written(tmp_path, _path(1, times=False)))
    views, times = path.at(3)
    assert times is None and len(views) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("[]", "expected cameras"),
        (_path(0), "expected cameras"),
        (_path(camera_type="fisheye"), "'fisheye'"),
        (_path(render_width=None), '"render_width" must be a finite number'),
        (_path(render_width=100_000), "cannot be rendered"),
        (_path(camera_path=[{"camera_to_world": [1, 2], "fov": 24}]), "16 finite numbers"),
        (_path(camera_path=[{"camera_to_world": [1] * 16, "fov": 24}]), "no rigid motion"),
        *(
            (
                _path(camera_path=[{"camera_to_world": np.eye(4).flatten().tolist(), "fov": fov}]),
                "between 0.001 and 180",
            )
            for fov in (180, 5e-324, 0)
        ),
        (_path(fps=1e-300), "cannot be rendered"),
        (_path(camera_path=[{**_path(1)["camera_path"][0], "render_time": 2.0}]), "must lie in 0..1"),
    ],
)
def test_bad_paths_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_camera_path(_written(tmp_path, content))
    assert words in str(caught.value) and "path.json" in str(caught.value)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        read_camera_path(tmp_path / "nowhere.json")


def test_a_crop_is_said_to_have_no_effect(tmp_path: Path) -> None:
    crop = {"crop_center": [0, 0, 0], "crop_scale": [1, 1, 1]}
    (said,) = read_camera_path(_written(tmp_path, _path(crop=crop))).notes
    assert "path.json" in said and '"crop" has no effect' in said
    assert read_camera_path(_written(tmp_path, _path(crop=None))).notes == ()


def test_a_path_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("degstalk_ns.animation.camera_path.MOST_CAMERAS", 4)
    read_camera_path(_written(tmp_path, _path(4)))
    with pytest.raises(UserError, match="5 cameras; at most 4 are accepted"):
        read_camera_path(_written(tmp_path, _path(5)))
