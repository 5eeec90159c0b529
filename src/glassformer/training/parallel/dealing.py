"""Which rows of a batch each process takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from glassformer.text.batches import Batches, Cursor, Rows
from glassformer.training.parallel.context import own_targets
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel


@dataclass(frozen=True)
class Borrowed:
    """A batch for a process that has no row of it: another one's row, to run with the others, which counts nothing."""

    batch: Any
    n_tokens: int = 0

    def to(self, device: torch.device | str) -> Borrowed:
        """The same batch on `device`."""
        return Borrowed(self.batch.to(device))

    def parts(self) -> list[Borrowed]:
        """The batch itself."""
        return [self]


class Dealt:
    """`Batches` as one of `shares` processes sees them: the same batches, of each every `shares`-th row, and of these
    the positions of place `position` among `positions` (`context.own_targets`).

    All processes go through the same epochs, and a cursor names the same place in all of them, whatever their number.
    """

    def __init__(self, batches: Batches[Any], share: int, shares: int, position: int = 0, positions: int = 1) -> None:
        self.batches, self.share, self.shares = batches, share, shares
        self.position, self.positions = position, positions

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int) -> Sequence[Rows]:
        """See `Batches.epoch`: the whole batches."""
        return self.batches.epoch(number)

    def batch(self, rows: Rows, epoch: int = 0) -> Any:
        """This process's rows of a batch as tensors."""
        own = rows[self.share :: self.shares]
        return self._cut(own, epoch) if len(own) else Borrowed(self._cut(rows[:1], epoch))

    def once(self) -> Iterator[Any]:
        """See `Batches.once`; each process has its rows of every batch."""
        return (self.batch(rows) for rows in self.epoch(0))

    def padding(self, number: int = 0) -> float:
        """See `Batches.padding`."""
        return self.batches.padding(number)

    def restore(self, state: Mapping[str, int]) -> Cursor[Any]:
        """See `Batches.restore`."""
        return Cursor(self, state["epoch"], state["index"])

    def _cut(self, rows: Rows, epoch: int) -> Any:
        batch = self.batches.batch(rows, epoch)
        return batch if self.positions == 1 else own_targets(batch, self.position, self.positions)


def dealt(batches: Batches[Any], parallel: Parallel, ranks: Ranks) -> Batches[Any]:
    """The batches of which this process takes its rows and positions; the batches themselves where it takes all."""
    shares = parallel.data * parallel.shard
    if shares * parallel.context == 1:
        return batches
    # place in pipeline × data × shard × context × tensor, whose last dimensions vary fastest
    place = ranks.rank // parallel.tensor
    return Dealt(batches, place // parallel.context % shares, shares, place % parallel.context, parallel.context)
