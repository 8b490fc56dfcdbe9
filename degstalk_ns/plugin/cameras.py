"""Adapter to nerfstudio's cameras: a camera as a view of the core, and the row of the recording that it shows.

It must not know models or training. No mathematics of its own.
"""

from __future__ import annotations

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE

from degstalk_ns.animation.frames import FrameSource
from degstalk_ns.avatar.camera import View, nearest_moment
from degstalk_ns.avatar.driving import DrivingTrack


def view_of(camera: Cameras, device: torch.device) -> View:
    """One camera of nerfstudio as a view on ``device``."""
    return View.from_c2w(
        camera.camera_to_worlds.to(device).float(),
        (float(camera.fx), float(camera.fy)),
        (float(camera.cx), float(camera.cy)),
        (int(camera.width), int(camera.height)),
    )


class Moments:
    """Finds the moment of the recording that a camera shows: by its time or, without one, by its place on the recorded
    camera path.

    Args:
        frames: of the recording.
    """

    def __init__(self, frames: FrameSource) -> None:
        self._rows, self._path = frames.path()
        self._off_path_said = False

    def row(self, camera: Cameras, track: DrivingTrack) -> int:
        """The row of ``track`` that one camera shows. A camera without a time that lies off the recorded path shows the
        first recorded row; a message says so once."""
        if camera.times is not None:
            return track.frame_at(float(camera.times))
        # nerfstudio's interpolated paths carry no times: the pose tells the moment.
        moment = nearest_moment(camera.camera_to_worlds.cpu(), self._path)
        if moment is None and not self._off_path_said:
            self._off_path_said = True
            CONSOLE.print(
                "[yellow]A camera without a time lies off the recorded path: it shows the recording's first frame."
            )
        return int(self._rows[0 if moment is None else round(moment)])
