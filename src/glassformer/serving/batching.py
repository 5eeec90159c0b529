"""Continuous batching: requests from any thread or event loop, answered together by one engine on one thread.

Requests join and leave between two steps of the engine, a long prompt is read in chunks while the others go on, and
what an earlier request began with is not read again.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from glassformer.generation.engine import Engine, Service
from glassformer.generation.requests import Event, Request
from glassformer.serving.admission import Admission, memory_share
from glassformer.serving.counters import Counters, Figures
from glassformer.serving.prefixes import LEAST, Prefixes, as_ids, common
from glassformer.serving.streams import Answer, Stream, Told, wake

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

PREFIX_BYTES = 256 * 2**20
"""Keys and values of earlier texts that are kept for later ones."""


PAUSE = 0.1
"""Seconds that running answers wait, at most and about, for prompts that are read between two of their tokens."""

TOGETHER = 0.02
"""Seconds: tokens that come faster are handed over together, as each time takes the processor from the next token."""

_Command = tuple[Literal["ask", "leave", "look"], Answer | None]


class Full(RuntimeError):
    """There is no room in the queue: ask again in `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests are waiting; try again in {retry_after:.0f} s.")
        self.retry_after = retry_after


class Closed(RuntimeError):
    """The service is stopping and takes no more requests."""

    def __init__(self) -> None:
        super().__init__("the service is stopping and takes no more requests.")


class Batching:
    """A model as a service: up to `streams` requests are answered at once, up to `queue` more wait.

    It owns an engine and the one thread that steps it. `prefix_bytes` bounds the keys and values of earlier texts that
    are kept, so that a text which begins alike is read from there on only; 0 keeps none. `memory` bounds those of the
    texts that are generated (None: a third of what is free): more of them wait. What a request gets depends neither on
    the others nor on what was kept.
    """

    def __init__(
        self,
        model: Model,
        *,
        streams: int = 16,
        queue: int = 64,
        prefix_bytes: int = PREFIX_BYTES,
        memory: int | None = None,
    ) -> None:
        self.model, self.streams, self.queue, self.prefix_bytes = model, streams, queue, prefix_bytes
        self._prefixes = Prefixes(prefix_bytes)
        self._engine = self._make_engine()
        most = memory_share(1, model.device) if memory is None else memory
        self._admission = Admission(self._engine.network, most)
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._uncalled: dict[Answer, None] = {}  # those who have been told something that they do not know of
        self._called = 0.0
        self._lock = threading.Lock()
        self._open = 0
        self._refused = 0
        self._closing: float | None = None
        self._waiting: deque[Answer] = deque()
        self._running: dict[int, Answer] = {}
        self._counters = Counters()
        self._thread = threading.Thread(target=self._run, name="batching", daemon=True)
        self._thread.start()
        atexit.register(self.close, 0.0)  # a thread that is still computing must not meet the end of the interpreter

    def submit(self, request: Request, *, deadline: float | None = None) -> Stream:
        """Ask for an answer, from any thread or event loop; never waits.

        `deadline`: after so many seconds from now the answer ends with the `finish_reason` "deadline", wherever it is.
        Raises `InputError` for a request that cannot be answered, `Full` where the queue is full, and `Closed` once
        the service is stopping.
        """
        self._engine.check(request)
        self._admission.check(request)
        with self._lock:
            if self._closing is not None or not self._thread.is_alive():
                raise Closed
            if self._open >= self.streams + self.queue:
                self._refused += 1
                raise Full(self._retry_after())
            self._open += 1
            late = None if deadline is None else time.monotonic() + deadline
            answer = Answer(request, as_ids(request.ids), late)
            self._commands.put(("ask", answer))
        return Stream(answer, self._leave)

    def close(self, finish: float = 30.0) -> None:
        """Stop: no new requests from now on. Those that there are end by themselves, or after `finish` seconds with
        the `finish_reason` "shutdown". Returns when all have ended; may be called again."""
        with self._lock:
            if self._closing is None:
                self._closing = time.monotonic() + finish
            self._closing = min(self._closing, time.monotonic() + finish)
            self._commands.put(("look", None))
        self._thread.join()
        atexit.unregister(self.close)

    @property
    def figures(self) -> Figures:
        """What has been counted up to now."""
        counters = self._counters
        return Figures(
            alive=self._thread.is_alive(),
            streams=self.streams,
            running=len(self._running),
            waiting=max(self._open - len(self._running), 0),
            outcomes=dict(counters.outcomes),
            refused=self._refused,
            prompt_tokens=counters.prompt_tokens,
            reused_tokens=counters.reused_tokens,
            reused_requests=counters.reused_requests,
            prefix_bytes=self._prefixes.nbytes,
            generated_tokens=counters.generated_tokens,
            failures=counters.failures + self._engine.failures,
            first_token=counters.first_token.histogram(),
            between_tokens=counters.between_tokens.histogram(),
            whole=counters.whole.histogram(),
        )

    def _leave(self, answer: Answer) -> None:
        self._commands.put(("leave", answer))  # no lock: a stream may be dropped while its own thread holds one

    def _retry_after(self) -> float:
        """About how long it takes until a place in the queue is free."""
        whole = self._counters.whole
        mean = whole.total / max(sum(whole.counts), 1)
        return min(max(1.0, mean * (self._open - self.streams + 1) / self.streams), 60.0)

    def _make_engine(self) -> Engine:
        return self.model.engine(rows=self.streams, service=Service(PAUSE, self._prefixes.keep))

    # The thread.

    def _run(self) -> None:
        while self._closing is None or self._open:
            try:
                self._listen()
                self._end_late(time.monotonic())
                self._admit()
                if self._running:
                    self._step()
            except Exception as error:  # whatever it was, those who wait for the thread must not wait for ever
                self._fail(error)

    def _listen(self) -> None:
        """Take what has been asked; wait for it, where there is nothing else to do."""
        idle = not (self._running or self._waiting) and self._closing is None
        while True:
            try:
                kind, answer = self._commands.get(idle)
            except Empty:
                return
            idle = False
            if kind == "ask" and answer is not None:
                self._waiting.append(answer)
            elif kind == "leave" and answer is not None and not answer.over:
                self._drop(answer)
                self._end(answer, "cancelled", None)
                wake([answer])

    def _drop(self, answer: Answer) -> None:
        """No more work for an answer."""
        if answer.name < 0:
            self._waiting = deque(other for other in self._waiting if other is not answer)
        else:
            self._engine.cancel(answer.name)

    def _end_late(self, now: float) -> None:
        """End what has no time left, in a list of all that is open: there are few."""
        closing = self._closing is not None and now >= self._closing
        for answer in [*self._waiting, *self._running.values()]:
            late = answer.late is not None and now >= answer.late
            if late or closing:
                reason: Literal["deadline", "shutdown"] = "deadline" if late else "shutdown"
                event = self._engine.end(answer.name, reason)
                self._drop(answer)
                self._tell(answer, event, now)
                wake([answer])

    def _admit(self) -> None:
        """Give free places to those who have waited longest, but for those whose beginning is just being read."""
        passed: list[Answer] = []
        while self._waiting and len(self._running) < self.streams:
            answer = self._waiting.popleft()
            if not self._has_room(answer):  # nor have those behind it, or a long text would never have its turn
                passed.append(answer)
                break
            try:
                held, state = self._begun(answer)
                if self._soon_read(answer, held):
                    passed.append(answer)
                else:
                    self._start(answer, held, state())
            except Exception as error:  # a grammar without a beginning, no memory for a copy: its own, not the others'
                self._end(answer, "error", error)
                wake([answer])
        self._waiting.extendleft(reversed(passed))

    def _has_room(self, answer: Answer) -> bool:
        """Whether the keys and values of a text fit into memory beside the others'."""
        state = self._engine.state
        rows, positions = (0, 0) if state is None else (len(state.lengths), state.capacity)
        running = [other.request for other in self._running.values()]
        return self._admission.fits(running, answer.request, rows=rows, positions=positions)

    def _begun(self, answer: Answer) -> tuple[int, Callable[[], Any]]:
        """How much of a prompt has been read before, for one that ended or one that runs; what gives that state."""
        if answer.request.prompt_logprobs or not self.prefix_bytes:
            return 0, lambda: None
        held, state = self._prefixes.find(answer.ids)
        for name, other in self._running.items():
            shared = min(common(answer.ids, other.ids), len(answer.ids) - 1)
            if other.spoke and shared >= max(held + 1, LEAST) and (copy := self._engine.copied(name, shared)):
                held, state = shared, partial(_given, copy)
        return held, state

    def _soon_read(self, answer: Answer, held: int) -> bool:
        """Whether a prompt that is being read is half like this one: that half will not be read twice."""
        if answer.request.prompt_logprobs or not self.prefix_bytes:
            return False
        for other in self._running.values():
            if not other.spoke and not other.request.prompt_logprobs:
                shared = common(answer.ids[:-1], other.ids)
                if shared >= held + 2 * LEAST and 2 * shared >= max(len(answer.ids), len(other.ids)):
                    return True
        return False

    def _start(self, answer: Answer, held: int, state: Any) -> None:
        self._call_all(time.monotonic())  # reading a prompt takes longer than a token
        answer.name = self._engine.add(answer.request, state, held)
        self._running[answer.name] = answer
        answer.reused = held
        self._counters.prompt_tokens += len(answer.request.ids)
        self._counters.reused_tokens += held
        self._counters.reused_requests += bool(held)

    def _step(self) -> None:
        try:
            events = self._engine.step()
        except Exception as error:  # what the engine did not catch itself
            self._fail(error)
            return
        now = time.monotonic()
        told = []
        for event in events:
            if (answer := self._running.get(event.request)) is not None:
                self._tell(answer, event, now)
                told.append(answer)
        self._call(told, events, now)

    def _call(self, told: Iterable[Answer], events: Sequence[Event], now: float) -> None:
        """Call those who listen, `TOGETHER` after the last call at the soonest; first and last tokens do not wait."""
        self._uncalled.update(dict.fromkeys(told))
        ended = any(event.finish_reason is not None or event.error is not None for event in events)
        if ended or now - self._called >= TOGETHER or not all(one.called for one in self._running.values()):
            self._call_all(now)

    def _call_all(self, now: float) -> None:
        wake(self._uncalled)
        for answer in self._uncalled:
            answer.called = True
        self._uncalled.clear()
        self._called = now

    def _fail(self, error: Exception) -> None:
        """All that runs ends by an error; what waits goes on with a new engine."""
        self._counters.failures += 1 + self._engine.failures
        failed = list(self._running.values())
        self._engine = self._make_engine()
        for answer in failed:
            self._end(answer, "error", error)
        wake(failed)

    def _tell(self, answer: Answer, event: Event, now: float) -> None:
        counters = self._counters
        if event.ids:
            if answer.spoke:
                counters.between_tokens.add(now - answer.spoke)
            else:
                counters.first_token.add(now - answer.asked)
            answer.spoke = now
            counters.generated_tokens += len(event.ids)
        if event.error is not None:
            self._end(answer, "error", event.error)
        elif event.finish_reason is not None:
            self._end(answer, event.finish_reason, event)
        else:
            answer.told.put(event)

    def _end(self, answer: Answer, outcome: str, last: Told) -> None:
        """Count the end of an answer, give its place away and only then tell it."""
        answer.over = True
        self._running.pop(answer.name, None)
        self._counters.outcomes[outcome] += 1
        self._counters.whole.add(time.monotonic() - answer.asked)
        with self._lock:
            self._open -= 1
        answer.told.put(last)


def _given(state: Any) -> Any:
    return state
