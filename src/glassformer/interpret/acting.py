"""What a plan does at a tap, for some rows of the texts: keep values, or put others in their place.

A tap may see its positions in several goes (a recurrence that feeds its input, decoding step by step): each function
counts how many it has seen. All that varies is in tensors, so that a compiled plan serves other texts of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.interpret.expressions import Kind
from glassformer.interpret.inputs import Rows
from glassformer.interpret.spans import Places

AXIS: dict[Kind, int] = {"stream": 1, "heads": 2, "pattern": 2, "rows": 0}
"""The axis of positions, or of queries."""


class Window:
    """Where a tap is in the texts: slots of the positions that it sees this time.

    What is written after the texts has slot 0 where the span goes on beyond them. An edit that has a value for each
    slot has none for it, and is not `lasting`.
    """

    def __init__(self, places: Places, rows: Rows, length: int, lasting: bool = True) -> None:
        self.slots = places.slots(length)[rows]
        self.later = -1 if not places.beyond else 0
        self.lasting = lasting or not places.beyond
        self.seen = 0

    def next(self, count: int) -> Int[Tensor, "b t"]:
        """The slots of the next `count` positions."""
        begin, self.seen = self.seen, self.seen + count
        return self.first(self.seen)[:, begin:]

    def first(self, count: int) -> Int[Tensor, "b t"]:
        """The slots of the first `count` positions."""
        missing = count - self.slots.shape[1]
        if missing <= 0:
            return self.slots[:, :count]
        if not self.lasting:
            raise InputError(
                "the edit has a value for each position of the text, and none for what is written after it: "
                "name 'prompt' instead of '*'."
            )
        return torch.cat((self.slots, self.slots.new_full((len(self.slots), missing), self.later)), 1)


class Put:
    """The value with `new(value, slots)` in place of the chosen positions, keys and heads."""

    def __init__(
        self,
        kind: Kind,
        new: Callable[[Tensor, Tensor], Tensor],
        at: Window,
        of: Window | None,
        heads: Sequence[int] | Tensor | None,
    ) -> None:
        """`heads` are those of all rows, or of each row its own, [b, H]."""
        self.kind, self.new, self.at, self.of, self.heads = kind, new, at, of, heads

    def __call__(self, value: Tensor) -> Tensor:
        if self.kind == "rows":
            return self.new(value, self.at.first(1))
        if self.kind == "pattern" and len(value) == 1 and len(self.at.slots) > 1:
            value = value.expand(len(self.at.slots), *value.shape[1:])  # a bias that all rows share
        slots = self.at.next(value.shape[AXIS[self.kind]])
        chosen = _shaped(slots >= 0, self.kind)
        if self.of is not None:
            chosen = chosen & (self.of.first(value.shape[-1]) >= 0)[:, None, None, :]
        if self.heads is not None:
            chosen = chosen & _picked(self.heads, value.shape[1], value.device)[..., None, None]
        return torch.where(chosen, self.new(value, slots).to(value.dtype), value)


class Cut:
    """Allowed edges of an attention: none from the chosen queries to the chosen keys, in the chosen heads."""

    def __init__(self, at: Window, of: Window, heads: Sequence[int] | None) -> None:
        self.at, self.of, self.heads = at, of, heads

    def __call__(self, query: Tensor, keys: int) -> Bool[Tensor, "b h q k"]:
        away = (self.at.next(query.shape[2]) >= 0)[:, None, :, None] & (self.of.first(keys) >= 0)[:, None, None, :]
        if self.heads is not None:
            away = away & _picked(self.heads, query.shape[1], query.device)[..., None, None]
        return ~away


class Keep:
    """Keeps what passes at the chosen positions, as it is; with gradients, the value that the rest is computed from."""

    def __init__(self, kind: Kind, heads: Sequence[int] | None, grad: bool) -> None:
        self.kind, self.heads, self.grad = kind, heads, grad
        self.values: list[Tensor] = []

    def __call__(self, value: Tensor) -> Tensor:
        if self.grad and not value.requires_grad:
            value = value.detach().requires_grad_()
        self.values.append(value if self.grad else value.detach())
        return value

    def gathered(self, value: Tensor, at: Places, of: Places | None) -> Tensor:
        """Of a whole value, the positions `at` (and keys `of`) and the heads: rows first, what is not real is zero."""
        if self.kind == "rows":
            return value
        if self.heads is not None:
            value = value[:, list(self.heads)]
        if self.kind == "pattern" and len(value) == 1:
            value = value.expand(len(at.index), *value.shape[1:])
        value = _taken(value, at, AXIS[self.kind])
        return value if of is None else _taken(value, of, 3)


class Chain:
    """Several functions at one tap, one after another."""

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self.functions = list(functions)

    def __call__(self, value: Tensor) -> Tensor:
        for function in self.functions:
            value = function(value)
        return value


class Cuts:
    """Several `Cut`s of one attention: an edge is there if none of them takes it away."""

    def __init__(self, functions: Sequence[Cut]) -> None:
        self.functions = list(functions)

    def __call__(self, query: Tensor, keys: int) -> Tensor:
        allowed = self.functions[0](query, keys)
        for function in self.functions[1:]:
            allowed = allowed & function(query, keys)
        return allowed


def payload(values: Tensor, kind: Kind, of: Window | None) -> Callable[[Tensor, Tensor], Tensor]:
    """For `Put`: at slot s the s-th of the given values, [b, k, D], [b, H, k, d] or [b, H, q, k]."""

    def new(value: Tensor, slots: Tensor) -> Tensor:
        if kind == "rows":
            return values
        spread = _at_slots(values, slots, AXIS[kind])
        return spread if of is None else _at_slots(spread, of.first(value.shape[-1]), 3)

    return new


def chosen_heads(values: Tensor, heads: Sequence[int] | None, count: int) -> Tensor:
    """Values of some heads [b, h, …] laid out as of all of them, zeros elsewhere."""
    if heads is None:
        return values
    whole = values.new_zeros(len(values), count, *values.shape[2:])
    whole[:, list(heads)] = values
    return whole


def _picked(heads: Sequence[int] | Tensor, count: int, device: torch.device) -> Bool[Tensor, "... H"]:
    """Which of all heads are chosen."""
    if isinstance(heads, Tensor):
        return heads
    picked = torch.zeros(count, dtype=torch.bool, device=device)
    picked[list(heads)] = True
    return picked


def _shaped(chosen: Tensor, kind: Kind) -> Tensor:
    return chosen[:, :, None] if kind == "stream" else chosen[:, None, :, None]


def _taken(value: Tensor, places: Places, axis: int) -> Tensor:
    """`value` at the places' indices along `axis`, zeros where they are not real."""
    k = places.index.shape[1]
    shape = [len(value)] + [1] * (value.ndim - 1)
    shape[axis] = k
    wide = list(value.shape)
    wide[axis] = k
    found = value.gather(axis, places.index.reshape(shape).expand(wide))
    return torch.where(places.real.reshape(shape), found, 0.0)


def _at_slots(values: Tensor, slots: Tensor, axis: int) -> Tensor:
    """values[…, slots, …] along `axis`; where there is no slot, anything."""
    shape = [len(slots)] + [1] * (values.ndim - 1)
    shape[axis] = slots.shape[1]
    wide = [len(slots), *values.shape[1:]]
    wide[axis] = slots.shape[1]
    index = slots.clamp(0, values.shape[axis] - 1).reshape(shape).expand(wide)
    return values.expand(len(slots), *values.shape[1:]).gather(axis, index)
