"""Where the viewer listens: on this machine only, unless the user asks for more. It must not know viewers or methods.

`ns-viewer` builds its own settings, with nerfstudio's default of all interfaces, and hands them to the loaded run's
config; there the default is replaced. What was asked for on the command line stays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from nerfstudio.configs.base_config import ViewerConfig

LOCAL: str = "127.0.0.1"
OPTION: str = "--viewer.websocket-host"


def kept_local(viewer: ViewerConfig, arguments: Sequence[str] | None = None) -> ViewerConfig:
    """The settings, listening on this machine only where the user has not said otherwise.

    Args:
        arguments: of the command line; None is this process's.
    """
    if viewer.websocket_host != ViewerConfig.__dataclass_fields__["websocket_host"].default:
        return viewer  # said already; the command line is not looked at while the methods are being listed
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = any(argument.partition("=")[0].replace("_", "-") == OPTION for argument in arguments)
    return viewer if asked else replace(viewer, websocket_host=LOCAL)
