"""Decoding for rows that join and leave: what generates text, streams it or serves it runs here.

An `Engine` sees a network through its seam only: `start`, `step`, `read` and the state's `select`, `put`, `rewind` and
`grow`. What a row gets depends neither on its neighbours nor on how its prompt was cut into chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.contrast import Contrast, Dola, WithAndWithout, contrasted
from glassformer.generation.decoding import evaluation
from glassformer.generation.joining import PROMPT_TOKENS, Joining, Pace, grouped
from glassformer.generation.requests import Event, Request, Result, Row, joined
from glassformer.generation.stopping import FinishReason
from glassformer.generation.telling import Telling
from glassformer.text.tokenizer import Tokenizer

CHUNK = 512
"""Positions of a prompt that are read at a time: between two chunks the running rows go on."""

_CAPACITY_STEP = 64


class Continuing(Protocol):
    """The seam: what the engine asks of a network. `config` has `max_length` and `vocab_size`."""

    @property
    def config(self) -> Any: ...
    @property
    def head(self) -> Any: ...  # with `logits`, what `read` gives becomes logits: for what is told beside tokens
    @property
    def logits(self) -> Any: ...
    def start(self, rows: int, capacity: int) -> Any: ...
    def step(self, ids: Tensor, lengths: Tensor | None, state: Any) -> Tensor: ...
    def read(self, ids: Tensor, lengths: Tensor | None, state: Any) -> Tensor: ...


@dataclass(frozen=True)
class Service:
    """How an engine works for requests that do not know of each other.

    Running rows wait at most about `pause` seconds between two tokens for prompts to be read, and up to five times as
    long where these end with it and many wait for a first token. What goes wrong with one row ends that row alone, by
    an event with an `error`. `keep` is called when a row ends, with the ids that it has read and what gives, when
    called at once, a state of one row which has read them.
    """

    pause: float = 0.1
    keep: Callable[[list[int], Callable[[], Any]], None] | None = None


class Engine:
    """Answers requests together, at most `rows` at a time; a new one joins where one has ended.

    `add` takes a request, `step` goes one token further and tells what came. Keys and values take
    rows × positions × (2 · layers · heads · width of a head) numbers; positions are as many as the longest request
    needs, or `capacity` if that is more. Runs without gradients, and in evaluation mode. With a `contrast` it answers
    requests of that contrast alone. `failures` counts what went wrong in a `service`.
    """

    def __init__(
        self,
        network: Continuing,
        tokenizer: Tokenizer | None = None,
        *,
        eos_ids: Sequence[int] = (),
        rows: int = 32,
        chunk: int = CHUNK,
        capacity: int = 0,
        device: torch.device | str = "cpu",
        contrast: Contrast | None = None,
        service: Service | None = None,
    ) -> None:
        if rows < 1 or chunk < 1:
            raise InputError(f"'rows' and 'chunk' must be at least 1, got {rows} and {chunk}.")
        self.network, self.contrast = contrasted(network, contrast), contrast
        self.tokenizer, self.eos_ids = tokenizer, frozenset(eos_ids)
        self.rows, self.chunk, self.capacity, self.device = rows, chunk, capacity, device
        self.service, self.failures = service, 0
        self.state: Any = None
        self._telling = Telling(self.eos_ids, self.network.config.max_length, service is not None)
        self._pace = Pace(service.pause) if service else None
        self._turn = self._half = False
        self._slots: list[Row | None] = []
        self._waiting: deque[Row] = deque()
        self._joining: deque[Joining] = deque()
        self._told: list[Event] = []
        self._added = 0

    def add(self, request: Request, state: Any = None, held: int = 0) -> int:
        """Queue a request; the number by which events call it.

        `state` is that of one row which has read the request's first `held` ids before. Raises `InputError` for a
        prompt that is empty, longer than the model's positions or not made of its ids, and for what cannot hold.
        """
        self.check(request)
        row = Row(self._added, request, self.tokenizer)
        self._added += 1
        if state is not None:
            row.state, row.read = state, held
        if self._telling.full(row) and not request.prompt_logprobs:
            self._told.append(Event(row.name, (), finish_reason="length"))
        else:
            self._waiting.append(row)
        return row.name

    def cancel(self, name: int) -> None:
        """Drop a request, wherever it is; there will be no more events of it."""
        self._waiting = deque(row for row in self._waiting if row.name != name)
        for group in self._joining:
            for row in group.rows:
                row.over = row.over or row.name == name
        self._joining = deque(group for group in self._joining if not all(row.over for row in group.rows))
        for slot, seated in enumerate(self._slots):
            if seated is not None and seated.name == name:
                self._keep(seated, self.state, slot)
                self._slots[slot] = None

    def end(self, name: int, reason: FinishReason) -> Event:
        """End a request before its time; its last event, with the text that was held back."""
        seated = [row for row in self._slots if row and row.name == name]
        self.cancel(name)
        text = "".join(row.reader.finish() for row in seated if row.reader)
        return Event(name, (), text, finish_reason=reason)

    def copied(self, name: int, length: int) -> Any:
        """A state of one row that has read the first `length` ids of a request that runs; None where it cannot be."""
        for slot, row in enumerate(self._slots):
            if row is not None and row.name == name and length <= self.state.lengths[slot]:
                return self.state.row(slot, length) if self.state.can_rewind(slot, length) else None
        return None

    @property
    def busy(self) -> bool:
        """Whether any request has not ended."""
        return bool(self._told or self._waiting or self._joining or any(self._slots))

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One more token of every running row, and one more chunk of what is to join; what came of it."""
        events, self._told = self._told, []
        with evaluation(self.network):
            if any(self._slots):
                events += self._decode()
            self._admit()
            if self._joining:
                events += self._read()
        return events

    def check(self, request: Request) -> None:
        """`InputError` for what `add` would not take."""
        config = self.network.config
        if not request.ids:
            raise InputError("a prompt must have at least one id; begin with the model's first token.")
        if len(request.ids) > config.max_length:
            raise InputError(
                f"the prompt has {len(request.ids)} tokens, the model reads at most {config.max_length}: shorten it, "
                "or keep only its end with truncate=True."
            )
        for token in (*request.ids, *request.without):
            if not 0 <= token < config.vocab_size:
                raise InputError(f"ids must lie in [0, {config.vocab_size}), the model's vocabulary; got {token}.")
        for name in ("max_new_tokens", "logprobs"):
            value = getattr(request, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise InputError(f"'{name}' must be a whole number from 0, got {value!r}.")
        if request.stop and self.tokenizer is None:
            raise InputError("stop strings need the engine to have a tokenizer.")
        self._check_contrast(request)
        request.sampling.check(config.vocab_size)

    def _check_contrast(self, request: Request) -> None:
        if request.contrast != self.contrast:
            raise InputError(
                f"this engine's contrast is {self.contrast}, the request's {request.contrast}: one engine has one; "
                "a conversation has none."
            )
        if request.contrast is not None and (request.prompt_logprobs or request.states):
            raise InputError("with a contrast there are no 'prompt_logprobs' and no 'states': leave them out.")
        if isinstance(request.contrast, Dola) and request.schema is not None:
            raise InputError("DoLa leaves few tokens, a JSON schema may forbid all of these: leave out one of both.")
        if isinstance(self.network, WithAndWithout):
            self.network.check(request.ids, request.without)

    def _need(self, rows: Sequence[Row | None]) -> int:
        """Positions for the longest of these rows and of those that wait."""
        longest = self.network.config.max_length
        needs = [len(row.request.ids) + row.request.max_new_tokens for row in (*rows, *self._waiting) if row]
        need = max(needs, default=1)
        return min(max(-(-need // _CAPACITY_STEP) * _CAPACITY_STEP, self.capacity), longest)

    # Prompts are read.

    def _admit(self) -> None:
        """Let waiting requests join, in groups of like length, once enough places are free to be worth it."""
        free = self.rows - sum(row is not None for row in self._slots) - sum(len(g.rows) for g in self._joining)
        if not self._waiting or free < min(len(self._waiting), max(1, self.rows // 8)):
            return
        taken = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        if isinstance(self.network, WithAndWithout):  # prompts of two lengths: each pair is read alone, but its last id
            for row in taken:
                row.state, row.read = self.network.opened(row.ids, row.request.without, self.chunk), len(row.ids) - 1
                self._joining.append(Joining([row]))
            return
        at_once = PROMPT_TOKENS
        if self._pace is not None:
            at_once = self._patient(len(taken)) if any(self._slots) else max(self._pace.ids, self.chunk)
        self._joining += grouped(taken, self.chunk, at_once)

    def _patient(self, more: int = 0) -> int:
        """Ids that may be read at once where prompts end with them; `more` rows wait beside those that are queued."""
        assert self._pace is not None
        waiting = more + len(self._waiting) + sum(len(group.rows) for group in self._joining)
        return self._pace.patient(sum(row is not None for row in self._slots), waiting)

    def _read(self) -> list[Event]:
        """Read a chunk of a group's prompts; when they end, choose their first tokens and seat their rows."""
        group = self._next()
        try:
            self._read_chunk(group)
        except Exception as error:
            if self.service is None:
                raise
            return self._split(group, error)
        if group.left:
            return []
        self._joining.remove(group)
        events = [
            Event(row.name, (), finish_reason="length", **row.told())
            for row in group.rows
            if not row.over and self._telling.full(row)
        ]
        places = [p for p, row in enumerate(group.rows) if not row.over and not self._telling.full(row)]
        if places:
            logits = torch.stack([group.logits[place] for place in places])
            states = [group.states.get(place) for place in places]
            events += self._telling.tell([group.rows[place] for place in places], logits, states)
            self._leave(places, group.rows, group.state)
            self._try_to_seat(group, [place for place in places if not group.rows[place].over])
        return events

    def _next(self) -> Joining:
        """The group to read from: the first, and in a service every other time the one that has least to read."""
        self._turn = not self._turn
        return self._joining[0] if self._pace is None or self._turn else min(self._joining, key=lambda g: g.left)

    def _read_chunk(self, group: Joining) -> None:
        alone = not any(self._slots)
        if group.state is None:
            group.open(self.network, self._need(group.rows) if alone else group.longest, self.device)
        width, begin = self.chunk, time.perf_counter()
        if self._pace is not None and not alone and group.left * len(group.rows) > self._patient():
            width = min(width, max(self._pace.ids // len(group.rows), 1))
        width = min(width, group.left)
        group.read(self.network, width, self.device)
        if self._pace is not None:
            self._pace.saw(width * len(group.rows), time.perf_counter() - begin)

    def _try_to_seat(self, group: Joining, places: list[int]) -> None:
        try:
            self._seat(group, places)
        except Exception:
            if self.service is None:
                raise
            self._start_over([group.rows[place] for place in places])

    def _seat(self, group: Joining, places: list[int]) -> None:
        """The rows at `places` of the group join those that run."""
        if not places:
            return
        if not any(self._slots):
            self.state, self._slots = group.state, [None] * len(group.rows)
            for place in places:
                self._slots[place] = group.rows[place]
            self.state.grow(self._need(self._slots))
            return
        free = [place for place, row in enumerate(self._slots) if row is None]
        if (missing := len(places) - len(free)) > 0:
            here = len(self._slots)
            self.state.select(torch.tensor([*range(here), *[0] * missing], device=self.device))
            self._slots += [None] * missing
            free += range(here, here + missing)
        self.state.grow(self._need([*self._slots, *group.rows]))
        if len(places) < len(group.rows):
            group.state.select(torch.tensor(places, device=self.device))
        free = free[: len(places)]
        self.state.put(torch.tensor(free, device=self.device), group.state)
        for slot, place in zip(free, places, strict=True):
            self._slots[slot] = group.rows[place]

    # Rows go on.

    def _decode(self) -> list[Event]:
        try:
            slots, logits, states = self._next_logits()
        except Exception:
            if self.service is None:
                raise
            self._start_over([])
            return []
        rows = [row for slot in slots if (row := self._slots[slot]) is not None]
        events = self._telling.tell(rows, logits, states)
        self._leave(slots, self._slots, self.state)
        self._slots = [None if row is None or row.over else row for row in self._slots]
        return events

    def _next_logits(self) -> tuple[list[int], Tensor, Tensor | None]:
        """The slots that have a row, the logits of what follows there, and what these were made from, if asked for."""
        live = [slot for slot, row in enumerate(self._slots) if row]
        # rows that have ended stay, so that shapes do, until they are half of all; in a service a step longer, as those
        # whose answer has ended may ask anew
        half = 2 * len(live) <= len(self._slots) and not self._waiting and not self._joining
        shrinks, self._half = half and (self._half or self.service is None), half
        if shrinks:
            self.state.select(torch.tensor(live, device=self.device))
            self._slots = [self._slots[slot] for slot in live]
            live = list(range(len(live)))
        for slot, row in enumerate(self._slots):
            if row is None:
                self.state.rewind(slot, 0)
        ids, states = torch.tensor([[row.ids[-1] if row else 0] for row in self._slots], device=self.device), None
        if any(row.request.states for row in self._slots if row):
            states = self.network.read(ids, None, self.state)[:, -1]
            logits = self.network.logits(self.network.head(states))
        else:
            logits = self.network.step(ids, None, self.state)
        if len(live) < len(self._slots):
            logits, states = logits[live], None if states is None else states[live]
        return live, logits, states

    # A service: what ends is kept, what fails fails alone.

    def _leave(self, places: Sequence[int], rows: Sequence[Row | None], state: Any) -> None:
        for place in places:
            row = rows[place]
            if row is not None and row.over:
                self._keep(row, state, place)

    def _keep(self, row: Row, state: Any, place: int) -> None:
        if self.service is None or self.service.keep is None or row.request.prompt_logprobs:
            return
        length = state.lengths[place]
        try:
            self.service.keep(row.ids[:length], lambda: state.row(place, length))
        except Exception:  # no memory for a copy: nobody's answer needs it
            self.failures += 1

    def _split(self, group: Joining, error: Exception) -> list[Event]:
        """Reading a group failed: who is to blame shows when each of its rows is read alone."""
        self.failures += 1
        self._joining.remove(group)
        rows = [row for row in group.rows if not row.over]
        if len(group.rows) > 1:
            self._joining.extendleft(Joining([row.anew()]) for row in reversed(rows))
            return []
        return [self._telling.failed(row, error) for row in rows]

    def _start_over(self, more: Sequence[Row]) -> None:
        """Something went wrong with the rows that run: what has been read of them is not to be trusted any more."""
        self.failures += 1
        rows = [row for row in (*self._slots, *more) if row is not None and not row.over]
        self.state, self._slots = None, []
        self._joining.extendleft(Joining([row.anew()]) for row in reversed(rows))


def generate(engine: Engine, requests: Sequence[Request]) -> list[Result]:
    """Answer all requests with an engine that has no others; results are in the order of the requests."""
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids))  # prompts of like length join together
    events: dict[int, list[Event]] = {engine.add(requests[i]): [] for i in order}
    while engine.busy:
        for event in engine.step():
            events[event.request].append(event)
    results = dict(zip(order, map(joined, events.values()), strict=True))
    return [results[i] for i in range(len(requests))]
