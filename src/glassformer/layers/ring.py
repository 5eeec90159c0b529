"""Keys and values of layers with locally banded attention, which have to remember as many as their band is wide.

A layer's ring has W slots, the width of its band. Position p lies in slot p as long as the row has at most W positions.
After that the newest one lies in the last slot, and each other at slot p mod (W - 1): a step moves the newest one out
of the last slot, over the one that the band leaves behind. So a step of one new id is that of a full cache of W
positions, whose last is being written, and the same kernel and the same compiled code serve both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.errors import InputError
from glassformer.layers.banded import banded_attention
from glassformer.layers.masks import band_mask
from glassformer.layers.rows import Attending, KeysValues, RowMemory, RowState, RowStep


@dataclass(frozen=True)
class RingStep:
    """Several new ids of each row: how many positions it had (`before`) and has (`after`), where bands are W wide.

    Keys are laid out in order for it: those of W - 1 positions before the step, unless all rows are `fresh`, and the
    new ones.
    """

    before: Int[Tensor, "B"]
    after: Int[Tensor, "B"]
    width: int
    new: int
    slots: int
    fresh: bool = False

    @property
    def held(self) -> int:
        """Positions in front of the new ones; those that a row does not have count too."""
        return 0 if self.fresh else self.width - 1

    @cached_property
    def order(self) -> Int[Tensor, "B held"]:
        """The slot of each position in front."""
        place = self.before[:, None] - self.held + torch.arange(self.held, device=self.before.device)
        return _slot(place.clamp_min(0), self.before[:, None], self.width).clamp_max(self.slots - 1)

    @cached_property
    def real(self) -> Bool[Tensor, "B 1 1 K"] | None:
        """Which of the keys, in order, are of positions that the row has: none are before its first."""
        if self.fresh:
            return None
        place = torch.arange(self.held + self.new, device=self.before.device) - self.held
        return (place >= -self.before[:, None])[:, None, None]

    @cached_property
    def kept(self) -> Int[Tensor, "B slots"]:
        """Where in the order each slot's key is found after the step; any, for a slot that holds none."""
        slot = torch.arange(self.slots, device=self.after.device)
        newest, round_ = self.after[:, None] - 1, max(self.width - 1, 1)
        earlier = newest - 1 - (newest - 1 - slot) % round_  # the newest of the others that belongs there
        whole = torch.where(slot == self.width - 1, newest, earlier)
        place = torch.where(newest < self.width, slot, whole)
        return (place - self.before[:, None] + self.held).clamp(0, self.held + self.new - 1)


def _slot(place: Tensor, length: Tensor, width: int) -> Tensor:
    """Where a row of that length has what is at a position."""
    return torch.where(length <= width, place, torch.where(place == length - 1, width - 1, place % max(width - 1, 1)))


