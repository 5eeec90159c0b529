"""Many runs, each of which differs from a first one from some block and position on, packed into one row.

Only the positions that differ are computed. They lie one run after another, and runs join at the block of their edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.layers.attention import attention
from glassformer.layers.block import Stack
from glassformer.layers.masks import recent_mask, seen_mask
from glassformer.layers.rows import Attending, KeysValues

PIECE = 1024
"""Attention is computed for runs of so many positions at once, so that what it gathers stays in the caches."""


@dataclass(frozen=True)
class Runs:
    """Which runs a row holds: of run e the positions from `first[e]` to `last[e]` of text `text[e]`."""

    text: Int[Tensor, e]
    first: Int[Tensor, e]
    last: Int[Tensor, e]

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def of(cls, several: Sequence[Runs]) -> Runs:
        """One after another."""
        return cls(*(torch.cat([getattr(each, name) for each in several]) for name in ("text", "first", "last")))

    @cached_property
    def counts(self) -> Int[Tensor, e]:
        """How many positions each has."""
        return self.last - self.first + 1

    @cached_property
    def begins(self) -> Int[Tensor, e]:
        """Where in the row each begins."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def run(self) -> Int[Tensor, N]:
        """The run that each place of the row is of."""
        return torch.arange(len(self), device=self.text.device).repeat_interleave(self.counts)

    @cached_property
    def positions(self) -> Int[Tensor, N]:
        """The position in its text of each place of the row."""
        places = torch.arange(len(self.run), device=self.text.device)
        return self.first[self.run] + places - self.begins[self.run]

    @cached_property
    def ends(self) -> Int[Tensor, e]:
        """Where in the row each ends."""
        return self.begins + self.counts - 1

    def picked(self, states: Float[Tensor, "e t D"], begin: int) -> Float[Tensor, "N D"]:
        """The row, of states from position `begin` on of each run by itself."""
        return states[self.run, self.positions - begin]


@dataclass(frozen=True)
class Joining:
    """Runs that join the row, with what the next block reads of each in its positions."""

    runs: Runs
    states: Float[Tensor, "N D"]


def last_states(
    stack: Stack, memories: Sequence[KeysValues], joining: Mapping[int, Sequence[Joining]]
) -> Float[Tensor, "E D"]:
    """What the last block gives at the end of every run, in the order in which they joined.

    `joining[l]` are the runs that join before block l, or behind the last one; `memories` are keys and values [b, G, T,
    d] of each block when the texts were first run.
    """
    depth, row = len(stack.blocks), None
    for layer in range(depth):
        row = _together(row, joining.get(layer, ()))
        if row is not None and layer < depth - 1:
            row = Joining(row.runs, _block(stack, layer, row, memories[layer]))
    found = [] if row is None else [_last_block(stack, row, memories[-1])]
    return torch.cat(found + [each.states[each.runs.ends] for each in joining.get(depth, ())])


def _together(row: Joining | None, more: Sequence[Joining]) -> Joining | None:
    rows = [*([] if row is None else [row]), *more]
    if not rows:
        return None
    return Joining(Runs.of([each.runs for each in rows]), torch.cat([each.states for each in rows]))


def _block(stack: Stack, layer: int, row: Joining, kept: KeysValues) -> Float[Tensor, "N D"]:
    """The row behind a block."""
    memory = _Memory(kept, row.runs, row.runs, None, stack.blocks[layer].self_attention.band)
    return _run(stack, layer, row.states, row.runs.positions, memory)


def _last_block(stack: Stack, row: Joining, kept: KeysValues) -> Float[Tensor, "e D"]:
    """Behind the last block only the ends are of use."""
    runs, layer = row.runs, len(stack.blocks) - 1
    offered = stack.offers(row.states[None], layer, runs.positions[None])
    ends = Runs(runs.text, runs.last, runs.last)
    memory = _Memory(kept, runs, ends, offered, stack.blocks[layer].self_attention.band)
    return _run(stack, layer, row.states[runs.ends], runs.last, memory)


