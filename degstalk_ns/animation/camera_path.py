"""Reads, checks and resamples camera paths that nerfstudio's viewer exported. It must not know nerfstudio or
avatars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from degstalk_ns.avatar.camera import View
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.reading.json_file import is_number, read_json, shown

MOST_CAMERAS: Final[int] = 100_000
"""Cameras of a path: an hour at 25 a second is 90,000."""
_LEAST_ANGLE: Final[float] = 1e-3
"""Degrees. Of a narrower view the focal length has no bound, and nothing could be seen in it."""
_LEAST_RATE: Final[float] = 0.1
"""Cameras per second."""
_HOW = "export it in the Render tab of nerfstudio's viewer"


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera path.

    Attributes:
        c2w: [n, 4, 4] camera to world, OpenGL axes.
        focal: [n] focal lengths, pixels.
        times: [n] moments of the recording in [0, 1], or None.
        width: of the images, pixels.
        height: of the images, pixels.
        rate: cameras per second.
        notes: what of the file has no effect, one line each.
    """

    c2w: NDArray[np.float64]
    focal: NDArray[np.float64]
    times: NDArray[np.float64] | None
    width: int
    height: int
    rate: float
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """How many frames it lasts at 25 a second, played at its own speed."""
        return max(round(len(self.c2w) / self.rate * FRAME_RATE), 1)

    def at(self, frames: int) -> tuple[list[View], NDArray[np.float64] | None]:
        """The path in ``frames`` steps from its first camera to its last: views, and times where it has them."""
        count = len(self.c2w)
        place = np.linspace(0.0, count - 1.0, frames)
        grid = np.arange(count)
        if count == 1:
            poses, focal = self.c2w.repeat(frames, 0), self.focal.repeat(frames)
        else:
            poses = np.tile(np.eye(4), (frames, 1, 1))
            poses[:, :3, :3] = Slerp(grid, Rotation.from_matrix(self.c2w[:, :3, :3]))(place).as_matrix()
            poses[:, :3, 3] = np.stack([np.interp(place, grid, column) for column in self.c2w[:, :3, 3].T], 1)
            focal = np.interp(place, grid, self.focal)
        size, centre = (self.width, self.height), (self.width / 2, self.height / 2)
        views = [
            View.from_c2w(torch.from_numpy(pose).float(), (float(f), float(f)), centre, size)
            for pose, f in zip(poses, focal, strict=True)
        ]
        return views, None if self.times is None else np.interp(place, grid, self.times)


def read_camera_path(path: Path) -> CameraPath:
    """Reads a camera path.

    Raises:
        UserError: missing, not such a file, no cameras, another kind of camera than a pinhole, or bad numbers.
    """
    content = read_json(Path(path), _HOW)
    cameras = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(cameras, list) or not cameras or not all(isinstance(camera, dict) for camera in cameras):
        raise UserError(f'{path}: expected cameras under "camera_path"; {_HOW}')
    if len(cameras) > MOST_CAMERAS:
        raise UserError(f"{path}: {len(cameras)} cameras; at most {MOST_CAMERAS} are accepted")
    kind = str(content.get("camera_type", "perspective")).lower()
    if kind != "perspective":
        raise UserError(f"{path}: cameras of type {kind!r}; only perspective cameras can be rendered")
    width, height = (round(_number(content, key, path)) for key in ("render_width", "render_height"))
    rate = _number(content, "fps", path) if "fps" in content else FRAME_RATE
    if not (1 <= width <= 8192 and 1 <= height <= 8192) or not _LEAST_RATE <= rate <= 1000:
        raise UserError(f"{path}: {width} x {height} pixels at {rate:g} frames a second cannot be rendered")
    poses, focal = [], []
    for number, camera in enumerate(cameras):
        matrix = np.asarray(camera.get("camera_to_world", ()), dtype=object).reshape(-1)
        if len(matrix) != 16 or not all(is_number(value) for value in matrix):
            raise UserError(f'{path}: "camera_to_world" of camera {number} must be 16 finite numbers')
        pose = matrix.astype(np.float64).reshape(4, 4)
        if np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-2 or np.linalg.det(pose[:3, :3]) < 0:
            raise UserError(f'{path}: "camera_to_world" of camera {number} is no rigid motion')
        angle = _number(camera, "fov", path)
        if not _LEAST_ANGLE <= angle < 180:
            raise UserError(
                f'{path}: "fov" of camera {number} must lie between {_LEAST_ANGLE:g} and 180 degrees, got {angle:g}'
            )
        poses.append(pose)
        focal.append(height / 2 / math.tan(math.radians(angle) / 2))
    timed = all("render_time" in camera for camera in cameras)
    times = np.array([_number(camera, "render_time", path) for camera in cameras]) if timed else None
    if times is not None and (times.min() < 0 or times.max() > 1):
        raise UserError(f'{path}: "render_time" must lie in 0..1, got {times.min():g} to {times.max():g}')
    notes = (f'{path}: its "crop" has no effect: a head is rendered whole',) if content.get("crop") is not None else ()
    return CameraPath(np.stack(poses), np.array(focal), times, width, height, rate, notes)


def _number(content: dict[str, Any], key: str, path: Path) -> float:
    value = content.get(key)
    if not is_number(value):
        raise UserError(f'{path}: "{key}" must be a finite number, got {shown(value)}; {_HOW}')
    return float(value)  # type: ignore[arg-type]
