"""Work that is no generation, on a few threads of its own: the event loop never waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request

from glassformer.serving.api.errors import Gone, busy, too_long
from glassformer.serving.batching import Closed
from glassformer.serving.threads import in_a_thread

S = TypeVar("S")
T = TypeVar("T")

AT_ONCE = 32
"""Texts of a request that are one piece of work: after each, others have their turn."""


class Work:
    """`workers` threads, for which at most `waiting` more pieces of work wait."""

    def __init__(self, workers: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="work")
        self._room = workers + waiting
        self.running = 0

    def begin(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have it done; what it will have given. Raises a 429 where too much is waiting."""
        if self.running >= self._room:
            raise busy(1.0)
        return self._submit(function)

    def _submit(self, function: Callable[[], T]) -> asyncio.Future[T]:
        try:
            future = asyncio.wrap_future(self._pool.submit(in_a_thread, function))
        except RuntimeError:  # it is closed
            raise Closed from None
        self.running += 1
        future.add_done_callback(self._ended)
        return future

    async def do(self, http: Request, function: Callable[[], T]) -> T:
        """What it gives. Raises `Gone` where the client does not wait for it; what has not begun then never will."""
        return await unless_gone(http, self.begin(function))

    async def parts(
        self, http: Request, function: Callable[[Sequence[S], int], Sequence[T]], items: Sequence[S], seconds: float
    ) -> list[T]:
        """What it gives for all items, some at a time; it is told the number of the first, from 1. Other work comes
        between. Raises as `do`, and a 503 where it takes more than about `seconds`."""
        end = time.monotonic() + seconds
        found: list[T] = []
        for start in range(0, len(items), AT_ONCE):
            if time.monotonic() > end:
                raise too_long(seconds)

            def piece(start: int = start) -> Sequence[T]:
                return function(items[start : start + AT_ONCE], start + 1)

            found += await unless_gone(http, self._submit(piece) if start else self.begin(piece))
        return found

    def _ended(self, future: asyncio.Future[T]) -> None:
        self.running -= 1
        if not future.cancelled():
            future.exception()  # seen, whether or not anybody still waits

    def close(self) -> None:
        """No more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def unless_gone(http: Request, answer: asyncio.Future[T]) -> T:
    """Await an answer as long as the client does. Raises `Gone`, and cancels what was awaited, where it goes away."""
    gone = asyncio.ensure_future(gone_away(http))
    try:
        both: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise Gone
    finally:
        gone.cancel()
        if not answer.done():
            answer.cancel()


async def gone_away(http: Request) -> None:
    """Returns when the client has gone; the body must have been read."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
