"""A process that serves: the address first, then the models; one line when it is ready; an end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn

from glassformer.errors import InputError
from glassformer.serving.api.app import make_app
from glassformer.serving.api.guard import LOCAL_HOSTS
from glassformer.serving.api.service import Service

_GRACE = 5
"""Seconds after `finish` in which what was said last reaches its clients."""


def check_exposure(host: str, key: str | None, insecure: bool) -> None:
    """`InputError` where others than this machine could ask without a key."""
    if key == "":
        raise InputError("the key is empty: give one of some length, or none.")
    if not (is_local(host) or key or insecure):
        raise InputError(
            f"on {host} everyone who reaches this machine could use the models: give --api-key (or "
            "GLASSFORMER_API_KEY), or --insecure if that is meant."
        )


def is_local(host: str) -> bool:
    """Whether an address is this machine's own, for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket for this address, so that nobody else takes it while models are loaded; 0 is any free port."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, number)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"port {port} of {host} cannot be used ({why}): give another --port or --host.") from None
    return found


def address_of(listening: socket.socket, host: str) -> str:
    """The address as a browser wants it."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, told what to do when it is ready and when it is to stop; it then ends with 0."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready, self._stop, self._stopping = ready, stop, False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As before, then ready."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The models' answers end, while the connections wait for them."""
        ending = asyncio.get_running_loop().run_in_executor(None, self._stop)
        await super().shutdown(sockets)
        if not self.force_exit:
            await ending

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop it; a second one does not wait."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    service: Service, listening: socket.socket, host: str, *, key: str | None, finish: float, ready: Callable[[], None]
) -> None:
    """Serve until a signal comes; then let the answers end within `finish` seconds, and return.

    Names that a Host header may have are checked where only this machine is served.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    hosts = LOCAL_HOSTS if is_local(host) else None
    app = make_app(service, key=key, hosts=(*LOCAL_HOSTS, _named(host)) if hosts else None)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=int(finish) + _GRACE,
        timeout_keep_alive=75,
        proxy_headers=False,
    )
    Server(config, ready, lambda: service.close(finish)).run([listening])


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()
