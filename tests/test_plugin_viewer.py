"""The adapter to nerfstudio's viewer, without a browser: what is sent to a page and what is taken from one."""

from __future__ import annotations

import io
import json
import threading
import wave
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nerfstudio.configs.base_config import ViewerConfig
from viser import _messages

from degstalk_ns.configs.methods import degstalk_fast
from degstalk_ns.plugin.host import kept_local
from degstalk_ns.viewer.page import Page, wav
from degstalk_ns.viewer.uploads import BoundedUploads

# --- where it listens -------------------------------------------------------------------------------------------------


def test_the_viewer_stays_on_this_machine_unless_asked() -> None:
    default = ViewerConfig()
    assert default.websocket_host == "0.0.0.0"
    assert kept_local(default, ["--load-config", "x"]).websocket_host == "127.0.0.1"
    for asked in (["--viewer.websocket-host", "0.0.0.0"], ["--viewer.websocket_host=0.0.0.0"]):
        assert kept_local(default, asked).websocket_host == "0.0.0.0"
    assert kept_local(ViewerConfig(websocket_host="10.0.0.7"), []).websocket_host == "10.0.0.7"


def test_settings_that_ns_viewer_hands_to_our_run_are_kept_local(monkeypatch: pytest.MonkeyPatch) -> None:
    config = degstalk_fast.config
    before = config.viewer
    assert before.websocket_host == "127.0.0.1"
    try:
        monkeypatch.setattr("sys.argv", ["ns-viewer", "--load-config", "x"])
        config.viewer = ViewerConfig()
        assert config.viewer.websocket_host == "127.0.0.1"
        monkeypatch.setattr("sys.argv", ["ns-viewer", "--viewer.websocket-host", "0.0.0.0"])
        config.viewer = ViewerConfig()
        assert config.viewer.websocket_host == "0.0.0.0"
    finally:
        config.viewer = before


# --- a page -----------------------------------------------------------------------------------------------------------


class _Connection:
    """Keeps what would be sent to a page."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.handlers: dict[type, list[Any]] = {}

    def queue_message(self, message: Any) -> None:
        self.sent.append(message)

    def register_handler(self, kind: type, handler: Any) -> None:
        self.handlers.setdefault(kind, []).append(handler)

    def unregister_handler(self, kind: type, handler: Any) -> None:
        self.handlers[kind].remove(handler)


class _Inbox:
    def __init__(self) -> None:
        self._impl, self.value = SimpleNamespace(id="inbox"), ""

    def on_update(self, react: Any) -> None:
        self.receive = lambda text: react(SimpleNamespace(target=SimpleNamespace(value=text)))


@pytest.fixture
def page() -> SimpleNamespace:
    connection, inbox, reports = _Connection(), _Inbox(), []
    gui = SimpleNamespace(add_text=lambda *_, **__: inbox)
    client = SimpleNamespace(gui=gui, _websock_connection=connection, flush=lambda: None)
    return SimpleNamespace(
        page=Page(client, reports.append, 1000),  # type: ignore[arg-type]
        connection=connection,
        inbox=inbox,
        reports=reports,
    )


def test_words_reach_the_page_as_words(page: SimpleNamespace) -> None:
    name = "evil\"); alert(1)//</script>\u2028'`${x}"
    page.page.say(name, "problem")
    message = page.connection.sent[-1].as_serializable_dict()
    assert message["source"] == ""  # nothing of it is evaluated
    assert (message["call"], message["given"]) == ("say", (name, "problem"))


def test_messages_leave_nothing_in_viser_s_queue(page: SimpleNamespace) -> None:
    page.page.seek(1.0)
    message = page.connection.sent[-1]
    assert message.redundancy_key() == message.redundancy_key()
    assert message.as_serializable_dict()["type"] == "RunJavascriptMessage"
    assert len({message.redundancy_key() for message in page.connection.sent}) == len(page.connection.sent)


def test_reports_are_checked(page: SimpleNamespace) -> None:
    good = {"kind": "state", "number": 3, "at": 1.5, "playing": True, "clip": 1, "spare": 0.1}
    for text in ("", "nothing", "[]", "3", '{"kind": "state"}', json.dumps({**good, "at": "x"})):
        page.inbox.receive(text)
    assert page.reports == []
    page.inbox.receive(json.dumps(good))
    assert page.reports == [good]


def test_a_sound_is_sent_in_parts_that_make_a_wav_file(page: SimpleNamespace) -> None:
    sound = np.sin(np.arange(400_000) / 10).astype(np.float32)
    page.page.load_sound(7, sound, 25.0, 25.0)
    sent = page.connection.sent
    assert [message.given for message in sent] == [(7, 0, 2, 25.0, 25.0), (7, 1, 2, 25.0, 25.0)]
    with wave.open(io.BytesIO(b"".join(message.data for message in sent))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16_000, 400_000)
        samples = np.frombuffer(file.readframes(400_000), "<i2") / 32767
    assert np.abs(samples - sound).max() < 1e-4


def test_a_wav_file_lasts_as_long_as_asked() -> None:
    for samples in (10, 1000):
        with wave.open(io.BytesIO(wav(np.full(100, 2.0, np.float32), samples))) as file:
            assert file.getnframes() == samples


# --- what a page may send ---------------------------------------------------------------------------------------------


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


def test_one_file_at_a_time(uploads: SimpleNamespace) -> None:
    uploads.start("u", 6, 2)
    uploads.start("v", 6, 2)
    assert "still being uploaded" in uploads.refused[0] and list(uploads.gui._current_file_upload_states) == ["u"]
