"""POST /v1/trace: what happens in a model while it reads a text, one view at a time, as the page draws it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import Field

from glassformer.serving.api.bodies import Body
from glassformer.serving.api.errors import too_long
from glassformer.serving.api.service import Served, Service
from glassformer.serving.api.streaming import EventStream, event
from glassformer.serving.api.work import unless_gone
from glassformer.serving.progress import Stopped
from glassformer.serving.views import make_view

Text = Annotated[str, Field(max_length=20_000)]

View = Literal["tokens", "attention", "positions", "lens", "patching", "truth", "walk"]


class Options(Body):
    """What views have of their own: `packed` patterns of "attention", the place of a "walk"."""

    packed: bool | None = None
    layer: int | None = None
    head: int | None = None
    site: Annotated[str, Field(max_length=200)] | None = None
    place: int | None = None


class TraceBody(Body):
    """`target` is what an encoder-decoder is to write, `patch_from` the text that "patching" takes states from,
    `options` are the view's own. With `stream`, events tell how far the work has come, and at last the document."""

    model: str
    view: View
    text: Text
    target: Text | None = None
    patch_from: Text | None = None
    options: Options | None = None
    stream: bool = False


def add_tracing(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post("/v1/trace", tags=["Glassformer"])
    async def trace(http: Request, body: TraceBody) -> Response:
        """The document of one view of a text; `serving.documents` says what is in it."""
        tracing = Tracing(service, service.of(body.model), body)
        return EventStream(tracing.parts()) if body.stream else await tracing.whole(http)


class Tracing:
    """One view that is being made on a worker thread; it stops between two parts of the work when nobody waits."""

    def __init__(self, service: Service, served: Served, body: TraceBody) -> None:
        self._service, self._served, self._body = service, served, body
        self._end = time.monotonic() + service.limits.seconds
        self._gone = threading.Event()
        self._told: asyncio.Queue[float | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        last = -1.0

        def progress(share: float) -> None:
            nonlocal last
            if share - last >= 0.01 or share == 1:
                last = share
                loop.call_soon_threadsafe(self._told.put_nowait, round(share, 4))

        self._future = service.work.begin(lambda: self._made(progress))
        self._future.add_done_callback(lambda future: self._told.put_nowait(None))

    def _made(self, progress: Callable[[float], None]) -> str:
        """The document as JSON; long ones take a while to write, so that is done here too."""
        body = self._body
        options: dict[str, Any] = body.options.model_dump(exclude_unset=True) if body.options else {}
        if body.view == "truth":
            grounds = self._service.grounds
            own = grounds.risk if grounds.calibrated == self._served.name else None
            options |= {"documents": grounds.documents, "risk": own}
            options |= {} if grounds.reader is None else {"reader": grounds.reader}
        try:
            document = make_view(
                self._served.model,
                body.view,
                body.text,
                target=body.target,
                patch_from=body.patch_from,
                name=self._served.name,
                on_progress=progress,
                stopped=self._stopped,
                options=options,
                passes=self._served.passes,
            )
        except Stopped:
            raise too_long(self._service.limits.seconds) from None
        return json.dumps(document, allow_nan=False, separators=(",", ":"))

    def _stopped(self) -> bool:
        return self._gone.is_set() or self._service.stopping or time.monotonic() > self._end

    async def whole(self, http: Request) -> Response:
        """The document alone."""
        try:
            return Response(await unless_gone(http, self._future), media_type="application/json")
        finally:
            self._gone.set()

    async def parts(self) -> AsyncGenerator[bytes]:
        """`{"progress": 0…1}` again and again, then `{"document": …}`."""
        try:
            while (share := await self._told.get()) is not None:
                yield event({"progress": share})
            yield b'data: {"document":' + (await self._future).encode() + b"}\n\n"
        finally:
            self._gone.set()
            self._future.cancel()
