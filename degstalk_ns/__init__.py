"""degstalk-ns: talking portraits by deformable Gaussian splatting with long hair kept intact, inside nerfstudio.

The names below are the public Python API; `docs/python.md` shows them at work. Each is imported when it is first used,
so `import degstalk_ns` is cheap, and nerfstudio is needed by :func:`load_run` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from degstalk_ns.animation.animation import Animation
    from degstalk_ns.animation.camera_path import read_camera_path
    from degstalk_ns.audio.sound import load_sound
    from degstalk_ns.avatar.avatar import Avatar, AvatarConfig
    from degstalk_ns.avatar.camera import View
    from degstalk_ns.avatar.driving import Conditions, DrivingTrack
    from degstalk_ns.avatar.renderer import FrameRenderer
    from degstalk_ns.avatar.splat_files import load_ply, save_ply
    from degstalk_ns.dataparsers.frame import read_frame
    from degstalk_ns.dataparsers.recording import read_recording
    from degstalk_ns.errors import UserError
    from degstalk_ns.export.render import render_frames, render_video
    from degstalk_ns.metrics.talking import measure_talking
    from degstalk_ns.plugin.runs import load_run
    from degstalk_ns.rasterization import rasterize, spherical_harmonics

__version__ = "0.1.0"

_HOMES = {
    "Animation": "animation.animation",
    "Avatar": "avatar.avatar",
    "AvatarConfig": "avatar.avatar",
    "Conditions": "avatar.driving",
    "DrivingTrack": "avatar.driving",
    "FrameRenderer": "avatar.renderer",
    "UserError": "errors",
    "View": "avatar.camera",
    "load_ply": "avatar.splat_files",
    "load_run": "plugin.runs",
    "load_sound": "audio.sound",
    "measure_talking": "metrics.talking",
    "rasterize": "rasterization",
    "read_camera_path": "animation.camera_path",
    "read_frame": "dataparsers.frame",
    "read_recording": "dataparsers.recording",
    "render_frames": "export.render",
    "render_video": "export.render",
    "save_ply": "avatar.splat_files",
    "spherical_harmonics": "rasterization",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Animation",
    "Avatar",
    "AvatarConfig",
    "Conditions",
    "DrivingTrack",
    "FrameRenderer",
    "UserError",
    "View",
    "__version__",
    "load_ply",
    "load_run",
    "load_sound",
    "measure_talking",
    "rasterize",
    "read_camera_path",
    "read_frame",
    "read_recording",
    "render_frames",
    "render_video",
    "save_ply",
    "spherical_harmonics",
]


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