def _run(stack: Stack, layer: int, x: Tensor, positions: Tensor, memory: _Memory) -> Tensor:
    remember = [memory] * len(stack.blocks)
    held = (memory.length, 1)
    return stack.onwards(x[None], layer, layer + 1, positions=positions[None], remember=remember, held=held)[0]


class _Memory(Attending):
    """One block's attention of a row: each run sees what was kept of its text, and its own from its first position on.

    `asking` are the places that have queries. `offered` are the row's keys and values, unless they come with them.
    `band` is how many keys the block's queries see, if not all.
    """

    banded = True

    def __init__(
        self, kept: KeysValues, runs: Runs, asking: Runs, offered: KeysValues | None, band: int | None
    ) -> None:
        self.kept, self.runs, self.asking, self.offered, self.band = kept, runs, asking, offered, band
        self.length = kept[0].shape[2]

    def attends(self, query: Float[Tensor, "1 H N d"], bias: Tensor | None) -> bool:
        """Always: nobody else knows what may be seen."""
        return True

    def attend(
        self, query: Float[Tensor, "1 H N d"], new: KeysValues, scale: float, bias: Tensor | None
    ) -> Float[Tensor, "1 H N d"]:
        """What each query finds; the row's attention is that of each run by itself."""
        keys, values = (
            self._all(old, own, query.shape[1]) for old, own in zip(self.kept, self.offered or new, strict=True)
        )
        mixed = torch.empty_like(query)
        for some in self._pieces():
            (asked, real, mask), seen = self._asked(some), self._seen(some)
            distances = None if bias is None else bias[0][:, asked]
            # heads come first, as they lie, and runs are in the place of heads: nothing has to be moved
            found = attention(query[0][:, asked], keys[:, seen], values[:, seen], mask, scale=scale, bias=distances)
            begin = int(asked[0, 0])
            mixed[0, :, begin : begin + int(real.sum())] = found[:, real]
        return mixed

    def _all(self, kept: Float[Tensor, "b G T d"], own: Float[Tensor, "1 G N d"], heads: int) -> Float[Tensor, "H M d"]:
        """Keys or values kept of all texts, then the row's, for every head of the queries."""
        everything = torch.cat((kept.transpose(0, 1).flatten(1, 2), own[0]), 1)
        groups = len(everything)
        return everything if groups == heads else everything.repeat_interleave(heads // groups, 0)

    def _pieces(self) -> Iterator[slice]:
        """Runs of which the attention is computed together."""
        step = max(1, PIECE // self.length)
        for first in range(0, len(self.runs), step):
            yield slice(first, first + step)

    def _asked(self, some: slice) -> tuple[Int[Tensor, "e q"], Bool[Tensor, "e q"], Bool[Tensor, "1 e q T"]]:
        """Where the queries of some runs are, which of them are real and not padding, and what each may see."""
        counts = self.asking.counts[some, None]
        steps = torch.arange(int(counts.max()), device=counts.device)
        asked = self.asking.begins[some, None] + steps.minimum(counts - 1)
        positions = self.asking.first[some, None] + steps
        seen = seen_mask(positions, self.length)
        if self.band is not None:
            seen = seen & recent_mask(positions, self.length, self.band)
        return asked, steps < counts, seen.transpose(0, 1)

    def _seen(self, some: slice) -> Int[Tensor, "e T"]:
        """The key of each position of some runs: its place among those kept of all texts and, after them, the row's."""
        runs, all_kept = self.runs, len(self.kept[0]) * self.length
        text, first, last, begins = (each[some, None] for each in (runs.text, runs.first, runs.last, runs.begins))
        position = torch.arange(self.length, device=text.device)
        own = (first <= position) & (position <= last)
        return torch.where(own, all_kept + begins + position - first, text * self.length + position)
