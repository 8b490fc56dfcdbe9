"""A page of the viewer without a browser: a program that speaks viser's protocol, with the answers of page.js."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE = 60.0
"""Seconds."""


class FakePage:
    """Speaks to the viewer as viser's page does, with page.js in it."""

    def __init__(self, port: int, answers: bool = True) -> None:
        self._socket = connect(f"ws://127.0.0.1:{port}", max_size=None)
        self.answers = answers
        self.greetings, self.calls, self.elements = 0, [], {}  # type: ignore[var-annotated]
        self._inbox, self._reports, self._started = "", 0, 0.0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        camera = {"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 1.0), "fov": 0.5, "aspect": 1.0}
        self.send("ViewerCameraMessage", **camera, look_at=(0.0, 0.0, 0.0), up_direction=(0.0, 1.0, 0.0))

    def send(self, kind: str, **values: Any) -> None:
        self._socket.send(msgspec.msgpack.encode({"type": kind, **values}))

    def _listen(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for data in self._socket:
                for message in msgspec.msgpack.decode(data):
                    self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if "order" in message and "id" in message:
            self.elements[message.get("label", "")] = message["id"]
        source = message.get("source", "")
        if "window.degstalk.attach(" in source:
            self.greetings += 1
            self._inbox = json.loads(source.rpartition("attach(")[2].partition(",")[0])
            if self.answers:
                self.report("hello")
        elif message.get("call"):
            self.calls.append((message["call"], message["given"], message["data"]))
            if message["call"] == "frame" and self.answers:
                self.report("frame", frame=message["given"][0], spare=0.1)

    def change(self, label: str, value: Any) -> None:
        """A person sets the control ``label``; a button's value is True."""
        self.send("GuiUpdateMessage", id=self.elements[label], updates={"value": value})

    def play(self) -> None:
        self._started = time.monotonic()
        self.report("state")

    def report(self, kind: str, **more: Any) -> None:
        self._reports += 1
        at = time.monotonic() - self._started if self._started else 0.0
        state = {"at": at, "playing": bool(self._started)}
        value = json.dumps({"kind": kind, "number": self._reports, "clip": 1, **state, **more})
        self.send("GuiUpdateMessage", id=self._inbox, updates={"value": value})

    def upload(self, name: str, content: bytes) -> tuple[str, str]:
        """What the page is told last of the file, and in which tone."""
        before = len(self.said)
        transfer, target = str(uuid.uuid4()), self.elements["Load an audio file"]
        start = {"source_component_id": target, "transfer_uuid": transfer, "filename": name, "mime_type": "audio/wav"}
        self.send("FileTransferStart", **start, part_count=1, size_bytes=len(content))
        self.send("FileTransferPart", source_component_id=target, transfer_uuid=transfer, part=0, content=content)
        until(lambda: any(tone for _, tone in self.said[before:]))
        return next((text, tone) for text, tone in self.said[before:] if tone)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [tuple(given) for call, given, _ in list(self.calls) if call == "say"]  # type: ignore[misc]

    def given(self, call: str) -> list[Any]:
        return [given for name, given, _ in list(self.calls) if name == call]

    def close(self) -> None:
        self._socket.close()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)
