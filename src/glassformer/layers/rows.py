"""Keys and values of rows that each have a length of their own, in tensors whose shapes never change.

A compiled step sees the same shapes from the first token to the last; only what is attended to grows, in strides.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.attention import KeysValues
from glassformer.layers.block import Remember

STRIDE = 64
"""A step attends to the first positions of the cache, so many at a time: enough for the longest row."""


def write_rows(
    keys: Float[Tensor, "B G K d"], values: Float[Tensor, "B G K d"], positions: Int[Tensor, "B T"]
) -> Remember:
    """A layer's memory: writes new keys and values at `positions` of their rows and returns all K of them."""

    def remember(new: KeysValues) -> KeysValues:
        for held, fresh in zip((keys, values), new, strict=True):
            held.scatter_(2, positions[:, None, :, None].expand_as(fresh), fresh.to(held.dtype))
        return keys, values

    return remember


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

    def advance(self, width: int, lengths: Int[Tensor, "B"] | list[int] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Make room for `lengths[b]` new ids in row b (None: all `width`): their positions [B, width], and the keys
        and values to attend to. Raises `InputError` beyond the capacity."""
        end = max(self.lengths) + width
        if end > self.capacity:
            raise InputError(f"decoding needs {end} positions, the state was opened for {self.capacity}.")
        device = self.keys.device
        positions = torch.tensor(self.lengths, device=device)[:, None] + torch.arange(width, device=device)
        new = [width] * len(self.lengths) if lengths is None else [int(length) for length in lengths]
        self.lengths = [old + more for old, more in zip(self.lengths, new, strict=True)]
        window = min(-(-end // STRIDE) * STRIDE, self.capacity)
        return positions, self.keys[:, :, :, :window], self.values[:, :, :, :window]

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
