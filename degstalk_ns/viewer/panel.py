"""The control panel of one page: timeline, display options and expression sliders. It reports every choice to one
listener; the play bar and the waveform react in the browser (`page.js`).

It must not know how anything is rendered or played.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import viser
from numpy.typing import NDArray

from degstalk_ns.animation.animation import Animation
from degstalk_ns.frame_rate import FRAME_RATE
from degstalk_ns.viewer.display import OUTPUTS, TRUTHS, DisplayOptions
from degstalk_ns.viewer.sliders import Control
from degstalk_ns.viewer.waveform import png, waveform_picture

RECORDED, FREE, OWN = "recorded camera", "free camera", "nerfstudio's own view"
CAMERAS: tuple[str, str, str] = (RECORDED, FREE, OWN)
SOUND_TYPES: str = "audio/*,.wav,.mp3,.flac,.ogg,.opus,.m4a,.aac"
STEP: float = 0.01
"""Step of the expression sliders. Coefficients are of the order of 1, and more digits do not fit beside the slider."""
_ABOVE: float = -1000.0
"""Sort order of the first folder: above nerfstudio's own controls, which count from 0."""


class Listener(Protocol):
    """Receiver of the choices that a person makes on the panel."""

    def scrubbed(self, seconds: float) -> None: ...
    def driver_chosen(self, name: str) -> None: ...
    def file_sent(self, name: str, content: bytes) -> None: ...
    def options_changed(self) -> None: ...
    def camera_chosen(self, camera: str) -> None: ...


class Panel:
    """Controls of one page.

    Args:
        gui: of the page.
        listener: receives the choices.
        drivers: names of the animations that can be played at the start.
        controls: sliders for the expression.
        colour: initial background colour, RGB 0..255.
    """

    def __init__(
        self,
        gui: viser.GuiApi,
        listener: Listener,
        drivers: Sequence[str],
        controls: Sequence[Control],
        colour: tuple[int, int, int],
    ) -> None:
        self._gui = gui
        self._listener = listener
        self._told: float | None = None
        self._last = 0.0
        self.overrides: dict[Control, float] = {}
        self._timeline = gui.add_folder("Talking head", order=_ABOVE)
        with self._timeline:
            self._play_bar = gui.add_markdown("", order=0)
            self.driver = gui.add_dropdown("Driven by", tuple(drivers), order=2)
            self.upload = gui.add_upload_button(
                "Load an audio file", icon=viser.Icon.UPLOAD, color="gray", mime_type=SOUND_TYPES, order=3
            )
        self._time: Any = None
        self.driver.on_update(_by_hand(lambda: listener.driver_chosen(self.driver.value)))

        @self.upload.on_upload
        def _(event: Any) -> None:
            listener.file_sent(event.target.value.name, event.target.value.content)

        with gui.add_folder("Display", order=_ABOVE + 1):
            self.camera = gui.add_dropdown(
                "Camera", CAMERAS, hint="Recorded camera: with the recorded background. Free camera: drag to orbit."
            )
            self.output = gui.add_dropdown("Output", OUTPUTS)
            self.truth = gui.add_dropdown(
                "Recorded frame", TRUTHS, hint="Side by side: on the right. Wipe: left of the line."
            )
            self.wipe = gui.add_slider("Wipe", 0.0, 1.0, 0.01, 0.5, visible=False)
            self.face = gui.add_checkbox("Face", True)
            self.mouth = gui.add_checkbox("Mouth", True)
            self.plate = gui.add_checkbox(
                "Background image", True, hint="Everything in the recording but the face, also called the plate."
            )
            self.colour = gui.add_rgb("Background colour", colour, visible=False)
        self.camera.on_update(_by_hand(self._camera_chosen))
        for handle in (self.output, self.truth, self.wipe, self.face, self.mouth, self.plate, self.colour):
            handle.on_update(_by_hand(self._options_changed))

        self._sliders: dict[Control, Any] = {}
        with gui.add_folder("Expression", order=_ABOVE + 2, expand_by_default=False):
            for control in controls:
                slider = gui.add_slider(control.label, control.lowest, control.highest, STEP, control.usual)
                slider.on_update(_by_hand(self._overrider(control, slider)))
                self._sliders[control] = slider
            self.reset = gui.add_button("Reset to the recording", icon=viser.Icon.ARROW_BACK_UP, color="gray")
        self.reset.on_click(lambda _: self._reset())

    # --- what is chosen ---------------------------------------------------------------------------------------------

    def options(self) -> DisplayOptions:
        """The display options that are chosen now."""
        return DisplayOptions(
            output=self.output.value,
            face=self.face.value,
            mouth=self.mouth.value,
            plate=self.plate.value,
            truth=self.truth.value,
            wipe=self.wipe.value,
        )

    def _camera_chosen(self) -> None:
        self._show_what_matters()
        self._listener.camera_chosen(self.camera.value)

    def _options_changed(self) -> None:
        self._show_what_matters()
        self._listener.options_changed()

    def _show_what_matters(self) -> None:
        recorded = self.camera.value == RECORDED
        ours = self.camera.value != OWN
        for handle in (self.output, self.face, self.mouth):
            handle.visible = ours
        self.wipe.visible = recorded and self.truth.value == TRUTHS[2]
        self.truth.visible = recorded
        self.plate.visible = recorded
        self.colour.visible = self.camera.value == FREE or (recorded and not self.plate.value)

    def _overrider(self, control: Control, slider: Any) -> Callable[[], None]:
        def override() -> None:
            self.overrides = {**self.overrides, control: float(slider.value)}
            self._listener.options_changed()

        return override

    def _reset(self) -> None:
        self.overrides = {}
        for control, slider in self._sliders.items():
            slider.value = control.usual
        self._listener.options_changed()

    # --- what is shown ----------------------------------------------------------------------------------------------

    def show_sound(self, waveform: NDArray[np.float32], animation: Animation) -> None:
        """Shows the waveform and the time slider of another animation."""
        picture = base64.b64encode(png(waveform_picture(waveform))).decode()
        self._play_bar.content = _PLAY_BAR.replace("PICTURE", picture)
        if self._time is not None:
            self._time.remove()
        self._last = last = animation.seconds_of(len(animation) - 1)
        with self._timeline:
            slider = self._gui.add_slider(
                "Time (s)", 0.0, max(last, 1e-3), 1 / FRAME_RATE, 0.0, order=1, disabled=len(animation) == 1
            )
        self._time, self._told = slider, 0.0

        @slider.on_update
        def _(event: Any) -> None:
            # The page also tells of values that it was told.
            if event.client_id is not None and (self._told is None or abs(slider.value - self._told) > 1e-6):
                self._told = None
                self._listener.scrubbed(float(slider.value))

    def show_time(self, seconds: float) -> None:
        """Moves the time slider."""
        slider = self._time
        self._told = round(min(max(seconds, 0.0), self._last), 4)
        with suppress(KeyError):  # another sound has come meanwhile
            slider.value = self._told

    def show_drivers(self, names: Sequence[str], chosen: str) -> None:
        """Lists what can be played, and selects ``chosen``."""
        self.driver.options = tuple(names)
        self.driver.value = chosen


