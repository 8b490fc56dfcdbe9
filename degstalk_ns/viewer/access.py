"""Access control of the viewer: only pages that it served itself, opened under a name of this machine, and from other
machines only with a token; and what pages may say. It must not know avatars.

A browser lets any website open a WebSocket to this machine; viser 0.2.7 takes each, and serves files outside its folder
to whoever writes ``..`` into a request. Both are refused here, before viser sees the request.
"""

from __future__ import annotations

import http
import ipaddress
import math
import os
import re
import secrets
import socket
import time
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import viser

from degstalk_ns.errors import UserError
from degstalk_ns.viewer.viser_patches import (
    GuiUpdateMessage,
    ViewerCameraMessage,
    check_updates,
    hint_of,
    keep_unshared,
    message_of,
    serve_through,
    shared_address,
    use_filtered,
)

HOSTS_VARIABLE: str = "DEGSTALK_VIEWER_HOSTS"
"""Further names under which the viewer may be opened, separated by commas: a proxy's, for example."""


TOKEN_NAME: Final[str] = "degstalk-token"
"""Of the token in the address that a page is first opened by, and of the cookie that carries it afterwards."""
MOST_MESSAGES: Final[int] = 2_000
"""Messages a second, in the mean over a few, from one page; a camera that moves sends 60, an upload some dozens."""
_FLOOD_SECONDS: Final[float] = 3.0
LONGEST_VALUE: Final[int] = 100_000
"""Characters of a text that a page sets."""
_LARGEST: Final[float] = 1e9
"""Of any number that a page says."""
_NAME: Final = re.compile(r"\w[\w .()-]{0,100}")


@lru_cache(maxsize=1)
def page_token() -> str:
    """The token of this process that pages on other machines must bring."""
    return secrets.token_urlsafe(16)


def is_local(host: str) -> bool:
    """Whether a server that listens on ``host`` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refusal(
    path: str,
    headers: Mapping[str, str],
    names: Collection[str],
    trusted: Collection[str] = (),
    token: str | None = None,
) -> str | None:
    """Why a request is refused; None when it is not.

    Args:
        path: of the request. headers: of the request; ``Host``, ``Origin`` and ``Cookie`` are read.
        names: host names besides loopback names and IP addresses under which the viewer may be opened, lower case.
        trusted: host names whose pages may connect although the request came for another: a proxy's that rewrites it.
        token: that the request must bring, in its address or as a cookie; None for none.
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
    if token is not None and not any(secrets.compare_digest(token, given) for given in _tokens(path, headers)):
        return "Open the viewer by the address with its token, which is printed where it was started."
    return None


def _tokens(path: str, headers: Mapping[str, str]) -> list[str]:
    """The tokens that a request brings."""
    found = parse_qs(urlsplit(path).query).get(TOKEN_NAME, [])
    with suppress(CookieError):
        cookie = SimpleCookie(headers.get("Cookie", "")).get(TOKEN_NAME)
        found += [] if cookie is None else [cookie.value]
    return [value for value in found if value.isascii()]


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


def guard_servers() -> None:
    """From now on, every server of viser that this process makes refuses foreign requests, from the moment that its
    port opens, and messages that no page of its own sends."""
    serve_through(_prepare)
    check_updates(plausible)


