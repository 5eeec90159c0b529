"""Keys and values of rows that each have a length of their own, in tensors whose shapes never change.

A compiled step sees the same shapes from the first token to the last; only what is attended to grows, in strides.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.kernels import at_hand
from glassformer.layers.kernels.ops import attend_rows
from glassformer.layers.masks import seen_mask

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each [B, G, K, d], of G ≤ H heads."""

STRIDE = 64
"""Without the kernel, a step attends to the first positions of the cache, so many at a time, up to the longest row."""


class Attending:
    """A memory that may answer queries by itself, where keys and values lie as only it knows."""

    banded: bool = False
    """Whether it keeps to the band of its layer by itself; else the layer does."""

    @property
    def positions(self) -> Tensor | None:
        """Where the queries stand [B, T] among what a call returns; None where they are the last of it."""
        return None

    @property
    def mask(self) -> Tensor | None:
        """What each query may attend to of what a call returns; None where being causal says it all."""
        raise NotImplementedError

    def __call__(self, new: KeysValues) -> KeysValues:
        """Keep `new`, and return all that is held."""
        raise NotImplementedError

    def attends(self, query: Float[Tensor, "B H T d"], bias: Tensor | None) -> bool:
        """Whether it will."""
        raise NotImplementedError

    def attend(
        self, query: Float[Tensor, "B H T d"], new: KeysValues, scale: float, bias: Tensor | None
    ) -> Float[Tensor, "B H T d"]:
        """Keep `new`, and what each query finds in all that it may see."""
        raise NotImplementedError


@dataclass(frozen=True)
class RowStep:
    """Where a step's new ids go: their positions, and how many of the first positions hold all that is to be seen.

    In a `fresh` state the new ones are all there is.
    """

    positions: Int[Tensor, "B T"]
    window: int
    fresh: bool = False

    @cached_property
    def mask(self) -> Bool[Tensor, "B 1 T K"] | None:
        """What each new position may attend to; None where being causal says it all."""
        return None if self.fresh else seen_mask(self.positions, self.window)


@dataclass(frozen=True)
class RowMemory(Attending):
    """One layer's part of a `RowState` in a step: called with new keys and values it keeps them, and returns all that
    may be seen; `attend` does that and the attention in one kernel."""

    keys: Float[Tensor, "B G C d"]
    values: Float[Tensor, "B G C d"]
    step: RowStep
    banded: bool = False

    @property
    def positions(self) -> Tensor | None:
        """See `Attending.positions`."""
        return None if self.step.fresh else self.step.positions

    def __call__(self, new: KeysValues) -> KeysValues:
        """Keep `new`; all that may be seen, where `mask` says what of it."""
        for held, more in zip((self.keys, self.values), new, strict=True):
            held.scatter_(2, self.step.positions[:, None, :, None].expand_as(more), more.to(held.dtype))
        return new if self.step.fresh else (self.keys[:, :, : self.step.window], self.values[:, :, : self.step.window])

    @property
    def mask(self) -> Bool[Tensor, "B 1 T K"] | None:
        """See `RowStep.mask`."""
        return self.step.mask

    def attends(self, query: Float[Tensor, "B H T d"], bias: Tensor | None) -> bool:
        """Whether the kernel is there and serves: on a CPU, in fp32 or bf16, without gradients and bias."""
        if bias is not None:
            return False
        known = query.dtype == self.keys.dtype and query.dtype in (torch.float32, torch.bfloat16)
        return known and query.device.type == "cpu" and not torch.is_grad_enabled() and at_hand("generation")

    def attend(
        self, query: Float[Tensor, "B H T d"], new: KeysValues, scale: float, bias: Tensor | None
    ) -> Float[Tensor, "B H T d"]:
        """Keep `new`, and what each query finds in all that it may see."""
        return attend_rows(query, *new, self.keys, self.values, self.step.positions, scale)


@dataclass
class RowState:
    """All that decoding remembers: keys and values [N layers, B rows, G heads, capacity, d] and every row's length.

    What lies at or beyond a row's length is leftovers; the mask of positions hides it. The lengths are known to the
    host as well, so that no step has to wait for a device.
    """

    keys: Float[Tensor, "N B G C d"]
    values: Float[Tensor, "N B G C d"]
    lengths: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = self.lengths or [0] * self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """The most positions of a row."""
        return self.keys.shape[3]

    def advance(self, width: int, lengths: Int[Tensor, "B"] | None) -> RowStep:
        """Make room for `lengths[b]` new ids in row b (None: all `width`). `InputError` beyond the capacity."""
        fresh = not any(self.lengths)
        end = max(self.lengths) + width
        if end > self.capacity:
            raise InputError(f"decoding needs {end} positions, the state was opened for {self.capacity}.")
        device = self.keys.device
        positions = torch.tensor([[length] for length in self.lengths], device=device)
        if width > 1:
            positions = positions + torch.arange(width, device=device)
        new = [width] * len(self.lengths) if lengths is None else [int(length) for length in lengths]
        self.lengths = [old + more for old, more in zip(self.lengths, new, strict=True)]
        return RowStep(positions, min(-(-end // STRIDE) * STRIDE, self.capacity), fresh)

    def memories(self, step: RowStep) -> list[RowMemory]:
        """What each layer remembers in a step."""
        return [RowMemory(keys, values, step) for keys, values in zip(self.keys, self.values, strict=True)]

    def select(self, rows: Int[Tensor, "B"]) -> None:
        """Row i continues old row rows[i]; rows may repeat, as hypotheses of a beam do, or be left out."""
        self.keys, self.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        self.lengths = [self.lengths[row] for row in rows.tolist()]

    def put(self, rows: Int[Tensor, "R"], other: "RowState") -> None:
        """Row rows[i] becomes row i of `other`, which may have less capacity: a row joins a running batch."""
        room = min(self.capacity, other.capacity)
        if max(other.lengths) > room:
            raise InputError(f"a row of {max(other.lengths)} positions does not fit into {room}.")
        self.keys[:, rows, :, :room] = other.keys[:, :, :, :room]
        self.values[:, rows, :, :room] = other.values[:, :, :, :room]
        for place, length in zip(rows.tolist(), other.lengths, strict=True):
            self.lengths[place] = length

    def row(self, row: int, length: int) -> "RowState":
        """A copy of the first `length` positions of one row, with room for these alone; it must be able to go back
        there."""
        keys, values = (held[:, row : row + 1, :, : self.lengths[row]] for held in (self.keys, self.values))
        one = RowState(keys, values)
        one.lengths = [self.lengths[row]]
        one.rewind(0, length)
        one.keys, one.values = one.keys[..., :length, :].clone(), one.values[..., :length, :].clone()
        return one

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def can_rewind(self, row: int, length: int) -> bool:
        """Always; a state with banded layers cannot go back to everywhere."""
        return True

    def rewind(self, row: int, length: int) -> None:
        """Forget what row `row` holds beyond its first `length` positions."""
        if not 0 <= length <= self.lengths[row]:
            raise InputError(f"row {row} has {self.lengths[row]} positions, it cannot go back to {length}.")
        self.lengths[row] = length

    def grow(self, capacity: int) -> None:
        """Room for more positions; what is held stays."""
        if capacity <= self.capacity:
            return
        more = (*self.keys.shape[:3], capacity - self.capacity, self.keys.shape[4])
        self.keys = torch.cat((self.keys, self.keys.new_zeros(more)), 3)
        self.values = torch.cat((self.values, self.values.new_zeros(more)), 3)
