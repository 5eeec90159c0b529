"""From logits to events: the next token of every row, what is told beside it, and whether it is the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from glassformer.generation.requests import Event, Row
from glassformer.generation.sampling import Spread, choose, log_probabilities
from glassformer.generation.stopping import FinishReason

States = Tensor | Sequence[Tensor | None] | None


class Telling:
    """Chooses tokens and says what came of it. `ends` are the tokens that end a text, `positions` is the most ids that
    a text may have. With `apart`, what goes wrong with one row ends that row alone."""

    def __init__(self, ends: frozenset[int], positions: int, apart: bool = False) -> None:
        self.ends, self.positions, self.apart = ends, positions, apart

    def full(self, row: Row) -> bool:
        """Whether there is no room for another token."""
        return row.new >= row.request.max_new_tokens or len(row.ids) >= self.positions

    def tell(self, rows: list[Row], logits: Tensor, states: States) -> list[Event]:
        """The next token of every row; `states` are what the logits were made from, where they are kept."""
        if not self.apart:
            return self._told(rows, logits, states)
        chances = [row.generator.get_state() if row.sampling.temperature else None for row in rows]
        try:
            tokens = choose(logits, rows)
        except Exception as error:
            if len(rows) == 1:
                return [self.failed(rows[0], error)]
            for row, chance in zip(rows, chances, strict=True):  # some may have drawn before another one failed
                if chance is not None:
                    row.generator.set_state(chance)
            own = [None if states is None else states[place : place + 1] for place in range(len(rows))]
            alone = [self.tell([row], logits[i : i + 1], own[i]) for i, row in enumerate(rows)]
            return [event for events in alone for event in events]
        return self._told(rows, logits, states, tokens)

    def failed(self, row: Row, error: Exception) -> Event:
        """The end of a row by an error."""
        row.over = True
        return Event(row.name, (), error=error)

    def _told(self, rows: list[Row], logits: Tensor, states: States, tokens: Tensor | None = None) -> list[Event]:
        tokens = choose(logits, rows) if tokens is None else tokens
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
        return [self._taken(row, token, each) for row, token, each in zip(rows, tokens.tolist(), told, strict=True)]

    def _taken(self, row: Row, token: int, told: dict[str, Any]) -> Event:
        try:
            return self._take(row, token, told)
        except Exception as error:
            if not self.apart:
                raise
            return self.failed(row, error)

    def _take(self, row: Row, token: int, told: dict[str, Any]) -> Event:
        row.ids.append(token)
        if row.place:
            row.place.accept(token)
        ended = token in self.ends and not row.request.ignore_eos
        text = row.reader.push(token) if row.reader and not ended else ""
        stopped = ended or bool(row.reader and row.reader.stopped) or bool(row.place and row.place.ended)
        reason: FinishReason | None = "stop" if stopped else "length" if self.full(row) else None
        if reason and row.reader:
            text += row.reader.finish()
            if row.reader.stopped:  # a decoder that gives its text late
                reason = "stop"
        row.over = reason is not None
        return Event(row.name, (token,), text, finish_reason=reason, **row.told(), **told)
