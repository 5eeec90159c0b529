"""The way of events from the thread that answers to those who asked, be they threads or coroutines."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from glassformer.generation.requests import Event, Request
from glassformer.serving.prefixes import Ids

Told = Event | BaseException | None
"""What a stream is told: an event, what went wrong, or that there is no more."""


@dataclass(eq=False)
class Answer:
    """One request on the side of the thread that answers it.

    `told` carries what came to whoever asked; `called` is whether that one has been called since. `loop` is that one's
    event loop, from the first time it had to wait; `waiter` is what it waits for, touched in that loop only.
    """

    request: Request
    ids: Ids
    late: float | None = None
    asked: float = field(default_factory=time.monotonic)
    spoke: float = 0.0
    name: int = -1
    reused: int = 0
    over: bool = False
    called: bool = False
    told: queue.SimpleQueue[Told] = field(default_factory=queue.SimpleQueue)
    loop: asyncio.AbstractEventLoop | None = None
    waiter: asyncio.Future[None] | None = None

    async def wait(self) -> Told:
        """What is told next; waits for it without holding up the loop."""
        self.loop = asyncio.get_running_loop()  # before looking: whoever tells something looks for a loop after it
        while True:
            with suppress(queue.Empty):
                return self.told.get_nowait()
            self.waiter = self.loop.create_future()
            await self.waiter

    def wake(self) -> None:
        """In the loop: there is something."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


def wake(answers: Iterable[Answer]) -> None:
    """From any thread: each loop is called once for all of its answers that have been told something."""
    loops: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        if answer.loop is not None:
            loops.setdefault(answer.loop, []).append(answer)
    for loop, own in loops.items():
        with suppress(RuntimeError):  # a loop that was closed has nobody waiting
            loop.call_soon_threadsafe(_wake_all, own)


def _wake_all(answers: Iterable[Answer]) -> None:
    for answer in answers:
        answer.wake()


class Stream:
    """The events of one request as they come: `async for event in stream`, or `for event in stream.events()`.

    The last event has a `finish_reason`. What goes wrong is raised where the next event was awaited. Whoever stops
    listening calls `cancel`, or drops the stream: its place is free from the next step on. One listener at a time.
    """

    def __init__(self, answer: Answer, leave: Callable[[Answer], None]) -> None:
        self._answer, self._leave, self._ended = answer, leave, False

    @property
    def request(self) -> Request:
        """What was asked."""
        return self._answer.request

    @property
    def reused(self) -> int:
        """How many of the prompt's tokens had been read for an earlier request; known from the first event on."""
        return self._answer.reused

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = None if self._ended else self._taken(await self._answer.wait())
        if event is None:
            raise StopAsyncIteration
        return event

    def events(self) -> Iterator[Event]:
        """The events, for a thread: waits for each."""
        while not self._ended and (event := self._taken(self._answer.told.get())) is not None:
            yield event

    def _taken(self, told: Told) -> Event | None:
        self._ended = not isinstance(told, Event) or told.finish_reason is not None
        if isinstance(told, BaseException):
            raise told
        return told

    def cancel(self) -> None:
        """Ask for no more: from any thread, at any time, as often as one likes."""
        if not self._ended:
            self._leave(self._answer)

    def __del__(self) -> None:
        self.cancel()
