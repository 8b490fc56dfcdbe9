"""Hooks into nerfstudio's viewer, live during `ns-train` and in `ns-viewer`: every page that opens gets a session.

nerfstudio finds this object on the pipeline when it makes its viewer. Nothing runs while no page is open.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import viser
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl

from degstalk_ns.animation.animation import Animation
from degstalk_ns.audio.sound import SoundLimits, load_sound
from degstalk_ns.errors import one_line_errors
from degstalk_ns.kernels.memory import keep_freed_memory
from degstalk_ns.plugin.model import COMPUTED_AT_ONCE, DegstalkModel
from degstalk_ns.viewer.access import TOKEN_NAME, check_guard, guard_servers, is_local, let_share, page_token
from degstalk_ns.viewer.painter import FreeCamera, bounded_side
from degstalk_ns.viewer.panel import RECORDED
from degstalk_ns.viewer.session import Session
from degstalk_ns.viewer.sliders import Control, controls
from degstalk_ns.viewer.viser_patches import (
    connection_of,
    end_quietly,
    forget_camera_callbacks,
    has_left,
    mend,
    spare_compression,
)

LONGEST_MINUTES: float = 10.0
"""Of a sound that a page sends: its samples stay in memory, here and in the page."""
LARGEST_MEGABYTES: float = 64.0
"""Of a sound file that a page sends; it is held in memory while it is decoded."""


class YieldingStateMachine(RenderStateMachine):
    """nerfstudio's drawing thread of a page, which rests while our session draws, or has nothing but news for it."""

    def __init__(self, viewer: Viewer, client: viser.ClientHandle, session: Session, tidy: Callable[[], None]) -> None:
        super().__init__(viewer, VISER_NERFSTUDIO_SCALE_RATIO, client)
        self._session = session
        self._tidy = tidy

    def _render_img(self, camera_state: CameraState) -> Any:
        """nerfstudio lets the training go on before it reads the outputs: what it will read is computed before."""
        panel = self.viewer.control_panel
        wanted = [panel.output_render, *[panel.split_output_render] * panel.split, *["depth"] * panel.layer_depth]
        token = COMPUTED_AT_ONCE.set(tuple(wanted))
        try:
            return super()._render_img(camera_state)
        finally:
            COMPUTED_AT_ONCE.reset(token)

    def action(self, action: RenderAction) -> None:
        self._tidy()
        self._session.stand_aside(self.viewer.render_tab_state.preview_render)
        if self._session.yields:
            if action.camera_state.fov > 0:  # nerfstudio begins a preview before it knows the first camera's
                super().action(action)
        elif action.action == "move":
            self._session.camera_moved()
        elif action.action in ("step", "rerender"):
            self._session.redraw()


