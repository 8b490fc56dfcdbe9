"""The connection to one open page of the viewer: commands to the browser, and reports that `page.js` sends (audio
position, frames shown, loop). It must not know avatars, tracks or what is rendered.

viser 0.2.7 evaluates JavaScript that the server sends (its own use of it: plots). `scene.js` and `page.js` are sent so,
once a page. From then on they listen to the connection, for calls that are in such messages with nothing left to
evaluate. Reports come back as the value of a text input that is never shown.
"""

from __future__ import annotations

import dataclasses
import io
import json
import wave
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from degstalk_ns.frame_rate import SAMPLE_RATE
from degstalk_ns.viewer import viser_patches

SOUND_PART: int = 1 << 19
"""Bytes of sound in one message: a long sound must not hold back the frames behind it."""

LARGEST_SAID: float = 1e9
"""Of any number in a report."""


SCRIPTS: tuple[str, str] = ("scene.js", "page.js")


@dataclasses.dataclass
class RunJavascriptMessage(viser_patches.RunJavascriptMessage):
    """viser's message, by the same name for the page, with a call of `page.js` in it: a name, what is given to it, and
    bytes as they are.

    Its key is the same on its way in and out of the queue: viser draws a new one each time, and so never forgets the
    first."""

    call: str = ""
    given: tuple[Any, ...] = ()
    data: bytes = b""

    def redundancy_key(self) -> str:
        return f"degstalk_{id(self)}"


@cache
def _script() -> str:
    return "\n".join(files(__package__).joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)


class Page:
    """A page and its sound.

    Args:
        client: viser's handle of the page.
        on_report: called with every report, a dict with ``kind``, ``number``, ``at`` (seconds of the sound),
            ``playing`` and ``clip``, in a thread of viser's; two may come at once and in any order.
        largest_upload: bytes; larger files are refused in the page already.
    """

    def __init__(
        self, client: viser.ClientHandle, on_report: Callable[[dict[str, Any]], None], largest_upload: int
    ) -> None:
        self._client = client
        self._connection = viser_patches.connection_of(client)
        self._on_report = on_report
        self._inbox = client.gui.add_text("reports", "", visible=False)
        self._inbox.on_update(self._received)
        self._largest_upload = largest_upload

    def attach(self) -> None:
        """Bring the script into the page; its first report is "hello". Until then the page does nothing.

        What is attached already starts afresh, so doing it again is harmless.
        """
        # Evaluated at the top: within viser's own bundle, names such as Audio mean other things.
        # One message, for a page that is very busy may take messages in another order than they were sent.
        attach = f"window.degstalk.attach({json.dumps(viser_patches.input_id(self._inbox))}, {self._largest_upload})"
        source = f"(0, eval)({json.dumps(_script())}); {attach}"
        self._connection.queue_message(RunJavascriptMessage(source))

    def _call(self, name: str, *arguments: Any, data: bytes = b"") -> None:
        self._connection.queue_message(RunJavascriptMessage("", name, arguments, data))

    def _received(self, event: Any) -> None:
        report = _report(event.target.value)
        if report is not None:  # whoever reaches the port can send anything
            self._on_report(report)

    def show(self, number: int, seconds: float, jpeg: bytes) -> None:
        """Show a frame when its moment has come; at once while the sound stands still."""
        self._call("frame", number, seconds, data=jpeg)
        self._client.flush()

    def load_sound(self, number: int, waveform: NDArray[np.float32], duration: float, rate: float) -> None:
        """Replace the sound.

        Args:
            number: comes back as ``clip`` in reports.
            waveform: [S] at 16 kHz in [-1, 1]; cut or filled up with silence to ``duration`` seconds.
            rate: frames a second of the timeline.
        """
        data = wav(waveform, round(duration * SAMPLE_RATE))
        total = -(-len(data) // SOUND_PART)
        for part in range(total):
            piece = data[part * SOUND_PART : (part + 1) * SOUND_PART]
            self._call("sound", number, part, total, duration, rate, data=piece)

    def seek(self, seconds: float) -> None:
        """Move the sound; the page reports where it is then."""
        self._call("seek", seconds, True)

    def say(self, text: str, tone: str = "") -> None:
        """A line in the panel; ``tone`` is "", "good" or "problem"."""
        self._call("say", text, tone)

    def hold_still(self, on: bool) -> None:
        """Whether drags on the picture are kept from the camera behind it."""
        self._call("still", on)

    def hide(self) -> None:
        """Leave the view to nerfstudio's own picture until the next frame is shown."""
        self._call("hide")


def _report(text: str) -> dict[str, Any] | None:
    """What a page says, with the types that are promised; None where it is not one of ours."""
    try:
        said = json.loads(text)
        found = {
            "kind": str(said["kind"]),
            "number": int(said["number"]),
            "clip": int(said["clip"]),
            "playing": bool(said["playing"]),
            "loop": bool(said.get("loop", False)),
            "at": float(said["at"]),
        }
        if "frame" in said:
            found["frame"] = int(said["frame"])
        if said.get("spare") is not None:  # JavaScript writes null for what is no number
            found["spare"] = float(said["spare"])
        numbers = [value for value in found.values() if isinstance(value, (int, float))]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found if all(abs(number) <= LARGEST_SAID for number in numbers) else None


def wav(waveform: NDArray[np.float32], samples: int) -> bytes:
    """A 16-bit mono WAV file at 16 kHz of exactly ``samples`` samples."""
    sound = np.zeros(samples, np.float32)
    kept = min(samples, len(waveform))
    sound[:kept] = waveform[:kept]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
