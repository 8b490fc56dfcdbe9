"""Who may connect: only pages that the viewer served itself, under a name of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import viser
from fake_page import until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from degstalk_ns.errors import UserError
from degstalk_ns.viewer import access
from degstalk_ns.viewer.access import (
    MOST_MESSAGES,
    RENDER_NAME_HINT,
    TOKEN_NAME,
    check_guard,
    chosen_names,
    guard_servers,
    is_local,
    let_share,
    page_token,
    plausible,
    refusal,
)

CAMERA = msgspec.msgpack.encode(
    {
        "type": "ViewerCameraMessage",
        **{"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 1.0), "fov": 0.5, "aspect": 1.0},
        **{"look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 1.0, 0.0)},
    }
)


@pytest.mark.parametrize(
    ("host", "origin", "served"),
    [
        ("127.0.0.1:7007", None, True),
        ("127.0.0.1:7007", "http://127.0.0.1:7007", True),
        ("localhost:7007", "http://localhost:7007", True),
        ("[::1]:7007", "http://[::1]:7007", True),
        ("10.1.2.3:7007", "http://10.1.2.3:7007", True),
        ("studio:7007", "http://studio:7007", True),
        ("Studio", "https://studio", True),
        ("localhost:7007", "http://evil.example", False),
        ("localhost:7007", "http://localhost:8000", False),
        ("localhost:7007", "http://localhost:7007.evil.example", False),
        ("127.0.0.1:7007", "null", False),
        ("evil.example:7007", "http://evil.example:7007", False),
        ("evil.example:7007", None, False),
        ("127.0.0.1.evil.example", None, False),
        ("", None, False),
    ],
)
def test_only_its_own_pages_are_served(host: str, origin: str | None, served: bool) -> None:
    headers = {"Host": host} | ({"Origin": origin} if origin is not None else {})
    assert (refusal("/", headers, {"studio"}) is None) == served


def test_a_proxy_may_rewrite_the_name_if_the_user_trusts_it() -> None:
    headers = {"Host": "127.0.0.1:7007", "Origin": "https://proxy.example"}
    assert refusal("/", headers, {"proxy.example"}, {"proxy.example"}) is None
    assert refusal("/", headers, {"proxy.example"}) is not None


@pytest.mark.parametrize("path", ["/../x", "/a/../../x", "/..\\..\\x", "/C:/Windows/win.ini", "/..?page"])
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    assert refusal(path, {"Host": "localhost"}, ()) == "No such file."
    assert refusal("/index.html?time=0:12/..", {"Host": "localhost"}, ()) is None


def test_names_are_chosen_by_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEGSTALK_VIEWER_HOSTS", "Proxy.example, other.example")
    names = chosen_names("Listening.example")
    assert {"proxy.example", "other.example", "listening.example", socket.gethostname().lower()} <= names
    assert "" not in names


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    guard_servers()
    server = viser.ViserServer("127.0.0.1", free, verbose=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def port(server: viser.ViserServer) -> int:
    return server.get_port()


def _status(port: int, path: str, host: str = "127.0.0.1") -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_pages_are_served_and_files_outside_are_not(port: int) -> None:
    assert _status(port, "/") == 200
    assert _status(port, "/index.html?websocket=..") == 200
    outside = "assets/../../../__init__.py"
    assert (Path(viser.__file__).parent / "client" / "build" / outside).exists()  # viser alone would send it
    assert _status(port, f"/{outside}") == 403
    assert _status(port, "/", "evil.example") == 403
    assert _status(port, "/", "[bad") == 403


def test_a_foreign_page_gets_no_connection(port: int) -> None:
    address = f"ws://127.0.0.1:{port}"
    with connect(address, origin=f"http://127.0.0.1:{port}") as own:  # type: ignore[arg-type]
        assert isinstance(own.recv(timeout=20), bytes)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="http://evil.example")  # type: ignore[arg-type]


def test_a_server_that_is_not_guarded_is_stopped(server: viser.ViserServer, monkeypatch: pytest.MonkeyPatch) -> None:
    check_guard(server)
    monkeypatch.setattr(access, "refusal", lambda *_: None)  # as if the guard were not asked
    other = viser.ViserServer("127.0.0.1", 0, verbose=False)
    other._websock_server._port = other._websock_server._ws_server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="answers to foreign names, so it was stopped"):
        check_guard(other)


def test_other_machines_need_the_token() -> None:
    headers, token = {"Host": "10.1.2.3:7007"}, page_token()
    assert len(token) > 20 and page_token() == token
    assert "with its token" in str(refusal("/", headers, (), (), token))
    assert refusal(f"/?{TOKEN_NAME}={token}", headers, (), (), token) is None
    assert refusal("/assets/x.js", headers | {"Cookie": f"a=b; {TOKEN_NAME}={token}"}, (), (), token) is None
    for wrong in (f"/?{TOKEN_NAME}=", f"/?{TOKEN_NAME}={token}x", f"/?{TOKEN_NAME}=\u00e9", "/?token=1"):
        assert refusal(wrong, headers | {"Cookie": f"{TOKEN_NAME}=x"}, (), (), token) is not None
    assert [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", "10.0.0.1", "studio")] == [
        *(True, True, True, False, False, False, False)
    ]


def test_a_viewer_for_other_machines_gives_the_token_on_as_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    guard_servers()
    monkeypatch.setattr(access, "_from_here", lambda protocol: False)  # as if the page were on another machine
    server = viser.ViserServer("0.0.0.0", 0, verbose=False)
    try:
        # viser keeps the port that it asked for; the system gave another one.
        port = server._websock_server._ws_server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        assert _status(port, "/") == 403
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            request = f"GET /?{TOKEN_NAME}={page_token()} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
            connection.sendall(request.encode())
            head = connection.makefile("rb").read(2_000).decode(errors="replace")
        assert head.startswith("HTTP/1.1 200") and f"{TOKEN_NAME}={page_token()}; Path=/; HttpOnly" in head
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{port}")
        with connect(f"ws://127.0.0.1:{port}", additional_headers={"Cookie": f"{TOKEN_NAME}={page_token()}"}) as page:
            assert isinstance(page.recv(timeout=20), bytes)
    finally:
        server.stop()


def _camera(**other: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.decode(CAMERA) | other)


MALFORMED: dict[str, str | bytes] = {
    "a camera of words": _camera(wxyz="abcd"),
    "a camera of three numbers": _camera(wxyz=(1.0, 0.0, 0.0)),
    "a control by a number": msgspec.msgpack.encode({"type": "GuiUpdateMessage", "id": 3, "updates": {"value": 1}}),
    "a file of words": msgspec.msgpack.encode(
        {
            "type": "FileTransferStart",
            **{"source_component_id": "a", "transfer_uuid": "b", "filename": "c", "mime_type": "d"},
            **{"part_count": "many", "size_bytes": 1},
        }
    ),
    "text": "hello",
    "random bytes": bytes(range(256)),
    "no map": msgspec.msgpack.encode([1, 2]),
    "no type": msgspec.msgpack.encode({"a": 1}),
    "a foreign type": msgspec.msgpack.encode({"type": "RunCode", "code": "1"}),
    "missing parts": msgspec.msgpack.encode({"type": "GuiUpdateMessage"}),
    "empty": b"",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_message_ends_as_if_the_page_had_left(server: viser.ViserServer, kind: str) -> None:
    left: list[int] = []
    server.on_client_disconnect(lambda client: left.append(client.client_id))
    address = f"ws://127.0.0.1:{server.get_port()}"
    with connect(address) as other, connect(address) as page:
        page.send(CAMERA)
        other.send(CAMERA)
        until(lambda: len(server.get_clients()) == 2)
        page.send(MALFORMED[kind])
        until(lambda: len(left) == 1 and len(server.get_clients()) == 1)
        with pytest.raises(ConnectionClosed):
            while True:
                page.recv(timeout=20)
        server.gui.add_markdown("still here")
        until(lambda: b"still here" in other.recv(timeout=20))  # type: ignore[operator]
    until(lambda: not server.get_clients())


USELESS: list[dict[str, object]] = [
    {"position": (float("nan"), 0.0, 0.0)},
    {"wxyz": (0.0, 0.0, 0.0, 0.0)},
    {"fov": float("inf")},
    {"fov": 1e-300},
    {"aspect": 0.0},
    {"aspect": float("nan")},
    {"look_at": (0.0, 1e300, 0.0)},
]


def test_a_camera_that_nothing_is_seen_through_is_left_out(server: viser.ViserServer) -> None:
    """A page whose window is folded up has no height, and must not be shown out for it."""
    with connect(f"ws://127.0.0.1:{server.get_port()}") as page:
        page.send(CAMERA)
        until(lambda: len(server.get_clients()) == 1)
        (client,) = server.get_clients().values()
        for other in USELESS:
            page.send(_camera(**other))
        page.send(_camera(fov=0.7))
        until(lambda: client.camera.fov == 0.7)
        assert client.camera.aspect == 1.0 and np.isfinite(client.camera.position).all()
        assert len(server.get_clients()) == 1


def test_a_flood_ends_the_connection_that_it_comes_from(server: viser.ViserServer) -> None:
    with connect(f"ws://127.0.0.1:{server.get_port()}") as page:
        page.send(CAMERA)
        with pytest.raises(ConnectionClosed):
            for _ in range(10 * MOST_MESSAGES):
                page.send(CAMERA)
            while True:
                page.recv(timeout=20)
    until(lambda: not server.get_clients())


def test_no_page_publishes_the_viewer(server: viser.ViserServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(server, "request_share_url", lambda **_: asked.append(True))
    let_share(server)
    with connect(f"ws://127.0.0.1:{server.get_port()}") as page:
        page.send(msgspec.msgpack.encode({"type": "ShareUrlRequest"}))
        page.send(CAMERA)
        until(lambda: server.get_clients())
    assert not asked
    until(lambda: not server.get_clients())


def test_a_viewer_that_the_user_has_published_answers_to_its_name(
    server: viser.ViserServer, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_share(server)
    assert _status(port, "/", "abc.share.example") == 403
    tunnel = SimpleNamespace(get_url=lambda: "https://abc.share.example")  # viser's, once its server has answered
    monkeypatch.setattr(server, "_share_tunnel", tunnel)
    assert _status(port, "/", "abc.share.example") == 200
    assert _status(port, "/", "xyz.share.example") == 403


def test_only_what_a_control_offers_can_be_set(server: viser.ViserServer) -> None:
    slider = server.gui.add_slider("s", 0.0, 1.0, 0.1, 0.5)
    choice = server.gui.add_dropdown("d", ("a", "b"))
    name = server.gui.add_text("n", "run", hint=RENDER_NAME_HINT)
    with connect(f"ws://127.0.0.1:{server.get_port()}") as page:
        page.send(CAMERA)
        for control, updates in (
            (slider, {"value": float("nan")}),
            (slider, {"value": float("inf")}),
            (slider, {"value": "0.7"}),
            (slider, {"update_cb": []}),
            (slider, {"value": [0.1] * 1000}),
            (choice, {"value": "../../etc/passwd"}),
            (name, {"value": "../outside"}),
            (name, {"value": "/tmp/x"}),
        ):
            page.send(_update(control, updates))
        page.send(_update(name, {"value": "my render (2)"}))
        page.send(_update(slider, {"value": 0.75}))
        page.send(_update(choice, {"value": "b"}))
        until(lambda: (slider.value, choice.value, name.value) == (0.75, "b", "my render (2)"))
        assert len(slider._impl.update_cb) == 0 and not isinstance(slider._impl.update_cb, tuple)
        assert not plausible(slider, 10**400) and plausible(slider, True)


def _update(control: object, updates: dict[str, object]) -> bytes:
    return msgspec.msgpack.encode({"type": "GuiUpdateMessage", "id": control._impl.id, "updates": updates})  # type: ignore[attr-defined]
