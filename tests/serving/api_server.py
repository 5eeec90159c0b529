"""The HTTP API on a real port, in a thread of the test's own process, with tiny models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from serving.small_views import translator
from tasks.small_writers import reader, writer

from glassformer.models.config import Classification, MaskedLM, Sentence
from glassformer.serving.api.app import make_app
from glassformer.serving.api.limits import Limits
from glassformer.serving.api.service import Grounds, Service
from glassformer.tasks.model import Model

POSITIONS = 600


def models() -> dict[str, Model]:
    """One of each kind: a writer that chats, encoders, and a translator."""
    return {
        "writer": writer(positions=POSITIONS),
        "vectors": reader(Sentence()),
        "fills": reader(MaskedLM()),
        "labels": reader(Classification(("good", "bad"))),
        "translator": translator(),
    }


@dataclass(frozen=True)
class Running:
    """A server that runs: where, and what it serves."""

    url: str
    service: Service
    server: uvicorn.Server

    def client(self, **settings: Any) -> httpx.Client:
        """A client that asks it, and nobody else."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **settings)


@contextmanager
def serving(
    served: dict[str, Model] | None = None, limits: Limits | None = None, grounds: Grounds | None = None, **rules: Any
) -> Iterator[Running]:
    """A server, from the moment it is ready until it has stopped."""
    service = Service(served or models(), limits or Limits(), grounds or Grounds())
    config = uvicorn.Config(
        make_app(service, **rules), port=0, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=60
    )
    server, ready = uvicorn.Server(config), threading.Event()
    start_up = server.startup

    async def startup(sockets: Any = None) -> None:
        await start_up(sockets)
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", service, server)
    finally:
        service.close(0)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
