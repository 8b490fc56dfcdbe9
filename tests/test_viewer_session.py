"""A page of the viewer from the server's side: greeted until it answers, given its sound, told of its files.

The page here is a program that speaks viser's protocol; the real one is tried in tests/e2e/test_viewer_in_browser.py.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import viser
from fake_page import PATIENCE, FakePage, until

from degstalk_ns.animation.animation import Animation
from degstalk_ns.audio.mel import mel_windows
from degstalk_ns.audio.sound import UNLIMITED, SoundLimits, load_sound
from degstalk_ns.dataparsers.recording import Recording, read_recording
from degstalk_ns.plugin.viewer import TalkingHeadViewer
from degstalk_ns.viewer import session as session_module
from degstalk_ns.viewer.access import guard_servers
from degstalk_ns.viewer.painter import Painter
from degstalk_ns.viewer.session import Session
from degstalk_ns.viewer.viser_patches import connection_of, end_quietly, mend

LIMITS = SoundLimits(longest_minutes=0.05, largest_megabytes=4.0)


def serve(recording: Recording) -> tuple[viser.ViserServer, list[Session]]:
    """A guarded viewer whose pages see a grey picture."""
    guard_servers()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = viser.ViserServer("127.0.0.1", probe.getsockname()[1] + 1, verbose=False)
    Painter.paint = lambda *_: np.full((16, 16, 3), 128, np.uint8)  # type: ignore[method-assign]
    frames: Any = SimpleNamespace(plate=lambda *_: None)
    model: Any = SimpleNamespace(recording=recording, free_background=(1.0, 1.0, 1.0), frames=frames, device="cpu")
    adapter = TalkingHeadViewer(model, LIMITS)
    first = Animation.from_recording(recording, "train").between(0.0, 21 / 25)
    sessions: list[Session] = []

    end_quietly(server)

    def opened(client: viser.ClientHandle) -> None:
        mend(connection_of(client))
        sessions.append(
            Session(
                client,
                model,
                contextlib.nullcontext,
                {"training track": first},
                adapter._new_sound,
                (),
                lambda: None,  # type: ignore[arg-type, return-value]
                lambda: 16,
                lambda *_: None,
                lambda *_: None,
                LIMITS,
            )
        )

    server.on_client_connect(opened)

    def left(client: viser.ClientHandle) -> None:
        (session,) = (session for session in sessions if session._page._client.client_id == client.client_id)
        sessions.remove(session)
        session.close()

    server.on_client_disconnect(left)
    return server, sessions


def speaking(root: Path) -> Recording:
    recording = read_recording(root)
    return replace(
        recording, audio=mel_windows(load_sound(recording.layout.audio, UNLIMITED).samples, recording.num_frames)
    )


@pytest.fixture(scope="module")
def viewer(dataset: Path) -> Iterator[tuple[viser.ViserServer, list[Session]]]:
    paint = Painter.paint
    server, sessions = serve(speaking(dataset))
    yield server, sessions
    server.stop()
    Painter.paint = paint  # type: ignore[method-assign]


@pytest.fixture
def page(viewer: tuple[viser.ViserServer, list[Session]]) -> Iterator[FakePage]:
    page = FakePage(viewer[0].get_port())
    until(lambda: page.given("frame"))
    yield page
    page.close()
    until(lambda: not viewer[1])


def test_a_page_is_greeted_until_it_answers(
    viewer: tuple[viser.ViserServer, list[Session]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GREETING", 0.05)
    page = FakePage(viewer[0].get_port(), answers=False)
    until(lambda: page.greetings > 3)
    assert page.calls == []
    page.answers = True
    until(lambda: page.given("sound") and page.given("frame"))
    assert page.given("still") and page.given("sound")[0] == [1, 0, 1, 21 / 25, 25.0]
    greetings = page.greetings
    time.sleep(0.2)
    assert page.greetings == greetings
    page.report("hello")  # it has waited for its sound in vain
    until(lambda: len(page.given("sound")) > 1)
    page.close()
    until(lambda: not viewer[1])


def test_what_is_played_is_drawn_and_a_page_that_leaves_takes_its_thread_with_it(
    viewer: tuple[viser.ViserServer, list[Session]], page: FakePage
) -> None:
    page.play()
    until(lambda: {round(25 * given[1]) for given in page.given("frame")} >= {20})
    thread = viewer[1][0]._thread
    page.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def _file(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, **options)
    return buffer.getvalue()


def _tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


GOOD = {
    "8 bits": lambda: _file(_tone(0.8, 8_000), 8_000, subtype="PCM_U8"),
    "96 kHz": lambda: _file(_tone(0.8, 96_000), 96_000),
    "6 channels": lambda: _file(np.tile(_tone(0.8, 48_000)[:, None], (1, 6)), 48_000),
    "silent": lambda: _file(np.zeros(12_800)),
}
BAD = {
    "empty": (lambda: b"", "is empty"),
    "no samples": (lambda: _file(np.zeros(0)), "holds no samples"),
    "one sample": (lambda: _file(np.array([0.5])), "at least one frame (40 ms)"),
    "long": (lambda: _file(np.zeros(16_000 * 4), kind="FLAC"), "longer than 0.05 minutes; cut it"),
    "an hour": (lambda: _file(np.zeros(8_000 * 3600, np.int16), 8_000, kind="FLAC"), "longer than 0.05 minutes"),
    "large": (lambda: _file(np.zeros(8_000 * 3600, np.int16), 8_000), "is larger than 4 MB and was not loaded"),
    "text": (lambda: b"no sound at all\n" * 50, "has no readable audio"),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_sounds_drive_the_head(page: FakePage, name: str) -> None:
    text, tone = page.upload("mine.wav", GOOD[name]())
    assert tone == "good" and text.startswith("mine.wav drives the avatar (0.8 s).")
    assert ("the mouth will stay closed" in text) == (name == "silent")
    until(lambda: page.given("sound")[-1][0] == 2)
    _, part, total, duration, rate = page.given("sound")[-1]
    assert (part, total, rate) == (0, 1, 25.0) and abs(duration - 0.8) < 0.05


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_played_is_refused_in_words(page: FakePage, name: str) -> None:
    content, words = BAD[name]
    text, tone = page.upload("mine.wav", content())
    assert tone == "problem" and "mine.wav" in text and words in text and "--" not in text
    assert [given[0] for given in page.given("sound")] == [1]  # what was played before is still there


def test_a_second_sound_replaces_the_first_and_a_refusal_does_not(page: FakePage) -> None:
    page.upload("first.wav", GOOD["8 bits"]())
    assert page.upload("text.wav", b"text")[1] == "problem"
    assert page.upload("second.wav", GOOD["96 kHz"]())[1] == "good"
    until(lambda: page.given("sound")[-1][0] == 3)


def test_broken_uploads_of_one_page_leave_the_others_alone(
    viewer: tuple[viser.ViserServer, list[Session]], page: FakePage
) -> None:
    others = [FakePage(viewer[0].get_port()) for _ in range(2)]
    for other in others:
        until(lambda other=other: other.given("frame"))  # type: ignore[misc]
    button = page.elements["Load an audio file"]
    for number in range(20):  # many at once, of parts that hold nothing, or that were never announced
        start = {"source_component_id": button, "transfer_uuid": f"u{number}", "filename": f"{number}.wav"}
        page.send("FileTransferStart", **start, mime_type="audio/wav", part_count=3, size_bytes=3_000_000)
    until(lambda: sum("still being uploaded" in text for text, _ in page.said) == 19)
    for part in range(60):
        name = f"u{part % 20}"
        page.send("FileTransferPart", source_component_id=button, transfer_uuid=name, part=part % 3, content=b"")
    page.send("FileTransferPart", source_component_id=button, transfer_uuid="nobody's", part=0, content=b"abc")
    uploads = [threading.Thread(target=other.upload, args=("mine.wav", GOOD["96 kHz"]())) for other in others]
    for upload in uploads:
        upload.start()
    for upload in uploads:
        upload.join(PATIENCE)
    for other in others:
        assert other.said[-1][1] == "good"
        other.close()
    until(lambda: any("a part of it is empty" in text for text, _ in page.said))
    assert page.upload("mine.wav", GOOD["8 bits"]())[1] == "good"  # also to itself


def _said(**other: object) -> str:
    return json.dumps({"kind": "state", "number": 1, "clip": 1, "at": 0.1, "playing": True} | other)


NONSENSE = [
    *("", "[]", "3", "null", "{}", "[" * 50_000, '{"kind": "hello"}'),
    *(_said(at=at) for at in (float("nan"), float("inf"), -1e308, 10**400, "soon", None, [])),
    *(_said(number=number) for number in (float("inf"), float("nan"), 10**300, "first", {})),
    *(_said(kind="frame", frame=frame, spare=0.1) for frame in (float("inf"), "a", 10**300)),
    *(_said(kind="frame", frame=1, spare=spare) for spare in (float("nan"), 10**400, "a")),
]


def test_nonsense_of_one_page_is_left_out_and_the_others_go_on(
    viewer: tuple[viser.ViserServer, list[Session]], page: FakePage, capfd: pytest.CaptureFixture[str]
) -> None:
    other = FakePage(viewer[0].get_port())
    until(lambda: other.given("frame"))
    for text in NONSENSE:
        page.send("GuiUpdateMessage", id=page._inbox, updates={"value": text})
    for one in (page, other):
        one.play()
        until(lambda one=one: {round(25 * given[1]) for given in one.given("frame")} >= {20})  # type: ignore[misc]
    page._socket.send(b"\xc1 no message")
    until(lambda: len(viewer[0].get_clients()) == 1)
    seen = len(other.given("frame"))
    other.report("seek", at=0.0)
    until(lambda: len(other.given("frame")) > seen)
    other.close()
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


def play_and_end(root: str) -> None:
    """A program that ends while a page plays, and takes a while to end."""
    atexit.register(time.sleep, 1.0)
    server, _ = serve(speaking(Path(root)))
    page = FakePage(server.get_port())
    until(lambda: page.given("frame"))
    page.play()
    seen = len(page.given("frame"))
    until(lambda: len(page.given("frame")) > seen + 1)

    def go_on() -> None:
        while True:
            page.report("state")
            time.sleep(0.02)

    threading.Thread(target=go_on, daemon=True).start()
    print("playing", flush=True)


def test_a_program_that_ends_while_it_plays_says_nothing(dataset: Path) -> None:
    code = f"import test_viewer_session as t; t.play_and_end({str(dataset)!r})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("playing")
    assert "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
