"""Keys and values already seen, so that a decoding step computes only what is new."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.masks import causal_mask, seen_mask, slots_mask
from glassformer.layers.rows import KeysValues
from glassformer.layers.source import Source


class KeyValueCache:
    """One layer's keys and values for up to `capacity` positions, in R groups of W rows (the hypotheses of a beam).

    A group is one context, [H, capacity × W, d]: each row writes into its own slot of a position, and its mask says
    whose slots it may read. Rows of a group that change places move nothing. Positions at or beyond a row's length
    hold leftovers; the mask of the caller hides them.
    """

    def __init__(self, rows: int, n_heads: int, capacity: int, d_head: int, like: Tensor) -> None:
        self.keys = like.new_zeros(rows, n_heads, capacity, 1, d_head)
        self.values = like.new_zeros(rows, n_heads, capacity, 1, d_head)

    @property
    def capacity(self) -> int:
        """The most positions of a row."""
        return self.keys.shape[2]

    @property
    def width(self) -> int:
        """Rows in a group."""
        return self.keys.shape[3]

    def append(
        self,
        keys_values: tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H T d"]],
        positions: Int[Tensor, "B T"] | None,
        end: int,
    ) -> KeysValues:
        """Write at `positions` (None: the last T before `end`, in every row); return what is held before `end`."""
        for held, new in zip((self.keys, self.values), keys_values, strict=True):
            if positions is None:
                slots = new.unflatten(0, (-1, self.width)).permute(0, 2, 3, 1, 4)
                held[:, :, end - new.shape[2] : end] = slots
            else:
                index = positions[:, None, :, None].expand_as(new)
                held[:, :, :, 0].scatter_(2, index, new)
        return self.keys[:, :, :end].flatten(2, 3), self.values[:, :, :end].flatten(2, 3)

    def select(self, groups: Int[Tensor, "R"], width: int, end: int) -> None:
        """Group i becomes old group groups[i], with `width` slots a position; what one row held is in the first."""
        self.keys, self.values = (self._selected(held, groups, width, end) for held in (self.keys, self.values))

    def _selected(self, held: Tensor, groups: Tensor, width: int, end: int) -> Tensor:
        if width == held.shape[3]:
            return held.index_select(0, groups)
        grown = held.new_empty(len(groups), *held.shape[1:3], width, held.shape[4])
        grown[:, :, :end, 0] = held[groups, :, :end, 0]
        grown[:, :, :end, 1:] = 0  # nobody reads it, but a mask times NaN would be NaN
        return grown

    def separate(self, groups: Int[Tensor, "B"], slots: Int[Tensor, "B end"]) -> None:
        """Every row becomes a group of its own: row i holds what it read in slot slots[i, t] of group groups[i]."""
        self.keys, self.values = (self._separated(held, groups, slots) for held in (self.keys, self.values))

    def _separated(self, held: Tensor, groups: Tensor, slots: Tensor) -> Tensor:
        end = slots.shape[1]
        alone = held.new_zeros(len(groups), *held.shape[1:3], 1, held.shape[4])
        places = torch.arange(end, device=slots.device)
        alone[:, :, :end, 0] = held[groups[:, None], :, places, slots].transpose(1, 2)
        return alone


@dataclass(frozen=True)
class Place:
    """Where a step's new ids go: their positions, what they may attend to, and where their keys are written."""

    positions: Int[Tensor, "B T"]
    mask: Bool[Tensor, "..."] | None
    write: Int[Tensor, "B T"] | None


class DecodingState:
    """All that decoding remembers: what the sources offer, keys and values per layer, and every row's length.

    Rows that continue the same source (the hypotheses of a beam) share one cache for self-attention, as long as every
    source has the same number of rows, side by side; otherwise each row gets its own copy.
    """

    def __init__(self, source: Source, caches: list[KeyValueCache]) -> None:
        self.source = source
        self.caches = caches
        self.lengths = torch.zeros(len(source.mask), dtype=torch.long, device=source.mask.device)
        self.end = 0  # the longest row
        self.level = True  # all rows are equally long: keys are written as a slice, one new id needs no mask
        self.slots = self.lengths.new_zeros(len(self.lengths), self.capacity)  # where each row reads each position

    @property
    def capacity(self) -> int:
        """The most positions of a row."""
        return self.caches[0].capacity

    @property
    def width(self) -> int:
        """Rows in a group of the caches."""
        return self.caches[0].width

    def advance(self, ids: Int[Tensor, "B T"], lengths: Int[Tensor, "B"] | None) -> Place:
        """Make room for `lengths[b]` new ids in row b (None: all T). Raises `InputError` beyond the capacity."""
        width = ids.shape[1]
        positions = self.lengths[:, None] + torch.arange(width, device=ids.device)
        if self.end + width > self.capacity:
            raise InputError(f"decoding needs {self.end + width} positions, the state was opened for {self.capacity}.")
        self.level = self.level and lengths is None
        if self.width > 1 and (width > 1 or not self.level):
            self._separate(torch.arange(len(ids), device=ids.device))
        if self.level:
            self.end += width
            self.lengths = self.lengths + width
            return Place(positions, self._write_level(width), None)
        self.lengths = self.lengths + (width if lengths is None else lengths)
        self.end = int(self.lengths.max())
        # a row's padding lands beyond its end, where the next ids overwrite it
        return Place(positions, seen_mask(positions, self.end), positions)

    def _write_level(self, new: int) -> Bool[Tensor, "..."] | None:
        """Note that each row's newest id is in its own slot; the mask of the `new` last of `end` positions."""
        if self.width == 1:
            return None if new == 1 else causal_mask(new, self.end, self.lengths.device)
        slots = self.slots.unflatten(0, (-1, self.width))
        slots[:, :, self.end - 1] = torch.arange(self.width, device=slots.device)
        return slots_mask(slots[:, :, : self.end])

    def select(self, rows: Int[Tensor, "B"]) -> None:
        """Row i continues old row rows[i]; rows may repeat, as hypotheses of a beam do, or be left out."""
        groups, counts = torch.unique_consecutive(rows // self.width, return_counts=True)
        width = int(counts[0])
        if self.level and bool((counts == width).all()) and self.width in (1, width):
            here = torch.arange(len(self.lengths) // self.width, device=rows.device)
            if width != self.width or not torch.equal(groups, here):
                for cache in self.caches:
                    cache.select(groups, width, self.end)
            self.slots = self.slots[rows]
        else:
            self._separate(rows)
        self.lengths = self.lengths[rows]
        self.source.select(rows)

    def _separate(self, rows: Int[Tensor, "B"]) -> None:
        """Row i becomes a copy of old row rows[i], in a group of its own."""
        groups, slots = rows // self.width, self.slots[rows, : self.end]
        for cache in self.caches:
            cache.separate(groups, slots)
        self.slots = self.slots.new_zeros(len(rows), self.capacity)
