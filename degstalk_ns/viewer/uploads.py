"""Bounds what a page may send as a file, and hands whole files on. It must not know what is in them.

viser keeps whatever a page announces; here every announcement and every part is checked before viser sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import viser
from viser import _messages

PATIENCE: float = 2.0
"""Seconds that a part waits for its announcement: viser handles messages in many threads, in any order."""


class BoundedUploads:
    """Replaces viser's handlers of one page's file transfers.

    Args:
        client: the page. largest: bytes of a file.
        refused: told why, in words for the one who sent it.
    """

    def __init__(self, client: viser.ClientHandle, largest: int, refused: Callable[[str], None]) -> None:
        self._gui = client.gui
        self._largest = largest
        self._refused = refused
        self._known = threading.Condition()
        self._announced: set[str] = set()
        connection = client.gui._websock_interface
        connection.unregister_handler(_messages.FileTransferStart, self._gui._handle_file_transfer_start)
        connection.unregister_handler(_messages.FileTransferPart, self._gui._handle_file_transfer_part)
        connection.register_handler(_messages.FileTransferStart, self._start)
        connection.register_handler(_messages.FileTransferPart, self._part)

    def _start(self, client_id: Any, message: _messages.FileTransferStart) -> None:
        with self._known:
            self._announced.add(message.transfer_uuid)
            busy = bool(self._gui._current_file_upload_states)
            fits = 0 < message.size_bytes <= self._largest and 0 < message.part_count <= self._largest
            if fits and not busy:
                self._gui._handle_file_transfer_start(client_id, message)
            self._known.notify_all()
        if not fits:
            self._refused(
                f"{message.filename} is empty: not loaded."
                if message.size_bytes == 0
                else f"{message.filename} is larger than {self._largest / 1e6:.0f} MB: not loaded."
            )
        elif busy:
            self._refused(f"{message.filename}: another file is still on its way; try again when it is here.")

    def _part(self, client_id: Any, message: _messages.FileTransferPart) -> None:
        states = self._gui._current_file_upload_states
        with self._known:
            self._known.wait_for(lambda: message.transfer_uuid in self._announced, PATIENCE)
            state = states.get(message.transfer_uuid)
            if state is None:
                return
            too_much = state["transferred_bytes"] + len(message.content) > state["total_bytes"]
            if too_much or not 0 <= message.part < state["part_count"] or message.part in state["parts"]:
                del states[message.transfer_uuid]
                self._refused(f"{state['filename']}: more arrived than was announced: not loaded.")
                return
            try:
                self._gui._handle_file_transfer_part(client_id, message)
            except KeyError:  # all bytes are here, but not all parts
                self._refused(f"{state['filename']}: parts of it are missing: not loaded.")
