"""Prompts on their way into an engine: read together, a chunk at a time, until their rows can go on with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glassformer.generation.requests import Row
from glassformer.generation.sampling import log_probabilities

PROMPT_TOKENS = 8192
"""Prompts are read together up to so many ids, padding included."""

_LEAST = 128  # fewer are computed in a slower way
_SPEED = 1000.0  # ids a second, before any has been seen

_ALIKE = 2 * 64  # prompts up to so long are alike, whatever their lengths

_PATIENCE = 5.0  # pauses, at most, that rows wait at a time for others which wait for their first token
_URGENCY = 4.0  # so many times as long as for one row that waits and one that runs, less 1


class Pace:
    """How many ids may be read in `pause` seconds, as measured of late."""

    def __init__(self, pause: float) -> None:
        self.pause, self._speed = pause, _SPEED

    @property
    def ids(self) -> int:
        """So many, all rows together; never less than is worth a step."""
        return self._within(self.pause)

    def patient(self, running: int, waiting: int) -> int:
        """So many may be read at once where that gives rows their first tokens: the more, the more of all rows wait
        for theirs. Few are held up then, for many, and many ids are read faster than few."""
        pauses = min(1 + _URGENCY * waiting / max(running, 1), _PATIENCE)
        return self._within(self.pause * pauses)

    def _within(self, seconds: float) -> int:
        return max(int(seconds * self._speed), _LEAST)

    def saw(self, ids: int, seconds: float) -> None:
        """So many ids took so long."""
        if ids >= _LEAST:
            self._speed += 0.25 * (ids / max(seconds, 1e-6) - self._speed)


@dataclass(eq=False)
class Joining:
    """Prompts that are read together before their rows join the others. Of each, `row.read` ids have been read."""

    rows: list[Row]
    state: Any = None
    logits: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """The most ids of a prompt, all in all."""
        return max(len(row.ids) for row in self.rows)

    @property
    def left(self) -> int:
        """The most ids that one of them still has to read."""
        return max(row.left for row in self.rows)

    def open(self, network: Any, capacity: int, device: torch.device | str) -> None:
        """A state for the rows, with what they brought."""
        first = self.rows[0]
        if len(self.rows) == 1 and first.state is not None:
            self.state, first.state = first.state, None
        else:
            self.state = network.start(len(self.rows), capacity)
        for place, row in enumerate(self.rows):
            if row.state is not None:
                self.state.put(torch.tensor([place], device=device), row.state)
                row.state = None
        if self.state.capacity < self.longest:
            self.state.grow(capacity)

    def read(self, network: Any, width: int, device: torch.device | str) -> None:
        """Read up to `width` ids more of each; of those that are read to their end, keep what follows."""
        pieces = self._pieces(width)
        width = max(map(len, pieces))
        ids = torch.tensor([piece + [0] * (width - len(piece)) for piece in pieces], device=device)
        lengths = torch.tensor([len(piece) for piece in pieces], device=device)
        level = all(len(piece) == width for piece in pieces)
        last: Tensor | None = None
        if any(row.prompt_logprobs or row.request.states for row in self.rows):
            hidden = network.read(ids, None if level else lengths, self.state)
            self._score(network, hidden, pieces)
            last = hidden[torch.arange(len(ids), device=hidden.device), lengths - 1]
            logits = network.logits(network.head(last))
        else:
            logits = network.step(ids, None if level else lengths, self.state)
        for place, (row, piece) in enumerate(zip(self.rows, pieces, strict=True)):
            if row.left == len(piece):
                self.logits[place] = logits[place]
                if last is not None:
                    self.states[place] = last[place]
            row.read = min(row.read + len(piece), len(row.ids))

    def _pieces(self, width: int) -> list[list[int]]:
        """What each row reads next, at most `width` ids."""
        pieces = [row.ids[row.read : row.read + width] for row in self.rows]
        for place, (piece, row) in enumerate(zip(pieces, self.rows, strict=True)):
            if not piece:  # read to its end already; every row has to bring an id: its last one again
                self.state.rewind(place, len(row.ids) - 1)
                piece.append(row.ids[-1])
        return pieces

    def _score(self, network: Any, hidden: Tensor, pieces: list[list[int]]) -> None:
        """Log-probabilities of the prompts' ids, each given those before it."""
        for place, (row, piece) in enumerate(zip(self.rows, pieces, strict=True)):
            following = row.ids[row.read + 1 : row.read + 1 + len(piece)]
            if row.prompt_logprobs and following:
                states = hidden[place, : len(following)]
                own, top = scored_tokens(network, states, following, row.request.logprobs or 0)
                row.prompt_logprobs += own
                row.prompt_top_logprobs += top


def grouped(rows: Sequence[Row], chunk: int, at_once: int = PROMPT_TOKENS) -> list[Joining]:
    """Rows in groups that are worth reading together: of like length, at most `at_once` ids in a chunk of all."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (row.read > 0, -row.left)):
        if groups and _fits(groups[-1], row, chunk, at_once):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [Joining(group) for group in groups]


def _fits(group: list[Row], row: Row, chunk: int, at_once: int) -> bool:
    longest = group[0].left
    if (row.read > 0) != (group[0].read > 0):  # a state in which nothing has been read attends without looking back
        return False
    together = [*group, row]  # all are padded to what the one with most left reads, wherever they stand
    if max(one.read for one in together) + max(one.left for one in together) > max(len(one.ids) for one in together):
        return False
    return 2 * row.left >= min(longest, _ALIKE) and (len(group) + 1) * min(longest, chunk) <= at_once


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
