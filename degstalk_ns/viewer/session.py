"""The session of one open page: follows the audio that plays in the browser, renders what the panel asks for, and
releases everything when the page closes. Reports of the page arrive in ``_reported``.

It must not know nerfstudio; it gets a portrait to render and functions that give the camera of the page.
"""

from __future__ import annotations

import atexit
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from degstalk_ns.animation.animation import Animation
from degstalk_ns.animation.frames import Portrait
from degstalk_ns.audio.sound import SoundLimits
from degstalk_ns.errors import UserError
from degstalk_ns.frame_rate import FRAME_RATE, SAMPLE_RATE
from degstalk_ns.viewer.page import Page
from degstalk_ns.viewer.painter import FreeCamera, Painter, PaintRequest, jpeg
from degstalk_ns.viewer.panel import FREE, OWN, RECORDED, Panel
from degstalk_ns.viewer.sliders import Control
from degstalk_ns.viewer.sync import FollowedSound, InFlight, Lead
from degstalk_ns.viewer.uploads import BoundedUploads

SLIDER_EVERY: float = 0.25
"""Seconds between moves of the time slider while playing; the cursor in the waveform moves by itself."""
SLIDER_REST: float = 1.0
"""Seconds for which the slider is left alone after it was dragged."""
GREETING: float = 5.0
"""Seconds until a page that has not answered is told again: pages drop messages when one of viser's own fails."""
LAST_WORD: float = 2.0
"""Seconds that the end of the program waits for a frame that is being drawn."""


