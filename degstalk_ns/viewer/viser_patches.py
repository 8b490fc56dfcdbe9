"""Mends how viser 0.2.7 hands messages to a page, and holds what else is reached by viser's private names. It must not
know what is in a message.

There, whatever a page says is taken: any property of a control may be set, to anything, and a message that is none ends
the reading of the page but not its drawing. An exception within ``atomic()`` (nerfstudio raises one when a page leaves
while its camera moves) keeps the lock for ever: every later page stays empty. And a message that finds the lock taken
is overtaken by those after it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec
import viser
import websockets.server
from viser._gui_api import GuiApi
from viser._messages import (
    FileTransferPart,
    FileTransferStart,
    GetRenderResponseMessage,
    GuiUpdateMessage,
    Message,
    RunJavascriptMessage,
    SceneNodeClickMessage,
    ScenePointerMessage,
    ShareUrlRequest,
    TransformControlsUpdateMessage,
    ViewerCameraMessage,
)
from viser.infra import Message as AnyMessage
from viser.infra import WebsockMessageHandler
from websockets.exceptions import ConnectionClosedError
from websockets.legacy.server import WebSocketServerProtocol

__all__ = [
    "FileTransferPart",
    "FileTransferStart",
    "GuiUpdateMessage",
    "RunJavascriptMessage",
    "Transfers",
    "ViewerCameraMessage",
    "check_updates",
    "connection_of",
    "end_quietly",
    "forget_camera_callbacks",
    "has_left",
    "hint_of",
    "input_id",
    "keep_unshared",
    "mend",
    "message_of",
    "serve_through",
    "shared_address",
    "spare_compression",
    "use_filtered",
]


def connection_of(party: viser.ClientHandle | viser.ViserServer) -> WebsockMessageHandler:
    """What carries the messages of one page, or of the server to every page."""
    return party._websock_server if isinstance(party, viser.ViserServer) else party._websock_connection


def has_left(client: viser.ClientHandle) -> bool:
    """Whether the page's connection has ended; viser may announce a page that has left already."""
    return client._websock_connection._state.message_buffer.done


def forget_camera_callbacks(client: viser.ClientHandle) -> None:
    """Let nothing react any more to what the page says of its camera."""
    client.camera._state.camera_cb.clear()


def input_id(handle: viser.GuiInputHandle[Any]) -> str:
    """By which name the page knows an input."""
    return handle._impl.id


def hint_of(handle: Any) -> str | None:
    """What the page shows when the pointer rests on a control."""
    hint: str | None = handle._impl.hint
    return hint


def shared_address(server: viser.ViserServer) -> str | None:
    """Where a published viewer can be reached; None where it is not published."""
    return None if server._share_tunnel is None else server._share_tunnel.get_url()


class Transfers:
    """viser's handling of the files that one page sends, with ``on_start`` and ``on_part`` in front of it.

    Args:
        client: the page.
        on_start, on_part: get every announcement and every part in viser's place; what they find good they hand on to
            :meth:`start` and :meth:`part`.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        on_start: Callable[[Any, FileTransferStart], None],
        on_part: Callable[[Any, FileTransferPart], None],
    ) -> None:
        gui, connection = client.gui, connection_of(client)
        self.start, self.part = gui._handle_file_transfer_start, gui._handle_file_transfer_part
        self.under_way: dict[str, Any] = gui._current_file_upload_states
        """What viser knows of each file that is not whole yet, by the transfer's id."""
        connection.unregister_handler(FileTransferStart, self.start)
        connection.unregister_handler(FileTransferPart, self.part)
        connection.register_handler(FileTransferStart, on_start)
        connection.register_handler(FileTransferPart, on_part)


def mend(handler: WebsockMessageHandler) -> None:
    """Give a handler of messages (a page's or the server's) an ``atomic()`` that an exception leaves open, and messages
    that keep their order. Doing it twice does no harm.

    Messages of a thread within its own ``atomic()`` are held back until it ends; those of other threads wait for it.
    """
    lock: threading.Lock = handler._atomic_lock
    held: list[Any] = handler.__dict__.setdefault("_degstalk_held", [])

    def mine() -> bool:
        return handler._locked_thread_id == threading.get_ident()

    def send_held() -> None:
        while held:
            handler.unsafe_send_message(held.pop(0))

    @contextlib.contextmanager
    def atomic() -> Iterator[None]:
        if mine():
            yield
            return
        with lock:
            handler._locked_thread_id = threading.get_ident()
            try:
                yield
            finally:
                handler._locked_thread_id = -1
                send_held()

    def queue_message(message: Any) -> None:
        if handler._record_handle is not None:
            handler._record_handle._insert_message(message)
        if mine():
            held.append(message)
            return
        with lock:
            send_held()  # of a group that was open when this was mended
            handler.unsafe_send_message(message)

    handler.atomic = atomic  # type: ignore[method-assign]
    handler.queue_message = queue_message  # type: ignore[method-assign]


