"""What every request passes first: host, key, kind and size of the body; and last, where something went wrong."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glassformer.serving.api.errors import ApiError, as_api_error

LOG = logging.getLogger("glassformer.serving")

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine in the Host header. A page elsewhere whose name is made to point here brings its own name."""

_OPEN = ("/health",)
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Rules:
    """`key`: what a client must know, if anything; `hosts`: names that the server answers to (None: all); `free`:
    paths that need no key, such as those of the page, which holds nothing."""

    key: str | None = None
    hosts: tuple[str, ...] | None = LOCAL_HOSTS
    free: frozenset[str] = frozenset()
    body_bytes: int = 2**21
    body_seconds: float = 30.0


class Guard:
    """Middleware: refuses what breaks the rules before anything else looks at it, and answers what nobody caught.

    The body is read whole, up to its limit, and handed on. An exception is told to nobody but by its number, kind and
    place: its words may hold a prompt.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules
        self._expected = None if rules.key is None else f"Bearer {rules.key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def tracked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *_RAW_SAFE]
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            body = await self._body(headers, receive)
            await self.app(scope, _replayed(body, receive), tracked)
        except _Left:
            return
        except Exception as error:
            told = as_api_error(error) or report(error, scope["path"])
            if not begun:
                await told.response()(scope, receive, tracked)

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = self.rules.hosts
        named = headers.getlist("host")
        if hosts is not None and (len(named) != 1 or _host_name(named[0]) not in hosts):
            raise ApiError(403, f"this server answers to {', '.join(hosts)} only.", code="wrong_host")
        path = scope["path"]
        if self._expected is not None and path not in _OPEN and path not in self.rules.free:
            given = headers.get("authorization", "").encode("latin-1")  # the bytes as they came
            if not hmac.compare_digest(given, self._expected):
                message = "give the server's key: the header 'Authorization: Bearer KEY'."
                raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "the body must be JSON: send 'Content-Type: application/json'.")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        most = self.rules.body_bytes
        told = headers.get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:20]) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self.rules.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Left
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise _too_large(most)
                    more = message.get("more_body", False)
        except TimeoutError:
            late = f"the body must come within {self.rules.body_seconds:g} s."
            raise ApiError(408, late, headers={"Connection": "close"}) from None
        return b"".join(parts)


class _Left(Exception):  # noqa: N818 - no error of ours
    """The client went away before it had said all."""


_RAW_SAFE: Iterable[tuple[bytes, bytes]] = [(name.lower().encode(), value.encode()) for name, value in _SAFE.items()]


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body may have {most} bytes at most.", code="request_too_large")


def _host_name(host: str) -> str:
    """Without the port, in small letters: `[::1]:8000` → `[::1]`."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdigit() else host.strip().lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body first; after it comes what the server says itself: that the client has gone."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def report(error: Exception, path: str) -> ApiError:
    """Log where an exception of ours came from, without its words; what the client is told, with the same number."""
    number = secrets.token_hex(6)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    known = path if path.isascii() and path.isprintable() and len(path) < 100 else "another path"
    LOG.error("error %s: %s at %s, answering %s", number, type(error).__name__, where, known)
    return ApiError(500, f"something went wrong in the server; its log has it as error {number}.", code="server_error")