def _by_hand(react: Callable[[], None]) -> Callable[[Any], None]:
    """Reacts only to changes that a person made; changes that the server made come from no page."""

    def wrapped(event: Any) -> None:
        if event.client_id is not None:
            react()

    return wrapped


_ICONS = {
    "back": "M13 2 6 8l7 6zM3 2h2v12H3z",
    "forward": "M3 2l7 6-7 6zM11 2h2v12h-2z",
    "play": "M3 1.5v13L14 8z",
    "pause": "M3 2h3.5v12H3zM9.5 2H13v12H9.5z",
    "loop": "M4 4h7V1.5L15 5l-4 3.5V6H4a1.5 1.5 0 0 0-1.5 1.5V9h-2V7.5A3.5 3.5 0 0 1 4 4zM12 12H5v2.5L1 11l4-3.5V10h7"
    "a1.5 1.5 0 0 0 1.5-1.5V7h2v1.5A3.5 3.5 0 0 1 12 12z",
}


def _icon(name: str, shown: str = "") -> str:
    return f'<svg viewBox="0 0 16 16" className="{shown}"><path d="{_ICONS[name]}" /></svg>'


def _button(name: str, label: str, content: str, more: str = "") -> str:
    return (
        f'<button type="button" data-degstalk="{name}" aria-label="{label}" title="{label}" {more}>{content}</button>'
    )


_PLAY_BAR = "".join(
    [
        '<div className="degstalk-box">',
        '<div className="degstalk-wave" data-degstalk="wave" title="Click or drag to go to a moment">',
        '<img src="data:image/png;base64,PICTURE" alt="Waveform" />',
        '<div className="degstalk-cursor" data-degstalk="cursor"></div></div>',
        '<div className="degstalk-bar">',
        _button(
            "play",
            "Play",
            _icon("play", "degstalk-when-paused") + _icon("pause", "degstalk-when-playing"),
            'data-playing="false"',
        ),
        _button("back", "One frame back", _icon("back")),
        _button("forward", "One frame forward", _icon("forward")),
        _button("loop", "Loop", _icon("loop"), 'aria-pressed="false"'),
        '<span className="degstalk-time" data-degstalk="time"></span></div>',
        '<div className="degstalk-line" data-degstalk="rate"></div>',
        '<div className="degstalk-line" data-degstalk="line" role="status"></div></div>',
    ]
)