class TalkingHeadViewer(ViewerControl):
    """Element of the pipeline that nerfstudio's viewer finds and sets up.

    Args:
        model: of the pipeline; it may be in training.
        limits: on the audio files that pages upload.
    """

    def __init__(self, model: DegstalkModel, limits: SoundLimits | None = None) -> None:
        guard_servers()  # before nerfstudio makes one
        self._model = model
        self._limits = limits or SoundLimits(LONGEST_MINUTES, LARGEST_MEGABYTES)
        self._sessions: dict[int, Session] = {}
        self._opening = threading.Lock()
        self._frustums_hidden = False

    def _setup(self, viewer: Viewer) -> None:
        super()._setup(viewer)
        keep_freed_memory()
        server = viewer.viser_server
        with one_line_errors():
            check_guard(server)
        let_share(server)
        self._say_where(server, viewer.config.websocket_port or viewer.config.websocket_port_default)
        spare_compression(server)
        end_quietly(server)
        mend(connection_of(server))
        server.on_client_connect(self._opened)
        server.on_client_disconnect(self._left)
        # A page of an earlier run reconnects by itself, perhaps before this line.
        for client in server.get_clients().values():
            self._opened(client)

    @staticmethod
    def _say_where(server: viser.ViserServer, asked: int) -> None:
        """That the port is another one than was asked for, which viser takes without a word; and what pages on other
        machines need, where they may connect at all."""
        port = server.get_port()
        if port != asked:
            line = f"note: port {asked} is taken, perhaps by another viewer; this one is at http://localhost:{port}"
            CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)
        if not is_local(server.get_host()):
            address = f"http://{socket.gethostname()}:{port}/?{TOKEN_NAME}={page_token()}"
            CONSOLE.print(
                f"note: the viewer is open to other machines. Whoever has this address can see and use it: {address}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    # --- pages ------------------------------------------------------------------------------------------------------

    def _opened(self, client: viser.ClientHandle) -> None:
        with self._opening:
            if client.client_id in self._sessions:
                return
            mend(connection_of(client))
            if has_left(client):  # it has left before its first word was read
                theirs = self.viewer.render_statemachines.get(client.client_id)
                if theirs is not None:
                    theirs.running = False
                return
            session = Session(
                client,
                self._model,
                lambda: self.viewer.train_lock or contextlib.nullcontext(),
                self._animations,
                self._new_sound,
                self._controls,
                lambda: self._free_camera(client),
                lambda: bounded_side(self.viewer.control_panel.max_res),
                lambda camera, frame: self._place_camera(client, frame) if camera != RECORDED else None,
                self._drawn,
                self._limits,
            )
            self._sessions[client.client_id] = session
        machines = self.viewer.render_statemachines
        theirs = machines.get(client.client_id)
        ours = YieldingStateMachine(self.viewer, client, session, self._hide_frustums)
        if theirs is not None:
            theirs.running = False
        machines[client.client_id] = ours
        ours.start()
        self._place_camera(client, int(next(iter(self._animations.values())).recorded[0]))
        # It may have left meanwhile, when there was nothing to close yet.
        if has_left(client) and self._sessions.pop(client.client_id, None) is not None:
            ours.running = False
            machines.pop(client.client_id, None)
            session.close()

    def _hide_frustums(self) -> None:
        """Once: hundreds of frustums of cameras on one spot hide the head and cost the page much. A button brings them
        back."""
        # A page may come while they are still being made; this is set after them.
        if self._frustums_hidden or getattr(self.viewer, "train_state", None) is None:
            return
        self._frustums_hidden = True
        self.viewer.set_camera_visibility(False)
        self.viewer.hide_images.visible, self.viewer.show_images.visible = False, True

    def _left(self, client: viser.ClientHandle) -> None:
        forget_camera_callbacks(client)  # nerfstudio's fails with what a page said of its camera before it left
        session = self._sessions.pop(client.client_id, None)
        if session is not None:
            session.close()

    def _drawn(self, pixels: int, seconds: float) -> None:
        """nerfstudio divides its time between training and rendering by the speed of rendering."""
        from nerfstudio.utils import writer  # at the top it would import itself, where it is the first of nerfstudio

        if writer.is_initialized() and seconds > 0:
            writer.put_time(
                name=writer.EventName.VIS_RAYS_PER_SEC,
                duration=pixels / seconds,
                step=self.viewer.step,
                avg_over_steps=True,
            )

    # --- cameras ----------------------------------------------------------------------------------------------------

    def _place_camera(self, client: viser.ClientHandle, frame: int) -> None:
        """Put the page's camera where the frame was recorded from, upright, to orbit around the head."""
        c2w = self._model.frames.c2w(frame).numpy()
        with client.atomic():
            client.camera.fov = 2 * math.atan(self._model.recording.height / 2 / self._model.recording.focal)
            client.camera.position = c2w[:3, 3].astype(np.float64) * VISER_NERFSTUDIO_SCALE_RATIO
            client.camera.look_at = np.zeros(3)
            client.camera.up_direction = np.array([0.0, 1.0, 0.0])

    def _free_camera(self, client: viser.ClientHandle) -> FreeCamera:
        state = self.viewer.get_camera_state(client)
        return FreeCamera(state.c2w.float(), float(state.fov), float(state.aspect))

    # --- what can be played -----------------------------------------------------------------------------------------

    @cached_property
    def _animations(self) -> dict[str, Animation]:
        found = [Animation.from_recording(self._model.recording, split) for split in ("train", "val")]
        return {animation.name: animation for animation in found}

    def _new_sound(self, content: bytes, name: str, progress: Callable[[str], None]) -> Animation:
        progress(f"Reading {name} ...")
        sound = load_sound(content, self._limits, name, too_long="cut it, or use degstalk render")
        progress(f"Computing the driving signals for {sound.seconds:.1f} s of audio ...")
        return Animation.from_sound(sound, self._model.recording)

    @cached_property
    def _controls(self) -> list[Control]:
        recording = self._model.recording
        lids, options = recording.eyelids.shape[1], recording.options
        return controls(
            torch.from_numpy(recording.expression.copy()),
            recording.expression_names or None,
            eyelids=lids,
            closed=1.0 if options.signals == "expression" else options.blink_full_scale,
        )