def check_guard(server: viser.ViserServer) -> None:
    """Stop a server that answers to a foreign name: with another release of viser or websockets the guard might not be
    asked.

    Raises:
        UserError: it did.
    """
    host = server.get_host()
    place = (host if host not in ("", "0.0.0.0", "::") else "127.0.0.1", server.get_port())
    try:
        with socket.create_connection(place, timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: refused.invalid\r\nConnection: close\r\n\r\n")
            answer = connection.makefile("rb").readline().split()
    except OSError:
        answer = []
    if answer[1:2] != [b"403"]:
        server.stop()
        raise UserError(
            "the viewer answers to foreign names, so it was stopped: the installed viser or websockets are not the "
            "releases that degstalk-ns needs (see `degstalk doctor`); reinstall degstalk-ns, or train with --vis "
            "tensorboard"
        )


_ANSWER_SECONDS: Final[float] = 20.0


def let_share(server: viser.ViserServer) -> None:
    """Nobody but the user can publish the viewer; the name that a published one gets is answered to."""
    keep_unshared(server)
    _SHARED.append(weakref.ref(server))


_SHARED: list[weakref.ref[viser.ViserServer]] = []


def _shared_names() -> set[str]:
    servers = [server for reference in _SHARED if (server := reference()) is not None]
    return {urlsplit(address).hostname or "" for server in servers if (address := shared_address(server))}


def _prepare(protocol: Any, listening: str) -> None:
    """Guards one connection before anything is read from it."""
    names, trusted, answer = chosen_names(listening), trusted_names(), protocol.process_request
    use_filtered(protocol, _Flow().unwanted)

    async def process_request(path: str, headers: Any) -> Any:
        token = None if is_local(listening) or _from_here(protocol) else page_token()
        try:
            why = refusal(path, headers, {*names, *_shared_names()}, trusted, token)
        except (ValueError, LookupError):  # not an address at all, or a header that came twice
            why = "The request makes no sense."
        if why is not None:
            return http.HTTPStatus.FORBIDDEN, [("Content-Type", "text/plain")], f"{why}\n".encode()
        try:
            given = await answer(path, headers)
        except (ValueError, OSError):  # a path that is none
            return http.HTTPStatus.NOT_FOUND, [("Content-Type", "text/plain")], b"No such file.\n"
        if given is not None and token is not None:
            status, more, body = given
            cookie = f"{TOKEN_NAME}={token}; Path=/; HttpOnly; SameSite=Strict"
            given = status, [*dict(more).items(), ("Set-Cookie", cookie)], body
        return given

    protocol.process_request = process_request


def _from_here(protocol: Any) -> bool:
    address = protocol.remote_address
    return bool(address) and is_local(str(address[0]))


class _Flow:
    """How much one page says."""

    def __init__(self) -> None:
        self._since, self._count = time.monotonic(), 0

    def unwanted(self, data: Any) -> str | None:
        """Why a page that sends ``data`` is no page of ours; None where it may be one, and empty where it may be but
        this is of no use."""
        now = time.monotonic()
        if now - self._since > _FLOOD_SECONDS:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > MOST_MESSAGES * _FLOOD_SECONDS:
            return "too many messages"
        message = message_of(data) if isinstance(data, bytes) else None
        if message is None:
            return "not a message"
        if isinstance(message, GuiUpdateMessage):  # looked at when it is known of which control, and dropped
            return None
        if isinstance(message, ViewerCameraMessage):  # a page without height, in a window that is folded up, sends such
            return None if _believable(vars(message)) and _is_camera(message) else ""
        return None if _believable(vars(message)) else "not a message"


def _believable(value: Any) -> bool:
    """Whether all numbers within are finite, and of a size that something in a scene can have."""
    if isinstance(value, dict):
        return all(_believable(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return all(_believable(part) for part in value)
    return not isinstance(value, float) or abs(value) <= _LARGEST


def _is_camera(camera: ViewerCameraMessage) -> bool:
    """Whether one can look through it."""
    turned = math.hypot(*camera.wxyz)
    return 0.5 < turned < 2.0 and 1e-3 < camera.fov < math.pi - 1e-3 and 1e-3 < camera.aspect < 1e3


def plausible(control: Any, value: Any) -> bool:
    """Whether a page may set ``control`` to ``value``: numbers are finite, a choice is one of those offered, a text is
    not endless, and the name of a file stays in its folder."""
    options = getattr(control, "options", None)
    if options is not None:
        return isinstance(value, str) and value in options
    if isinstance(value, str):
        named = hint_of(control) == RENDER_NAME_HINT
        return len(value) <= LONGEST_VALUE and (not named or _NAME.fullmatch(value) is not None)
    numbers = value if isinstance(value, (list, tuple)) else (value,)
    return len(numbers) <= 16 and all(
        isinstance(number, bool) or (isinstance(number, (int, float)) and abs(number) <= _LARGEST) for number in numbers
    )


RENDER_NAME_HINT: Final[str] = "Name of the render"
"""By which nerfstudio's field for the name of a camera path is known: it becomes the name of a file."""
