"""nerfstudio's own viewer with a trained head, and a page without a browser: what comes to the page, and what stays
when it leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from fake_page import PATIENCE, FakePage, until
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.viewer.render_state_machine import RenderAction, RenderStateMachine
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from degstalk_ns.plugin.pipeline import DegstalkPipeline
from degstalk_ns.plugin.runs import load_run
from degstalk_ns.plugin.viewer import TalkingHeadViewer, YieldingStateMachine
from degstalk_ns.viewer.access import TOKEN_NAME, page_token
from degstalk_ns.viewer.panel import FREE, OWN
from degstalk_ns.viewer.session import Session


@pytest.fixture(scope="module")
def viewer(trained_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    pipeline = load_run(trained_config).pipeline
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("viewer")
    config = ViewerConfig(websocket_host="127.0.0.1", websocket_port=free)
    viewer = Viewer(config, folder / "log", folder, pipeline)
    yield viewer
    viewer.viser_server.stop()


@pytest.fixture
def page(viewer: Viewer) -> Iterator[FakePage]:
    page = FakePage(viewer.viser_server.get_port())
    until(lambda: page.given("frame"))
    yield page
    page.close()
    until(lambda: not _sessions(viewer))


def _pipeline(viewer: Viewer) -> DegstalkPipeline:
    assert isinstance(viewer.pipeline, DegstalkPipeline)
    return viewer.pipeline


def _sessions(viewer: Viewer) -> dict[int, Session]:
    return _pipeline(viewer).talking_head._sessions


def _last_picture(page: FakePage) -> np.ndarray:
    data = [data for call, _, data in list(page.calls) if call == "frame"][-1]
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_a_page_sees_the_trained_head_and_may_play_either_part(viewer: Viewer, page: FakePage) -> None:
    model = _pipeline(viewer).model
    row = int(model.recording.train.aud_ids[0])
    plate = model.frames.plate(row)
    frame = model.frame(model.frames.view(row), model.conditions(row), torch.from_numpy(plate.copy())).numpy()
    assert np.abs(_last_picture(page) - frame).mean() < 4
    (session,) = _sessions(viewer).values()
    assert session._panel.driver.options == ("training track", "validation track")
    labels = [control.label for control in session._panel._sliders]
    assert labels[:2] == ["Eyelid right", "Eyelid left"] and len(labels) > 2


def test_the_camera_of_a_page_begins_where_the_recording_was_made(viewer: Viewer, page: FakePage) -> None:
    model = _pipeline(viewer).model
    (client,) = viewer.viser_server.get_clients().values()
    row = int(model.recording.train.aud_ids[0])
    place = model.frames.c2w(row)[:3, 3].numpy()
    np.testing.assert_allclose(client.camera.position / VISER_NERFSTUDIO_SCALE_RATIO, place, atol=1e-5)
    assert client.camera.fov == pytest.approx(2 * np.arctan(0.5 * model.recording.height / model.recording.focal))


def test_nerfstudio_s_own_picture_is_made_only_when_it_is_wanted(viewer: Viewer, page: FakePage) -> None:
    ((number, session),) = _sessions(viewer).items()
    machine = viewer.render_statemachines[number]
    assert isinstance(machine, YieldingStateMachine) and not session.yields
    drawn: list[int] = []
    real = machine._render_img
    machine._render_img = lambda state: (drawn.append(1), real(state))[1]  # type: ignore[method-assign]
    frames = len(page.given("frame"))
    (client,) = viewer.viser_server.get_clients().values()
    machine.action(RenderAction("step", viewer.get_camera_state(client)))  # as the training does
    until(lambda: len(page.given("frame")) > frames)
    assert not drawn
    page.change("Camera", OWN)
    until(lambda: page.given("hide"))
    viewer._trigger_rerender()
    until(lambda: drawn)
    frames = len(page.given("frame"))
    page.change("Camera", FREE)
    until(lambda: len(page.given("frame")) > frames)
    frames = len(page.given("frame"))
    viewer._trigger_rerender()  # the page's camera moves
    until(lambda: len(page.given("frame")) > frames)
    assert not session.yields


def test_the_preview_of_a_camera_path_has_the_view_for_itself(
    viewer: Viewer, page: FakePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (session,) = _sessions(viewer).values()
    (machine,) = viewer.render_statemachines.values()
    client = machine.client

    def of_the_page() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if isinstance(t, RenderStateMachine) and t.client is client]

    until(lambda: of_the_page() == [machine])  # nerfstudio's own, which ours replaces, has ended
    viewer.render_tab_state.preview_render = True
    viewer._trigger_rerender()
    assert session.yields
    until(lambda: page.given("hide"))
    assert viewer.render_tab_state.preview_fov == 0  # nerfstudio sets it later; its thread would end at such a camera
    time.sleep(0.3)
    assert machine.is_alive()
    pictures: list[int] = []
    monkeypatch.setattr(machine, "_send_output_to_viewer", lambda *_, **__: pictures.append(1))
    viewer.render_tab_state.preview_fov = 0.5
    viewer._trigger_rerender()
    until(lambda: pictures)
    viewer.render_tab_state.preview_render = False
    frames = len(page.given("frame"))
    viewer._trigger_rerender()
    until(lambda: len(page.given("frame")) > frames)
    assert not session.yields


def test_a_page_that_leaves_takes_its_session_and_threads_with_it(viewer: Viewer) -> None:
    page = FakePage(viewer.viser_server.get_port())
    until(lambda: page.given("frame"))
    ((number, session),) = _sessions(viewer).items()
    machine = viewer.render_statemachines[number]
    page.close()
    session._thread.join(PATIENCE)
    machine.join(PATIENCE)
    assert not session._thread.is_alive() and not machine.is_alive()
    assert not _sessions(viewer) and number not in viewer.render_statemachines


def test_only_its_own_pages_are_served(viewer: Viewer) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{viewer.viser_server.get_port()}", origin="http://evil.example")  # type: ignore[arg-type]


def test_another_port_and_an_open_viewer_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    def said(host: str, port: int, asked: int) -> str:
        server = SimpleNamespace(get_host=lambda: host, get_port=lambda: port)
        TalkingHeadViewer._say_where(server, asked)  # type: ignore[arg-type]
        return capsys.readouterr().out

    assert said("127.0.0.1", 7007, 7007) == ""
    assert "port 7007 is taken" in (line := said("127.0.0.1", 7008, 7007)) and "http://localhost:7008" in line
    opened = said("0.0.0.0", 7007, 7007)
    assert "open to other machines" in opened and f":7007/?{TOKEN_NAME}={page_token()}" in opened