def end_quietly(server: viser.ViserServer) -> None:
    """When Python ends, its thread pools take no more work; what pages say then is left out, not an error each time."""
    executor = server._websock_server._thread_executor
    submit = executor.submit

    def submit_while_running(*work: Any, **given: Any) -> Future[Any]:
        try:
            return submit(*work, **given)
        except RuntimeError:
            return Future()

    executor.submit = submit_while_running  # type: ignore[method-assign]


def spare_compression(server: viser.ViserServer) -> None:
    """Do not compress what never leaves this machine: frames are compressed already, and both ends are busy."""
    connections: Any = server._websock_server._ws_server
    register = connections.register

    def register_sparing(protocol: Any) -> None:
        address = protocol.remote_address  # none of a peer that is gone already
        if address and ipaddress.ip_address(address[0]).is_loopback:
            protocol.available_extensions = None
        register(protocol)

    connections.register = register_sparing


def serve_through(prepare: Callable[[WebSocketServerProtocol, str], None]) -> None:
    """From now on, every connection to a server that viser makes in this process is handed to ``prepare`` before
    anything is read from it, with the host that the server listens on. Only the first call has an effect."""
    module: Any = websockets.server
    original = module.serve
    if hasattr(original, "prepares"):
        return

    def serve(handler: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if getattr(handler, "__module__", "").startswith("viser."):

            def made(*arguments: Any, **given: Any) -> WebSocketServerProtocol:
                protocol = WebSocketServerProtocol(*arguments, **given)
                prepare(protocol, str(host or ""))
                return protocol

            options["create_protocol"] = made
        return original(handler, host, port, **options)

    serve.prepares = prepare  # type: ignore[attr-defined]
    module.serve = serve


def use_filtered(protocol: WebSocketServerProtocol, unwanted: Callable[[Any], str | None]) -> None:
    """What a page sends is shown to ``unwanted`` before viser sees it: a reason ends the connection as if the page had
    left, so that everything that belongs to it is cleared away; an empty one leaves out what was sent."""
    receive = protocol.recv

    async def recv() -> Any:
        while (why := unwanted(data := await receive())) == "":
            pass
        if why is None:
            return data
        await protocol.close(1008, why)
        raise ConnectionClosedError(None, None)

    protocol.recv = recv  # type: ignore[method-assign]


def message_of(data: Any) -> AnyMessage | None:
    """The message that ``data`` is, bytes that a page has sent; None where viser cannot read it, or would read it and
    find other types in it than those that the rest of viser relies on."""
    try:
        message = Message.deserialize(data)
        if isinstance(message, _READ):
            msgspec.convert(vars(message), type(message))
    except Exception:  # whatever strange bytes bring about
        return None
    return message


_READ = (
    ViewerCameraMessage,
    GuiUpdateMessage,
    FileTransferStart,
    FileTransferPart,
    GetRenderResponseMessage,
    SceneNodeClickMessage,
    ScenePointerMessage,
    TransformControlsUpdateMessage,
)
"""Messages that something here reacts to."""


def check_updates(plausible: Callable[[Any, Any], bool]) -> None:
    """From now on, what a page says of a control in this process is shown to ``plausible`` (the control's handle, its
    new value), and dropped unless that is True. Only values can be set, not other properties. Only the first call has
    an effect."""
    original = GuiApi._handle_gui_updates
    if hasattr(original, "checks"):
        return

    def checked(self: GuiApi, client_id: Any, message: GuiUpdateMessage) -> None:
        handle = self._gui_input_handle_from_id.get(message.id)
        if handle is None or set(message.updates) != {"value"} or not plausible(handle, message.updates["value"]):
            return
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # of another type than the control's
            original(self, client_id, message)

    checked.checks = plausible  # type: ignore[attr-defined]
    GuiApi._handle_gui_updates = checked  # type: ignore[method-assign]


def keep_unshared(server: viser.ViserServer) -> None:
    """No page can publish the viewer, unless the user has had it published."""
    if server._share_tunnel is None:
        connection_of(server)._incoming_handlers.pop(ShareUrlRequest, None)
