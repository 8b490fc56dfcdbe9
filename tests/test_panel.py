"""The panel in a page without a browser: what a person chooses is told once, what the program sets is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import viser
from fake_page import FakePage, until

from degstalk_ns.animation.animation import Animation
from degstalk_ns.dataparsers.recording import read_recording
from degstalk_ns.viewer.display import DisplayOptions
from degstalk_ns.viewer.panel import FREE, OWN, RECORDED, Panel
from degstalk_ns.viewer.sliders import controls

EXPRESSION = torch.stack([torch.linspace(-1, 1, 20), torch.linspace(0, 0.2, 20)], 1)
SMILE = controls(EXPRESSION, ["mouthSmile", "browUp"])[2]


class _Listener:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def scrubbed(self, seconds: float) -> None:
        self.told.append(("scrubbed", seconds))

    def driver_chosen(self, name: str) -> None:
        self.told.append(("driver", name))

    def file_sent(self, name: str, content: bytes) -> None:
        self.told.append(("file", name, content))

    def options_changed(self) -> None:
        self.told.append(("options",))

    def camera_chosen(self, camera: str) -> None:
        self.told.append(("camera", camera))


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    server = viser.ViserServer("127.0.0.1", free, verbose=False)
    yield server
    server.stop()


@pytest.fixture
def listener() -> _Listener:
    return _Listener()


@pytest.fixture
def panel(server: viser.ViserServer, listener: _Listener) -> Panel:
    server.gui.reset()
    found = controls(EXPRESSION, ["mouthSmile", "browUp"])
    return Panel(server.gui, listener, ["training track", "validation track"], found, (255, 255, 255))


@pytest.fixture
def page(server: viser.ViserServer, panel: Panel) -> Iterator[FakePage]:
    page = FakePage(server.get_port())
    until(lambda: server.get_clients() and "Reset to the recording" in page.elements)
    yield page
    page.close()
    until(lambda: not server.get_clients())


def _animation(root: Path, frames: int) -> Animation:
    return Animation.from_recording(read_recording(root), "train").between(0.0, frames / 25)


def _told(page: FakePage, listener: _Listener, label: str, value: Any) -> tuple[Any, ...]:
    """What the listener hears of one choice."""
    before = len(listener.told)
    page.change(label, value)
    until(lambda: len(listener.told) > before)
    (told,) = listener.told[before:]
    return told


def test_what_a_person_chooses_is_told_once(page: FakePage, panel: Panel, listener: _Listener) -> None:
    assert _told(page, listener, "Driven by", "validation track") == ("driver", "validation track")
    assert _told(page, listener, "Camera", FREE) == ("camera", FREE)
    for label, value in {
        **{"Output": "depth", "Recorded frame": "wipe", "Wipe": 0.25},
        **{"Face": False, "Mouth": False, "Background image": False},
    }.items():
        assert _told(page, listener, label, value) == ("options",)
    assert panel.options() == DisplayOptions("depth", False, False, False, "wipe", 0.25)
    assert _told(page, listener, "Background colour", (1, 2, 3)) == ("options",) and panel.colour.value == (1, 2, 3)


def test_what_the_program_sets_is_not_told(page: FakePage, panel: Panel, listener: _Listener) -> None:
    panel.show_drivers(["training track", "mine.wav"], "mine.wav")
    panel.camera.value, panel.face.value = OWN, False
    assert panel.driver.options == ("training track", "mine.wav") and panel.driver.value == "mine.wav"
    # What comes after it is told: nothing is still on its way.
    assert _told(page, listener, "Mouth", False) == ("options",)
    assert listener.told == [("options",)]


@pytest.mark.parametrize(
    ("camera", "plate", "truth", "shown"),
    [
        (RECORDED, True, "off", {"output", "face", "mouth", "truth", "plate"}),
        (RECORDED, True, "wipe", {"output", "face", "mouth", "truth", "plate", "wipe"}),
        (RECORDED, False, "side by side", {"output", "face", "mouth", "truth", "plate", "colour"}),
        (FREE, True, "wipe", {"output", "face", "mouth", "colour"}),
        (OWN, True, "wipe", set()),
    ],
)
def test_only_what_matters_is_shown(
    page: FakePage, panel: Panel, listener: _Listener, camera: str, plate: bool, truth: str, shown: set[str]
) -> None:
    panel.plate.value, panel.truth.value = plate, truth  # type: ignore[assignment]
    for chosen in (OWN if camera != OWN else FREE, camera):
        assert _told(page, listener, "Camera", chosen) == ("camera", chosen)
    names = ("output", "face", "mouth", "truth", "plate", "wipe", "colour")
    assert {name for name in names if getattr(panel, name).visible} == shown


def test_sliders_override_until_they_are_reset(page: FakePage, panel: Panel, listener: _Listener) -> None:
    for value in (0.5, 0.75):
        assert _told(page, listener, "Mouth smile", value) == ("options",)
        assert panel.overrides == {SMILE: value}
    handed_out = panel.overrides
    assert _told(page, listener, "Eyelid left", 1.0) == ("options",)
    assert len(panel.overrides) == 2 and handed_out == {SMILE: 0.75}, "a frame in the making keeps its values"
    assert _told(page, listener, "Reset to the recording", True) == ("options",)
    assert panel.overrides == {} and panel._sliders[SMILE].value == SMILE.usual


def test_the_time_is_told_when_a_person_drags_it(
    page: FakePage, panel: Panel, listener: _Listener, dataset: Path
) -> None:
    panel.show_sound(np.zeros(16_000, np.float32), _animation(dataset, 20))
    until(lambda: "Time (s)" in page.elements)
    assert _told(page, listener, "Time (s)", 0.4) == ("scrubbed", 0.4)
    panel.show_time(99.0)
    assert panel._time.value == pytest.approx(19 / 25), "the moment of the last frame"
    panel.show_time(0.2)
    page.change("Time (s)", 0.2)  # the page repeats what it was told
    assert _told(page, listener, "Time (s)", 0.6) == ("scrubbed", 0.6)
    assert len(listener.told) == 2


def test_another_sound_has_another_slider(page: FakePage, panel: Panel, dataset: Path) -> None:
    panel.show_sound(np.zeros(16_000, np.float32), _animation(dataset, 20))
    first, bar = panel._time, panel._play_bar.content
    panel.show_sound(np.ones(640, np.float32), _animation(dataset, 1))
    assert panel._time is not first and panel._time.disabled and not first.disabled
    assert panel._play_bar.content != bar and "data:image/png;base64," in bar


def test_a_file_is_handed_on_whole(page: FakePage, panel: Panel, listener: _Listener) -> None:
    target = page.elements["Load an audio file"]
    start = {"source_component_id": target, "transfer_uuid": "u", "filename": "a.wav", "mime_type": "audio/wav"}
    page.send("FileTransferStart", **start, part_count=1, size_bytes=4)
    page.send("FileTransferPart", source_component_id=target, transfer_uuid="u", part=0, content=b"RIFF")
    until(lambda: listener.told)
    assert listener.told == [("file", "a.wav", b"RIFF")]