@dataclass(frozen=True)
class RingMemory(Attending):
    """One banded layer's part of a step of several ids."""

    keys: Float[Tensor, "B G W d"]
    values: Float[Tensor, "B G W d"]
    step: RingStep
    banded: bool = True

    def __call__(self, new: KeysValues) -> KeysValues:
        """Keep the last W of what there is; in order, all that may be seen, where `mask` says what of it."""
        key, value = (self._keep(held, more) for held, more in zip((self.keys, self.values), new, strict=True))
        return key, value

    def _keep(self, held: Tensor, new: Tensor) -> Tensor:
        step, whole = self.step, new
        if not step.fresh:
            order = step.order[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
            whole = torch.cat((held.gather(2, order).to(new.dtype), new), 2)
        index = step.kept[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
        held.copy_(whole.gather(2, index))
        return whole

    @property
    def mask(self) -> Bool[Tensor, "B 1 T K"]:
        """What each query may attend to: the band, of what its row has."""
        step = self.step
        near = band_mask(step.new, step.held + step.new, step.width, self.keys.device)
        return near[None, None] if step.real is None else near & step.real

    def attends(self, query: Float[Tensor, "B H T d"], bias: Tensor | None) -> bool:
        """Unless there is a bias."""
        return bias is None

    def attend(
        self, query: Float[Tensor, "B H T d"], new: KeysValues, scale: float, bias: Tensor | None
    ) -> Float[Tensor, "B H T d"]:
        """Keep `new`, and what each query finds within its band."""
        return banded_attention(query, *self(new), self.step.width, self.step.real, scale)


@dataclass
class BandedState:
    """All that decoding remembers where some layers are banded; the seam is that of `RowState`.

    `full` has the dense layers' keys and values, and the lengths; `keys` and `values` are the rings [M layers, B rows,
    G heads, W, d] of those where `banded` is true. `oldest` is the first position that a row's rings still hold.
    """

    full: RowState
    keys: Float[Tensor, "M B G W d"]
    values: Float[Tensor, "M B G W d"]
    banded: Sequence[bool]
    width: int
    oldest: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.oldest = self.oldest or [0] * self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """The most positions of a row."""
        return self.full.capacity

    @property
    def lengths(self) -> list[int]:
        """How many positions each row has."""
        return self.full.lengths

    def advance(self, width: int, lengths: Int[Tensor, "B"] | None) -> RowStep:
        """See `RowState.advance`."""
        before = list(self.lengths)
        step = self.full.advance(width, lengths)
        self.oldest = [max(old, end - self.width) for old, end in zip(self.oldest, self.lengths, strict=True)]
        if width == 1:
            self._make_room(before)
        return step

    def _make_room(self, before: list[int]) -> None:
        """The newest key leaves the last slot, where rows go beyond their width."""
        rows = [row for row, length in enumerate(before) if length >= self.width]
        if not rows or self.width == 1:
            return
        slots = [(before[row] - 1) % (self.width - 1) for row in rows]
        for held in (self.keys, self.values):
            held[:, rows, :, slots] = held[:, rows, :, self.width - 1].transpose(0, 1)

    def memories(self, step: RowStep) -> list[Attending]:
        """What each layer remembers in a step."""
        dense, rings = iter(self.full.memories(step)), zip(self.keys, self.values, strict=True)
        several = step.positions.shape[1] > 1
        place = self._several(step) if several else self._single(step)
        make = RingMemory if several else RowMemory
        return [make(*next(rings), place, banded=True) if ring else next(dense) for ring in self.banded]  # type: ignore[arg-type]

    def _several(self, step: RowStep) -> RingStep:
        after = torch.tensor(self.lengths, device=self.keys.device)
        ids, slots = step.positions.shape[1], self.keys.shape[3]
        return RingStep(step.positions[:, 0], after, self.width, ids, slots, step.fresh)

    def _single(self, step: RowStep) -> RowStep:
        """The step of a full cache of W positions."""
        return RowStep(step.positions.clamp_max(self.width - 1), min(step.window, self.keys.shape[3]))

    def select(self, rows: Int[Tensor, "B"]) -> None:
        """See `RowState.select`."""
        self.full.select(rows)
        self.keys, self.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        self.oldest = [self.oldest[row] for row in rows.tolist()]

    def put(self, rows: Int[Tensor, "R"], other: "BandedState") -> None:
        """See `RowState.put`."""
        self.full.put(rows, other.full)
        room = min(self.keys.shape[3], other.keys.shape[3])
        self.keys[:, rows, :, :room] = other.keys[:, :, :, :room]
        self.values[:, rows, :, :room] = other.values[:, :, :, :room]
        for place, oldest in zip(rows.tolist(), other.oldest, strict=True):
            self.oldest[place] = oldest

    def row(self, row: int, length: int) -> "BandedState":
        """See `RowState.row`."""
        keys, values = (held[:, row : row + 1].clone() for held in (self.keys, self.values))
        whole = self.full.row(row, self.lengths[row])
        one = BandedState(whole, keys, values, self.banded, self.width, [self.oldest[row]])
        one.rewind(0, length)
        one.full = whole.row(0, length)
        slots = min(self.width, length)
        one.keys, one.values = one.keys[..., :slots, :], one.values[..., :slots, :]
        return one

    @property
    def nbytes(self) -> int:
        """See `RowState.nbytes`."""
        return self.full.nbytes + self.keys.nbytes + self.values.nbytes

    def can_rewind(self, row: int, length: int) -> bool:
        """Whether the row's rings still hold all that position `length` would see: always, of a row that never went
        beyond the width; else for one position back, and for none at all."""
        return length == 0 or self.oldest[row] <= max(length - self.width + 1, 0)

    def rewind(self, row: int, length: int) -> None:
        """Forget what row `row` holds beyond its first `length` positions; `InputError` unless it `can_rewind`."""
        before = self.lengths[row]
        if length < before and not self.can_rewind(row, length):
            raise InputError(
                f"row {row} cannot go back from {before} to {length} positions: its banded layers have forgotten those "
                "that would be seen there. Go back to 0 and read it again."
            )
        self.full.rewind(row, length)
        if length == 0:
            self.oldest[row] = 0
        elif length < before and before > self.width > 1:  # by one: the one before becomes the newest
            for held in (self.keys, self.values):
                held[:, row, :, self.width - 1] = held[:, row, :, (length - 1) % (self.width - 1)]

    def grow(self, capacity: int) -> None:
        """See `RowState.grow`."""
        self.full.grow(capacity)
        more = min(self.width, self.capacity) - self.keys.shape[3]
        if more > 0:
            room = (*self.keys.shape[:3], more, self.keys.shape[4])
            self.keys = torch.cat((self.keys, self.keys.new_zeros(room)), 3)
            self.values = torch.cat((self.values, self.values.new_zeros(room)), 3)


AnyState = RowState | BandedState
"""What a decoder remembers of its texts."""
