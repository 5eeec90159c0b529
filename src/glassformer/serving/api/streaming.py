"""Server-sent events: written as they come; a client that goes away ends what makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from glassformer.serving.api.errors import as_api_error
from glassformer.serving.api.guard import report

DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event(content: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(content, allow_nan=False, separators=(",", ":")).encode() + b"\n\n"


class EventStream(Response):
    """An answer that is written part by part, `[DONE]` at its end; what goes wrong within is its last event but that.
    When it is over, or nobody reads it, `parts` is closed."""

    def __init__(self, parts: AsyncGenerator[bytes]) -> None:
        super().__init__(None, headers=_HEADERS, media_type="text/event-stream")
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        writing = asyncio.ensure_future(self._write(scope, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            for task in (writing, gone):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await self._parts.aclose()

    async def _write(self, scope: Scope, send: Send) -> None:
        try:
            async for part in self._parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except Exception as error:
            told = as_api_error(error) or report(error, str(scope["path"]))
            await send({"type": "http.response.body", "body": event(told.body()), "more_body": True})
        await send({"type": "http.response.body", "body": DONE, "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
