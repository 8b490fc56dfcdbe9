"""The connection to one page, without a browser: what is sent to it and which of its reports count."""

from __future__ import annotations

import io
import json
import wave
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from degstalk_ns.viewer.page import Page, wav


class _Connection:
    """Keeps what would be sent to a page."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def queue_message(self, message: Any) -> None:
        self.sent.append(message)


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
    good = {"kind": "state", "number": 3, "at": 1.5, "playing": True, "clip": 1, "spare": 0.1, "loop": False}
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
