"""Access control of the viewer: only pages that it served itself, opened under a name of this machine. It must not know
avatars.

A browser lets any website open a WebSocket to this machine; viser 0.2.7 takes each, and serves files outside its folder
to whoever writes ``..`` into a request. Both are refused here, before viser sees the request.
"""

from __future__ import annotations

import http
import ipaddress
import os
import re
import socket
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import viser

HOSTS_VARIABLE: str = "DEGSTALK_VIEWER_HOSTS"
"""Further names under which the viewer may be opened, separated by commas: a proxy's, for example."""


def refusal(path: str, headers: Mapping[str, str], names: Collection[str], trusted: Collection[str] = ()) -> str | None:
    """Why a request is refused; None when it is not.

    Args:
        path: of the request. headers: of the request; ``Host`` and ``Origin`` are read.
        names: host names besides loopback names and IP addresses under which the viewer may be opened, lower case.
        trusted: host names whose pages may connect although the request came for another: a proxy's that rewrites it.
    """
    parts = re.split(r"[/\\]", path.partition("?")[0])  # both separate on Windows, where C: is a place of its own
    if ".." in parts or any(":" in part for part in parts):
        return "No such file."
    host = headers.get("Host", "")
    name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    # A foreign site can make its own name point here (DNS rebinding), but it cannot make a name one of these.
    if not (name in names or name == "localhost" or name.endswith(".localhost") or _is_address(name)):
        return (
            f"The viewer does not answer to the name {name!r}. Open it by IP address or as localhost, or put the name "
            f"into {HOSTS_VARIABLE}."
        )
    origin = headers.get("Origin")
    if origin is not None:
        page = urlsplit(origin)
        if page.netloc.lower() != host.lower() and (page.hostname or "") not in trusted:
            return "The viewer takes connections from its own page only."
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def chosen_names(listening: str) -> frozenset[str]:
    """Host names chosen for this machine: what it listens on, what it is called, what the environment says."""
    own = socket.gethostname().lower()
    return frozenset(name for name in (listening.lower(), own, f"{own}.local") if name) | trusted_names()


def trusted_names() -> frozenset[str]:
    """Host names that the environment says."""
    further = os.environ.get(HOSTS_VARIABLE, "").lower().split(",")
    return frozenset(name.strip() for name in further if name.strip())


def guard(server: viser.ViserServer) -> None:
    """Refuse foreign requests to ``server`` from now on, and end the connections of those that came before."""
    connections: Any = server._websock_server._ws_server
    names, trusted = chosen_names(server.get_host()), trusted_names()
    register = connections.register

    def allowed_names() -> Collection[str]:
        # Whoever asks viser to share the viewer gets a name for it.
        shared = server._share_tunnel and server._share_tunnel.get_url()
        return {*names, urlsplit(shared).hostname or ""} if shared else names

    def guarded_register(protocol: Any) -> None:
        answer = protocol.process_request

        async def process_request(path: str, headers: Any) -> Any:
            try:
                why = refusal(path, headers, allowed_names(), trusted)
            except (ValueError, LookupError):  # not an address at all, or a header that came twice
                why = "The request makes no sense."
            if why is not None:
                return http.HTTPStatus.FORBIDDEN, [("Content-Type", "text/plain")], f"{why}\n".encode()
            return await answer(path, headers)

        protocol.process_request = process_request
        register(protocol)

    connections.register = guarded_register
    for protocol in list(connections.websockets):
        headers = getattr(protocol, "request_headers", None)
        if headers is None or refusal("/", headers, names, trusted) is not None:
            protocol.loop.call_soon_threadsafe(protocol.transport.abort)
