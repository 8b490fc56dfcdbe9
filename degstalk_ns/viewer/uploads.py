"""Limits the files that a page may upload, and passes complete files on. It must not know what is in them.

viser keeps whatever a page announces; here every announcement and every part is checked before viser sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import viser

from degstalk_ns.viewer.viser_patches import FileTransferPart, FileTransferStart, Transfers

PART_PATIENCE: float = 2.0
"""Time in seconds for which a part of a file waits for its announcement: viser handles messages in several threads, in
any order."""


class BoundedUploads:
    """Replaces viser's handlers of one page's file transfers.

    Args:
        client: the page.
        largest: maximum size of a file, bytes.
        refused: called with the reason, in words for the user, when a file is rejected.
    """

    def __init__(self, client: viser.ClientHandle, largest: int, refused: Callable[[str], None]) -> None:
        self._largest = largest
        self._refused = refused
        self._known = threading.Condition()
        self._announced: set[str] = set()
        self._transfers = Transfers(client, self._start, self._part)

    def _start(self, client_id: Any, message: FileTransferStart) -> None:
        with self._known:
            self._announced.add(message.transfer_uuid)
            busy = bool(self._transfers.under_way)
            fits = 0 < message.size_bytes <= self._largest and 0 < message.part_count <= message.size_bytes
            if fits and not busy:
                self._transfers.start(client_id, message)
            self._known.notify_all()
        if not fits:
            self._refused(
                f"{message.filename} is empty and was not loaded."
                if message.size_bytes <= 0
                else f"{message.filename} is larger than {self._largest / 1e6:.0f} MB and was not loaded."
                if message.size_bytes > self._largest
                else f"{message.filename} comes in {message.part_count} parts, which cannot be; it was not loaded."
            )
        elif busy:
            self._refused(f"{message.filename}: another file is still being uploaded; try again when it is complete.")

    def _part(self, client_id: Any, message: FileTransferPart) -> None:
        states = self._transfers.under_way
        with self._known:
            self._known.wait_for(lambda: message.transfer_uuid in self._announced, PART_PATIENCE)
            state = states.get(message.transfer_uuid)
            if state is None:
                return
            too_much = state["transferred_bytes"] + len(message.content) > state["total_bytes"]
            if too_much or not 0 <= message.part < state["part_count"] or message.part in state["parts"]:
                del states[message.transfer_uuid]
                self._refused(f"{state['filename']}: more data arrived than was announced; the file was not loaded.")
                return
            if not message.content:  # any number of these would be kept
                del states[message.transfer_uuid]
                self._refused(f"{state['filename']}: a part of it is empty; the file was not loaded.")
                return
            try:
                self._transfers.part(client_id, message)
            except KeyError:  # all bytes are here, but not all parts
                self._refused(f"{state['filename']}: parts of it are missing; the file was not loaded.")
