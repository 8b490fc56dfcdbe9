"""Messages keep their order whatever fails, and nothing is compressed that stays on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import viser
from viser.infra import WebsockMessageHandler
from websockets.sync.client import connect

from degstalk_ns.viewer.viser_patches import connection_of, end_quietly, mend, spare_compression


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


@pytest.fixture
def server() -> Iterator[viser.ViserServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    server = viser.ViserServer("127.0.0.1", free, verbose=False)
    yield server
    server.stop()


@pytest.mark.parametrize("spared", [False, True])
def test_what_stays_on_this_machine_is_not_compressed(server: viser.ViserServer, spared: bool) -> None:
    if spared:
        spare_compression(server)
    with connect(f"ws://127.0.0.1:{server.get_port()}") as page:
        assert isinstance(page.recv(timeout=20), bytes)
        assert (page.protocol.extensions == []) == spared


def test_work_that_comes_when_python_ends_is_left_out(server: viser.ViserServer) -> None:
    executor = server._websock_server._thread_executor
    end_quietly(server)
    assert executor.submit(lambda: 3).result(10) == 3
    executor.shutdown()
    assert not executor.submit(lambda: 3).done()


def test_the_connection_of_the_server_reaches_every_page(server: viser.ViserServer) -> None:
    mend(connection_of(server))
    with connect(f"ws://127.0.0.1:{server.get_port()}") as one, connect(f"ws://127.0.0.1:{server.get_port()}") as two:
        with server.atomic():
            server.gui.add_markdown("first of a group")
            server.gui.add_markdown("second of a group")
        for page in (one, two):
            received = b""
            while b"second of a group" not in received:
                received += page.recv(timeout=20)  # type: ignore[operator]
            assert received.index(b"first of a group") < received.index(b"second of a group")
