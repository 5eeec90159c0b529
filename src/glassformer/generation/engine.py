"""Decoding for rows that join and leave: what generates text, streams it or serves it runs here.

An `Engine` sees a network through its seam only: `start`, `step`, `read` and the state's `select`, `put`, `rewind` and
`grow`. What a row gets depends neither on its neighbours nor on how its prompt was cut into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.contrast import Contrast, Dola, WithAndWithout, contrasted
from glassformer.generation.decoding import evaluation
from glassformer.generation.requests import Event, Request, Result, Row, joined
from glassformer.generation.sampling import Spread, choose, log_probabilities
from glassformer.generation.stopping import FinishReason
from glassformer.text.tokenizer import Tokenizer

CHUNK = 512
"""Positions of a prompt that are read at a time: between two chunks the running rows go on."""

PROMPT_TOKENS = 8192
"""Prompts are read together up to so many ids, padding included."""

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


@dataclass
class _Joining:
    """Prompts that are read together before their rows join the others. `done` ids of each have been read."""

    rows: list[Row]
    state: Any = None
    done: int = 0
    logits: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        return max(len(row.ids) for row in self.rows)

    def pieces(self, end: int) -> list[list[int]]:
        """What each row reads next, up to `end`."""
        pieces = [row.ids[self.done : end] for row in self.rows]
        for place, (piece, row) in enumerate(zip(pieces, self.rows, strict=True)):
            if not piece:  # read to its end already; every row has to bring an id: its last one again
                self.state.rewind(place, len(row.ids) - 1)
                piece.append(row.ids[-1])
        return pieces


class Engine:
    """Answers requests together, at most `rows` at a time; a new one joins where one has ended.

    `add` takes a request, `step` goes one token further and tells what came. Keys and values take
    rows × positions × (2 · layers · heads · width of a head) numbers; positions are as many as the longest request
    needs, or `capacity` if that is more. Runs without gradients, and in evaluation mode. With a `contrast` it answers
    requests of that contrast alone.
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
    ) -> None:
        if rows < 1 or chunk < 1:
            raise InputError(f"'rows' and 'chunk' must be at least 1, got {rows} and {chunk}.")
        self.network, self.contrast = contrasted(network, contrast), contrast
        self.tokenizer, self.eos_ids = tokenizer, frozenset(eos_ids)
        self.rows, self.chunk, self.capacity, self.device = rows, chunk, capacity, device
        self.state: Any = None
        self._slots: list[Row | None] = []
        self._waiting: deque[Row] = deque()
        self._joining: deque[_Joining] = deque()
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
        if self._full(row) and not request.prompt_logprobs:
            self._told.append(Event(row.name, (), finish_reason="length"))
        elif state is not None:
            self._joining.append(_Joining([row], state, held))
        else:
            self._waiting.append(row)
        return row.name

    def cancel(self, name: int) -> None:
        """Drop a request, wherever it is; there will be no more events of it."""
        self._waiting = deque(row for row in self._waiting if row.name != name)
        for group in self._joining:
            for row in group.rows:
                row.over = row.over or row.name == name
        self._slots = [None if row and row.name == name else row for row in self._slots]

    def end(self, name: int, reason: FinishReason) -> Event:
        """End a request before its time; its last event, with the text that was held back."""
        seated = [row for row in self._slots if row and row.name == name]
        self.cancel(name)
        text = "".join(row.reader.finish() for row in seated if row.reader)
        return Event(name, (), text, finish_reason=reason)

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

    def _full(self, row: Row) -> bool:
        return row.new >= row.request.max_new_tokens or len(row.ids) >= self.network.config.max_length

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
            opened = [(row, self.network.opened(row.ids, row.request.without, self.chunk)) for row in taken]
            self._joining += [_Joining([row], state, len(row.ids) - 1) for row, state in opened]
            return
        taken.sort(key=lambda row: -len(row.ids))
        group: list[Row] = []
        for row in taken:
            if group and not self._fits(group, row):
                self._joining.append(_Joining(group))
                group = []
            group.append(row)
        self._joining.append(_Joining(group))

    def _fits(self, group: list[Row], row: Row) -> bool:
        longest = len(group[0].ids)
        return 2 * len(row.ids) >= min(longest, 2 * 64) and (len(group) + 1) * min(longest, self.chunk) <= PROMPT_TOKENS

    def _read(self) -> list[Event]:
        """Read a chunk of the first group's prompts; when they end, choose their first tokens and seat their rows."""
        group = self._joining[0]
        if group.state is None:
            alone = not any(self._slots)
            group.state = self.network.start(len(group.rows), self._need(group.rows) if alone else group.longest)
        elif group.state.capacity < group.longest:
            group.state.grow(self._need(group.rows))
        end = min(group.done + self.chunk, group.longest)
        self._read_chunk(group, end)
        group.done = end
        if end < group.longest:
            return []
        self._joining.popleft()
        first = [row for row in group.rows if not row.over and not self._full(row)]
        events = [
            Event(row.name, (), finish_reason="length", **row.told())
            for row in group.rows
            if not row.over and self._full(row)
        ]
        if first:
            places = [place for place, row in enumerate(group.rows) if row in first]
            logits = torch.stack([group.logits[place] for place in places])
            events += self._accept(first, logits, [group.states.get(place) for place in places])
            self._seat(group, [place for place, row in enumerate(group.rows) if row in first and not row.over])
        return events

    def _read_chunk(self, group: _Joining, end: int) -> None:
        pieces = group.pieces(end)
        width = max(map(len, pieces))
        ids = torch.tensor([piece + [0] * (width - len(piece)) for piece in pieces], device=self.device)
        lengths = torch.tensor([len(piece) for piece in pieces], device=self.device)
        level = all(len(piece) == width for piece in pieces)
        last: Tensor | None = None
        if any(row.prompt_logprobs or row.request.states for row in group.rows):
            hidden = self.network.read(ids, None if level else lengths, group.state)
            self._score(group, hidden, pieces)
            last = hidden[torch.arange(len(ids), device=hidden.device), lengths - 1]
            logits = self.network.logits(self.network.head(last))
        else:
            logits = self.network.step(ids, None if level else lengths, group.state)
        for place, row in enumerate(group.rows):
            if group.done < len(row.ids) <= end:
                group.logits[place] = logits[place]
                if last is not None:
                    group.states[place] = last[place]

    def _score(self, group: _Joining, hidden: Tensor, pieces: list[list[int]]) -> None:
        """Log-probabilities of the prompts' ids, each given those before it."""
        for place, (row, piece) in enumerate(zip(group.rows, pieces, strict=True)):
            following = row.ids[group.done + 1 : group.done + 1 + len(piece)]
            if row.prompt_logprobs and following:
                states = hidden[place, : len(following)]
                own, top = scored_tokens(self.network, states, following, row.request.logprobs or 0)
                row.prompt_logprobs += own
                row.prompt_top_logprobs += top

    def _seat(self, group: _Joining, places: list[int]) -> None:
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
        live = [slot for slot, row in enumerate(self._slots) if row]
        # rows that have ended stay, so that shapes do, until they are half of all
        if 2 * len(live) <= len(self._slots) and not self._waiting and not self._joining:
            self.state.select(torch.tensor(live, device=self.device))
            self._slots = [self._slots[slot] for slot in live]
            live = list(range(len(live)))
        for slot, row in enumerate(self._slots):
            if row is None:
                self.state.rewind(slot, 0)
        ids = torch.tensor([[row.ids[-1] if row else 0] for row in self._slots], device=self.device)
        rows, states = [row for row in self._slots if row], None
        if any(row.request.states for row in rows):
            states = self.network.read(ids, None, self.state)[:, -1]
            logits = self.network.logits(self.network.head(states))
        else:
            logits = self.network.step(ids, None, self.state)
        if len(live) < len(self._slots):
            logits, states = logits[live], None if states is None else states[live]
        events = self._accept(rows, logits, states)
        self._slots = [None if row is None or row.over else row for row in self._slots]
        return events

    def _accept(self, rows: list[Row], logits: Tensor, states: Tensor | Sequence[Tensor | None] | None) -> list[Event]:
        """Choose the next token of every row; `states` are what the logits were made from, where they are kept."""
        tokens = choose(logits, rows)
        told: list[dict[str, Any]] = [{} for _ in rows]
        total: Tensor | None = None
        if any(row.request.uncertainty for row in rows):
            unsure = Spread.of(logits)
            total = unsure.total
            for row, each, entropy, margin in zip(rows, told, unsure.entropies, unsure.margins, strict=True):
                if row.request.uncertainty:
                    each.update(entropies=(entropy,), margins=(margin,))
        wanted = [row.request.logprobs for row in rows if row.request.logprobs is not None]
        if wanted:
            found = log_probabilities(logits, tokens, max(wanted), total)
            for row, each, own, top in zip(rows, told, *found, strict=True):
                if (count := row.request.logprobs) is not None:
                    each.update(logprobs=(own,), top_logprobs=(top[:count],) if count else ())
        for row, each, state in zip(rows, told, states if states is not None else (), strict=False):
            if row.request.states and state is not None:
                each.update(states=state[None].float().cpu().clone())
        return [self._take(row, token, each) for row, token, each in zip(rows, tokens.tolist(), told, strict=True)]

    def _take(self, row: Row, token: int, told: dict[str, Any]) -> Event:
        """The next token of one row, what is told beside it, and whether it is the last."""
        row.ids.append(token)
        if row.place:
            row.place.accept(token)
        ended = token in self.eos_ids and not row.request.ignore_eos
        text = row.reader.push(token) if row.reader and not ended else ""
        stopped = ended or bool(row.reader and row.reader.stopped) or bool(row.place and row.place.ended)
        reason: FinishReason | None = "stop" if stopped else "length" if self._full(row) else None
        if reason and row.reader:
            text += row.reader.finish()
            if row.reader.stopped:  # a decoder that gives its text late
                reason = "stop"
        row.over = reason is not None
        return Event(row.name, (token,), text, finish_reason=reason, **row.told(), **told)


def token_logprobs(network: Any, states: Tensor, ids: Sequence[int], at_once: int = 128) -> list[float]:
    """log p(ids[i] | states[i]), without all logits of a long text at a time."""
    return scored_tokens(network, states, ids, 0, at_once)[0]


def scored_tokens(
    network: Any, states: Tensor, ids: Sequence[int], count: int, at_once: int = 128
) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
    """The same, and the `count` most probable ids in each place with theirs."""
    found: list[float] = []
    best: list[tuple[tuple[int, float], ...]] = []
    for start in range(0, len(ids), at_once):
        wanted = torch.tensor(ids[start : start + at_once], device=states.device)
        logits = network.logits(network.head(states[start : start + at_once]))
        own, top = log_probabilities(logits, wanted, count)
        found += own
        best += top
    return found, best


def generate(engine: Engine, requests: Sequence[Request]) -> list[Result]:
    """Answer all requests with an engine that has no others; results are in the order of the requests."""
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids))  # prompts of like length join together
    events: dict[int, list[Event]] = {engine.add(requests[i]): [] for i in order}
    while engine.busy:
        for event in engine.step():
            events[event.request].append(event)
    results = dict(zip(order, map(joined, events.values()), strict=True))
    return [results[i] for i in range(len(requests))]