class Session:
    """A page and all that belongs to it.

    Args:
        client: viser's handle of the page.
        portrait: what is rendered. lock: what keeps training and rendering apart.
        animations: what can be played, by name, the first one first.
        new_sound: makes an animation of a file's bytes and name; tells its progress; raises UserError.
        controls: sliders for the face.
        free_camera: where the page's own camera is now. longest_side: of pictures, pixels.
        camera_chosen: told "recorded camera", "free camera" or "nerfstudio's own view", and the recorded frame shown.
        drawn: told how many pixels were drawn in how many seconds. limits: of files.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        portrait: Portrait,
        lock: Callable[[], AbstractContextManager[object]],
        animations: Mapping[str, Animation],
        new_sound: Callable[[bytes, str, Callable[[str], None]], Animation],
        controls: Sequence[Control],
        free_camera: Callable[[], FreeCamera],
        longest_side: Callable[[], int],
        camera_chosen: Callable[[str, int], None],
        drawn: Callable[[int, float], None],
        limits: SoundLimits,
    ) -> None:
        self._animations = dict(animations)
        self._new_sound = new_sound
        self._free_camera = free_camera
        self._longest_side = longest_side
        self._tell_camera = camera_chosen
        self._tell_drawn = drawn
        self._painter = Painter(portrait, lock)
        self._wake = threading.Condition()
        self._closed = False
        self._heard = False
        self._aside = False
        self._wanted = True
        self._clip = 0
        self._sound = FollowedSound()
        self._lead = Lead()
        self._in_flight = InFlight()
        self._number = 0
        self._last_frame = self._drawn = -1
        self._slider_moved = self._scrubbed_at = 0.0
        self._animation = next(iter(self._animations.values()))
        colour = tuple(round(255 * value) for value in portrait.free_background)
        largest = int(limits.largest_megabytes * 1e6)
        self._page = Page(client, self._reported, largest)
        self._uploads = BoundedUploads(client, largest, self._refused)
        self._panel = Panel(client.gui, self, list(self._animations), controls, colour)  # type: ignore[arg-type]
        self._load(self._animation)
        self._thread = threading.Thread(target=self._run, name="degstalk-page", daemon=True)
        # Python ends while daemon threads run, and what they then try fails.
        atexit.register(self._end)
        self._thread.start()

    # --- for nerfstudio's viewer ------------------------------------------------------------------------------------

    @property
    def yields(self) -> bool:
        """Whether nerfstudio's own picture is wanted instead of ours."""
        return self._aside or self._panel.camera.value == OWN

    def stand_aside(self, on: bool) -> None:
        """Leaves the view to nerfstudio (its preview of a camera path), or takes it back."""
        if on == self._aside:
            return
        self._aside = on
        if on:
            self._page.hide()
        else:
            self.redraw()

    def redraw(self) -> None:
        """Renders the frame again, because the weights or the camera of the page have changed."""
        with self._wake:
            self._wanted = True
            self._wake.notify_all()

    def camera_moved(self) -> None:
        """The page's camera has moved."""
        if self._panel.camera.value == FREE:
            self.redraw()

    def close(self) -> None:
        """Ends the thread of the page; safe to call from any thread."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._painter.close()
        atexit.unregister(self._end)

    def _end(self) -> None:
        self.close()
        self._thread.join(LAST_WORD)

    # --- from the page ----------------------------------------------------------------------------------------------

    def _reported(self, report: Mapping[str, Any]) -> None:
        if report["kind"] == "hello":
            self._greeted()
        now = perf_counter()
        with self._wake:
            if report["kind"] == "frame" and isinstance(report.get("frame"), int):
                self._in_flight.confirm(report["frame"])
                spare = report.get("spare")
                if report["playing"] and isinstance(spare, (int, float)):
                    self._lead.observe(float(spare))
            if report["kind"] == "loop":
                self._sound.loop = bool(report.get("loop"))
            if report["clip"] == self._clip:
                was = self._sound.playing
                if self._sound.report(report["number"], report["at"], report["playing"], now):
                    # A pause or a jump shows the frame where the sound is now.
                    if report["kind"] == "seek" or was != self._sound.playing:
                        self._wanted = True
            self._wake.notify_all()

    def _greeted(self) -> None:
        """The page has nothing yet, or has waited for its audio in vain."""
        with self._wake:
            self._heard = self._wanted = True
            self._last_frame = -1
            self._wake.notify_all()
        self._page.hold_still(self._panel.camera.value == RECORDED)
        self._send_sound()

    def _refused(self, why: str) -> None:
        self._page.say(why, "problem")

    # --- from the panel ---------------------------------------------------------------------------------------------

    def scrubbed(self, seconds: float) -> None:
        """The time slider was dragged."""
        with self._wake:
            self._sound.position, self._sound.at = seconds, perf_counter()
            self._scrubbed_at = self._sound.at
            self._wanted = True
            self._wake.notify_all()
        self._page.seek(seconds)

    def options_changed(self) -> None:
        options = self._panel.options()
        if options.needs_truth and self._animation.freed and self._panel.camera.value == RECORDED:
            self._page.say("New audio has no recorded frames to compare with.")
        elif options.output == "error map" and self._panel.camera.value == FREE:
            self._page.say("The error map needs the recorded camera.")
        else:
            self._page.say("")
        self.redraw()

    def camera_chosen(self, camera: str) -> None:
        self._page.hold_still(camera == RECORDED)
        self._tell_camera(camera, int(self._animation.recorded[self._current_frame()]))
        if camera == OWN:
            self._page.hide()
        self.options_changed()

    def driver_chosen(self, name: str) -> None:
        self._load(self._animations[name])

    def file_sent(self, name: str, content: bytes) -> None:
        """A file has arrived; it is read in a thread of its own, for viser's are few."""

        def read() -> None:
            try:
                animation = self._new_sound(content, name, self._page.say)
            except UserError as error:
                self._page.say(str(error), "problem")
                return
            except Exception:
                traceback.print_exc()
                self._page.say(f"{name} could not be read; see the error in the terminal.", "problem")
                return
            if self._closed:
                return
            # One sound of one's own at a time: memory stays bounded however many are tried.
            self._animations = {key: value for key, value in self._animations.items() if not value.freed}
            self._animations[animation.name] = animation
            self._panel.show_drivers(list(self._animations), animation.name)
            self._load(animation)
            drives = f"{name} drives the avatar ({animation.duration:.1f} s)."
            self._page.say("\n".join((drives, *animation.notes)), "good")

        threading.Thread(target=read, name="degstalk-upload", daemon=True).start()

    def _load(self, animation: Animation) -> None:
        with self._wake:
            self._clip += 1
            self._animation = animation
            self._sound.position, self._sound.playing = 0.0, False
            self._last_frame = -1
            self._wanted = True
            self._wake.notify_all()
        self._panel.show_sound(waveform(animation), animation)
        if self._heard:
            self._send_sound()

    def _send_sound(self) -> None:
        with self._wake:
            clip, animation = self._clip, self._animation
        self._page.load_sound(clip, waveform(animation), animation.duration, FRAME_RATE)
        if animation.notes and not animation.freed:
            self._page.say("\n".join(animation.notes), "problem")

    # --- rendering ----------------------------------------------------------------------------------------------------

    def _current_frame(self) -> int:
        return self._animation.frame_at(self._sound.position)

    def _greet(self) -> None:
        while not (self._heard or self._closed):
            self._page.attach()
            with self._wake:
                self._wake.wait_for(lambda: self._heard or self._closed, GREETING)

    def _run(self) -> None:
        self._greet()
        while (frame := self._next_frame()) is not None:
            try:
                self._draw(*frame)
            except Exception as error:
                if self._closed:
                    return
                if not isinstance(error, UserError):
                    traceback.print_exc()
                self._page.say(
                    str(error) if isinstance(error, UserError) else f"The frame could not be rendered: {error}",
                    "problem",
                )

    def _next_frame(self) -> tuple[Animation, int] | None:
        """Waits for the next frame to render; None when the page is closed."""
        with self._wake:
            while not self._closed:
                now, animation = perf_counter(), self._animation
                if self.yields:
                    self._wake.wait()
                elif self._in_flight.full(now, self._sound.playing):
                    self._wake.wait(self._in_flight.patience / 10)
                elif self._sound.playing:
                    ahead = self._sound.now(now) + self._lead.seconds
                    frame = animation.frame_at(ahead, self._sound.loop)
                    if frame != self._last_frame or self._wanted:
                        self._wanted, self._last_frame = False, frame
                        return animation, frame
                    # Until the next frame's turn, half a frame before its moment.
                    rest = (round(ahead * FRAME_RATE) + 0.5) / FRAME_RATE - ahead
                    self._wake.wait(max(rest, 1e-3))
                elif self._wanted:
                    self._wanted, self._last_frame = False, self._current_frame()
                    return animation, self._last_frame
                else:
                    self._wake.wait()
        return None

    def _draw(self, animation: Animation, frame: int) -> None:
        request = PaintRequest(
            options=self._panel.options(),
            camera=self._free_camera() if self._panel.camera.value == FREE else None,
            colour=self._panel.colour.value,
            overrides=self._panel.overrides,
            longest_side=self._longest_side(),
        )
        start = perf_counter()
        picture = self._painter.paint(animation, frame, request)
        self._tell_drawn(picture.shape[0] * picture.shape[1], perf_counter() - start)
        data = jpeg(picture)
        if self._sound.playing:
            step = min(max(frame - self._drawn, 1), round(FRAME_RATE))
            self._painter.prepare(animation, [frame + step, frame + 2 * step])
        self._drawn = frame
        now = perf_counter()
        with self._wake:
            if self._closed or animation is not self._animation:
                return
            self._number += 1
            self._in_flight.start(self._number, now)
        if not self.yields:
            self._page.show(self._number, animation.seconds_of(frame), data)
        still = not self._sound.playing  # then no later frame will move it
        if (still or now - self._slider_moved > SLIDER_EVERY) and now - self._scrubbed_at > SLIDER_REST:
            self._slider_moved = now
            self._panel.show_time(animation.seconds_of(self._current_or(frame)))

    def _current_or(self, frame: int) -> int:
        """The frame at which the audio is, or the rendered frame while the audio is paused."""
        if not self._sound.playing:
            return frame
        return self._animation.frame_at(self._sound.now(perf_counter()), self._sound.loop)


def waveform(animation: Animation) -> NDArray[np.float32]:
    """Its audio as samples [S] at 16 kHz in [-1, 1], as long as its frames; silence where it has none."""
    count = round(animation.duration * SAMPLE_RATE)
    samples = np.zeros(0, np.float32) if animation.sound is None else animation.sound.samples[:count]
    return np.pad(samples, (0, count - len(samples)))
