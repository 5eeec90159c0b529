"""Batches of windows of a corpus of any size: their order is computed where it is needed, and never listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from glassformer.errors import InputError
from glassformer.text.batches import Cursor, Rows
from glassformer.text.examples import TextBatch, Windows
from glassformer.text.orders import Order


class Plan(Sequence[Rows]):
    """An epoch's batches, `rows` windows each and fewer in the last, made when they are looked up."""

    def __init__(self, windows: int, rows: int, order: Order | None) -> None:
        self.windows, self.rows, self.order = windows, rows, order

    def __len__(self) -> int:
        return -(-self.windows // self.rows)

    @overload
    def __getitem__(self, index: int) -> Rows: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rows]: ...
    def __getitem__(self, index: int | slice) -> Rows | Sequence[Rows]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, got {index}")
        places = np.arange(index * self.rows, min((index + 1) * self.rows, self.windows), dtype=np.int64)
        return places if self.order is None else self.order(places)


class WindowBatches:
    """`Batches` of windows: each once an epoch, in an order that seed and epoch fix (`Order`); as they lie where the
    windows are for evaluation (`Windows.every`). Nothing is kept that grows with the corpus.

    Raises `InputError` where a window is longer than the budget of `tokens`.
    """

    def __init__(self, windows: Windows, *, tokens: int, seed: int = 0) -> None:
        if windows.context > tokens:
            raise InputError(f"a batch of {tokens} tokens must hold a window of {windows.context}.")
        if seed < 0:
            raise InputError(f"'seed' must be at least 0, got {seed}.")
        self.windows, self.rows, self.seed = windows, tokens // windows.context, seed

    def __len__(self) -> int:
        return self.windows.count(0)

    def epoch(self, number: int) -> Plan:
        """See `Batches.epoch`."""
        count = self.windows.count(number)
        order = None if self.windows.every else Order(count, (self.seed, 2, number))
        return Plan(count, self.rows, order)

    def batch(self, rows: Rows, epoch: int = 0) -> TextBatch:
        """See `Batches.batch`."""
        return self.windows.batch(np.asarray(rows, dtype=np.int64), epoch)

    def once(self) -> Iterator[TextBatch]:
        """See `Batches.once`."""
        return (self.batch(rows) for rows in self.epoch(0))

    def padding(self, number: int = 0) -> float:
        """See `Batches.padding`: only the last window of all can be short."""
        return 0.0

    def restore(self, state: Mapping[str, int]) -> Cursor[TextBatch]:
        """See `Batches.restore`."""
        return Cursor(self, state["epoch"], state["index"])
