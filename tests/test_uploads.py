"""What a page may upload: viser's own handling of files, behind the limits."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from viser import _messages

from degstalk_ns.viewer.uploads import BoundedUploads


class _Connection:
    """Keeps who handles which message."""

    def __init__(self) -> None:
        self.handlers: dict[type, list[Any]] = {}

    def queue_message(self, message: Any) -> None:
        """What viser answers to the page."""

    def register_handler(self, kind: type, handler: Any) -> None:
        self.handlers.setdefault(kind, []).append(handler)

    def unregister_handler(self, kind: type, handler: Any) -> None:
        self.handlers[kind].remove(handler)


@pytest.fixture
def uploads() -> SimpleNamespace:
    from viser._gui_api import GuiApi

    connection, refused, files = _Connection(), [], []
    gui: Any = GuiApi.__new__(GuiApi)
    gui._websock_interface, gui._current_file_upload_states = connection, {}
    client: Any = SimpleNamespace(gui=gui, _websock_connection=connection)
    handle = SimpleNamespace(_impl=SimpleNamespace(value=None, update_timestamp=0.0, update_cb=[]))
    handle._impl.update_cb.append(lambda event: files.append((handle._impl.value.name, handle._impl.value.content)))
    gui._gui_input_handle_from_id = {"button": handle}
    gui._owner = SimpleNamespace(atomic=threading.Lock)
    connection.register_handler(_messages.FileTransferStart, gui._handle_file_transfer_start)
    connection.register_handler(_messages.FileTransferPart, gui._handle_file_transfer_part)
    BoundedUploads(client, 1000, refused.append)

    def start(uuid: str, size: int, parts: int) -> None:
        message = _messages.FileTransferStart("button", uuid, "a.wav", "audio/wav", parts, size)
        for handler in connection.handlers[_messages.FileTransferStart]:
            handler(0, message)

    def part(uuid: str, number: int, content: bytes) -> None:
        message = _messages.FileTransferPart("button", uuid, number, content)
        for handler in connection.handlers[_messages.FileTransferPart]:
            handler(0, message)

    return SimpleNamespace(start=start, part=part, refused=refused, files=files, gui=gui)


@pytest.fixture(autouse=True)
def _clients_are_whoever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viser._viser.ClientHandle", SimpleNamespace)


def test_a_whole_file_arrives_whatever_the_order(uploads: SimpleNamespace) -> None:
    uploads.start("u", 6, 2)
    uploads.part("u", 1, b"def")
    uploads.part("u", 0, b"abc")
    assert uploads.files == [("a.wav", b"abcdef")] and uploads.refused == []


def test_a_part_waits_for_its_announcement(uploads: SimpleNamespace) -> None:
    early = threading.Thread(target=uploads.part, args=("u", 0, b"abc"))
    early.start()
    uploads.start("u", 3, 1)
    early.join(10)
    assert uploads.files == [("a.wav", b"abc")]


@pytest.mark.parametrize(("size", "word"), [(1001, "larger"), (0, "empty"), (1 << 60, "larger")])
def test_what_is_announced_too_large_is_never_kept(uploads: SimpleNamespace, size: int, word: str) -> None:
    uploads.start("u", size, 1)
    uploads.part("u", 0, b"x" * 100)
    assert len(uploads.refused) == 1 and word in uploads.refused[0]
    assert not uploads.gui._current_file_upload_states and not uploads.files


def test_more_than_announced_is_dropped(uploads: SimpleNamespace) -> None:
    uploads.start("u", 10, 2)
    uploads.part("u", 0, b"x" * 8)
    uploads.part("u", 1, b"x" * 8)
    assert "more data arrived" in uploads.refused[0] and not uploads.gui._current_file_upload_states
    uploads.start("v", 10, 2)
    uploads.part("v", 5, b"x")
    assert len(uploads.refused) == 2 and not uploads.gui._current_file_upload_states


def test_parts_without_content_are_not_kept(uploads: SimpleNamespace) -> None:
    uploads.start("u", 10, 11)
    uploads.part("u", 0, b"x" * 10)
    assert "comes in 11 parts" in uploads.refused[0] and not uploads.files
    uploads.start("v", 10, 10)
    uploads.part("v", 0, b"")
    assert "a part of it is empty" in uploads.refused[1] and not uploads.gui._current_file_upload_states


def test_one_file_at_a_time(uploads: SimpleNamespace) -> None:
    uploads.start("u", 6, 2)
    uploads.start("v", 6, 2)
    assert "still being uploaded" in uploads.refused[0] and list(uploads.gui._current_file_upload_states) == ["u"]
