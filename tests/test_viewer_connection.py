"""What stands between the viewer and who connects: messages keep their order, and only its own pages are served."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import viser
from viser.infra import WebsockMessageHandler
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from degstalk_ns.viewer.access import chosen_names, guard, refusal
from degstalk_ns.viewer.viser_patches import mend, spare_compression

# --- messages ---------------------------------------------------------------------------------------------------------


class _Handler(WebsockMessageHandler):
    def __init__(self) -> None:
        super().__init__(ThreadPoolExecutor(1))
        self.sent: list[Any] = []

    def unsafe_send_message(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture
def handler() -> _Handler:
    handler = _Handler()
    mend(handler)
    mend(handler)  # twice does no harm
    return handler


def _in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_an_error_in_a_group_of_messages_does_not_close_the_connection(handler: _Handler) -> None:
    with pytest.raises(KeyError), handler.atomic():
        raise KeyError
    other = _in_thread(lambda: handler.queue_message("after"))  # type: ignore[arg-type]
    other.join(10)
    assert handler.sent == ["after"]


def test_mended_again_within_a_group_nothing_stays_behind(handler: _Handler) -> None:
    with handler.atomic():
        handler.queue_message("first")  # type: ignore[arg-type]
        mend(handler)
        handler.queue_message("second")  # type: ignore[arg-type]
    assert handler.sent == ["first", "second"]


def test_messages_keep_their_order_and_groups_stay_together(handler: _Handler) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def group() -> None:
        with handler.atomic():
            handler.queue_message("a")  # type: ignore[arg-type]
            entered.set()
            go_on.wait(10)
            with handler.atomic():
                handler.queue_message("b")  # type: ignore[arg-type]

    def others() -> None:
        for message in ("c", "d"):
            handler.queue_message(message)  # type: ignore[arg-type]

    first = _in_thread(group)
    entered.wait(10)
    second = _in_thread(others)
    assert handler.sent == []
    go_on.set()
    first.join(10)
    second.join(10)
    assert handler.sent == ["a", "b", "c", "d"]


# --- who is served ----------------------------------------------------------------------------------------------------


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
    spare_compression(server)
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
        assert own.protocol.extensions == []  # nothing is compressed that stays here
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin="http://evil.example")  # type: ignore[arg-type]
