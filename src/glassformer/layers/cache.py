"""Keys and values already seen, so that a decoding step computes only what is new."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.attention import KeysValues
from glassformer.layers.masks import causal_mask, seen_mask


class KeyValueCache:
    """One layer's keys and values for up to `capacity` positions a row; every row has its own length.

    Positions at or beyond a row's length hold leftovers; the mask of the caller hides them.
    """

    def __init__(self, rows: int, n_heads: int, capacity: int, d_head: int, like: Tensor) -> None:
        self.keys = like.new_zeros(rows, n_heads, capacity, d_head)
        self.values = like.new_zeros(rows, n_heads, capacity, d_head)
        self._spare: tuple[Tensor, Tensor] | None = None

    def append(
        self,
        keys_values: tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H T d"]],
        positions: Int[Tensor, "B T"] | None,
        end: int,
    ) -> KeysValues:
        """Write at `positions` (None: the last T before `end`, in every row); return what is held before `end`."""
        for held, new in zip((self.keys, self.values), keys_values, strict=True):
            if positions is None:
                held[:, :, end - new.shape[2] : end] = new
            else:
                index = positions[:, None, :, None].expand_as(new)
                held.scatter_(2, index, new)
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Int[Tensor, "R"], end: int) -> None:
        """Row i becomes old row rows[i]; only positions before `end` are moved, once: two buffers take turns."""
        moved = tuple(self._buffer(i, len(rows)) for i in range(2))
        for held, buffer in zip((self.keys, self.values), moved, strict=True):
            torch.index_select(held[:, :, :end], 0, rows, out=buffer[:, :, :end])
        self._spare = (self.keys, self.values)
        self.keys, self.values = moved

    def _buffer(self, which: int, rows: int) -> Tensor:
        if self._spare is not None and len(self._spare[which]) == rows:
            return self._spare[which]
        return self.keys.new_empty(rows, *self.keys.shape[1:])


@dataclass(frozen=True)
class Place:
    """Where a step's new ids go: their positions, what they may attend to, and where their keys are written."""

    positions: Int[Tensor, "B T"]
    mask: Bool[Tensor, "..."] | None
    write: Int[Tensor, "B T"] | None


class DecodingState:
    """All that decoding remembers: what the sources offer, keys and values per layer, and every row's length.

    Rows that continue the same source (the hypotheses of a beam) share its keys and values for cross-attention as long
    as every source has the same number of rows, side by side; otherwise each row gets its own copy.
    """

    def __init__(
        self, memories: list[KeysValues], memory_mask: Bool[Tensor, "R 1 1 S"], caches: list[KeyValueCache]
    ) -> None:
        # laid out once as every step's products read them
        self.memories = [(key.contiguous(), value.contiguous()) for key, value in memories]
        self.memory_mask = memory_mask
        self.caches = caches
        self.capacity = caches[0].keys.shape[2]
        self.sources = torch.arange(len(memory_mask), device=memory_mask.device)
        self.lengths = torch.zeros_like(self.sources)
        self.end = 0  # the longest row
        self.level = True  # all rows are equally long: keys are written as a slice, one new id needs no mask

    def advance(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None) -> Place:
        """Make room for `lengths[b]` new ids in row b (None: all T). Raises `InputError` beyond the capacity."""
        width = ids.shape[1]
        positions = self.lengths[:, None] + torch.arange(width, device=ids.device)
        if self.end + width > self.capacity:
            raise InputError(f"decoding needs {self.end + width} positions, the state was opened for {self.capacity}.")
        self.level = self.level and lengths is None
        if self.level:
            self.end += width
            self.lengths = self.lengths + width
            mask = None if width == 1 else causal_mask(width, self.end, ids.device)
            return Place(positions, mask, None)
        self.lengths = self.lengths + (width if lengths is None else lengths)
        self.end = int(self.lengths.max())
        # a row's padding lands beyond its end, where the next ids overwrite it
        return Place(positions, seen_mask(positions, self.end), positions)

    def select(self, rows: Int[Tensor, "B"]) -> None:
        """Row i continues old row rows[i]; rows may repeat, as hypotheses of a beam do, or be left out."""
        for cache in self.caches:
            cache.select(rows, self.end)
        self.lengths = self.lengths[rows]
        self._select_sources(self.sources[rows])

    def _select_sources(self, wanted: Int[Tensor, "B"]) -> None:
        kept, counts = torch.unique_consecutive(wanted, return_counts=True)
        even = bool((counts == counts[0]).all())
        if even and torch.equal(kept, torch.arange(len(self.memory_mask), device=kept.device)):
            self.sources = wanted
            return
        index = kept if even else wanted
        self.memories = [(key[index], value[index]) for key, value in self.memories]
        self.memory_mask = self.memory_mask[index]
        self.sources = torch.arange(len(index), device=index.device).repeat_interleave(len(wanted) // len(index))
