"""Who may connect: only pages that the viewer served itself, under a name of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from degstalk_ns.viewer.access import chosen_names, guard, refusal


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
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    server = viser.ViserServer("127.0.0.1", free, verbose=False)
    guard(server)
    yield server.get_port()
    server.stop()


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
