"""Batches: who goes together, in which order, and a place in the data that can be named.

An epoch's batches are a pure function of the corpus, the seed and the epoch's number; so is what a batch holds. A
training that remembers its cursor goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from glassformer.errors import InputError

Rows = np.ndarray[Any, np.dtype[np.int64]]
Batch = TypeVar("Batch")
BatchOut = TypeVar("BatchOut", covariant=True)


class Batches(Protocol[BatchOut]):
    """A corpus dealt into batches, anew for every epoch."""

    def __len__(self) -> int: ...
    def epoch(self, number: int) -> Sequence[Rows]:
        """The batches of an epoch, as rows of the corpus; of a large one each is made when it is looked up."""

    def batch(self, rows: Rows, epoch: int = 0) -> BatchOut:
        """These rows as tensors."""

    def once(self) -> Iterator[BatchOut]:
        """Everything once, always the same: for evaluation."""

    def restore(self, state: Mapping[str, int]) -> Any:
        """The cursor whose `state()` this is."""

    def padding(self, number: int = 0) -> float:
        """The share of padding among all places that an epoch's batches compute."""


class Examples(Protocol[BatchOut]):
    """What `ExampleBatches` deals: texts with what is to be learnt of them. Both methods are pure functions."""

    def lengths(self, epoch: int) -> Rows:
        """Tokens of every example in an epoch."""

    def batch(self, rows: Rows, epoch: int) -> BatchOut:
        """These examples as tensors."""


class ExampleBatches(Generic[Batch]):
    """Examples in batches of rows × longest ≤ `tokens`, those of like length together, the batches in random order.

    An epoch has every example once, and depends on `seed` and its number alone. Raises `InputError` where there is no
    example, or one is longer than the budget.
    """

    def __init__(self, examples: Examples[Batch], *, tokens: int, seed: int = 0) -> None:
        lengths = examples.lengths(0)
        if not len(lengths):
            raise InputError("there are no examples to make batches of; check the data files.")
        if seed < 0:
            raise InputError(f"'seed' must be at least 0, got {seed}.")
        if lengths.max() > tokens:
            row = int(lengths.argmax())
            raise InputError(
                f"example {row + 1} has {lengths[row]} tokens, more than the batch budget of {tokens}: raise "
                "'training.batch_tokens'."
            )
        self.examples, self.tokens, self.seed = examples, tokens, seed

    def __len__(self) -> int:
        return len(self.examples.lengths(0))

    def epoch(self, number: int) -> list[Rows]:
        """See `Batches.epoch`."""
        random = np.random.default_rng([self.seed, number])
        lengths = self.examples.lengths(number)
        order = random.permutation(len(lengths))
        batches = cut(order[np.argsort(lengths[order], kind="stable")], lengths, self.tokens)
        return [batches[i] for i in random.permutation(len(batches))]

    def batch(self, rows: Rows, epoch: int = 0) -> Batch:
        """See `Batches.batch`."""
        return self.examples.batch(np.asarray(rows, dtype=np.int64), epoch)

    def once(self) -> Iterator[Batch]:
        """See `Batches.once`."""
        return (self.batch(rows) for rows in self.epoch(0))

    def padding(self, number: int = 0) -> float:
        """See `Batches.padding`."""
        lengths = self.examples.lengths(number)
        places = sum(len(rows) * int(lengths[rows].max()) for rows in self.epoch(number))
        return 1 - int(lengths.sum()) / places

    def restore(self, state: Mapping[str, int]) -> Cursor[Batch]:
        """See `Batches.restore`."""
        return Cursor(self, state["epoch"], state["index"])


class Cursor(Generic[Batch]):
    """A place in the endless sequence of batches: `next(cursor)` gives the batch there and goes on to the next."""

    def __init__(self, batches: Batches[Batch], epoch: int, index: int):
        if epoch < 0 or index < 0:
            raise InputError(f"a cursor needs epoch and index of at least 0, got {epoch} and {index}.")
        self._batches = batches
        self._epoch = epoch
        self._index = index
        self._plan = batches.epoch(epoch)
        if index > len(self._plan):
            raise InputError(
                f"the cursor stands at batch {index} of epoch {epoch}, which has only {len(self._plan)}: the data, the "
                "tokenizer or 'batch_tokens' are not those that it was made with."
            )

    def __iter__(self) -> Cursor[Batch]:
        return self

    def __next__(self) -> Batch:
        self._settle()
        rows = self._plan[self._index]
        self._index += 1
        return self._batches.batch(rows, self._epoch)

    def state(self) -> dict[str, int]:
        """`{"epoch": …, "index": …}` of the batch that comes next: give it to `restore` of the same batches."""
        self._settle()
        return {"epoch": self._epoch, "index": self._index}

    def _settle(self) -> None:
        """Past the last batch of an epoch is before the first one of the next."""
        if self._index == len(self._plan):
            self._epoch, self._index = self._epoch + 1, 0
            self._plan = self._batches.epoch(self._epoch)


class Ragged:
    """Sequences of different lengths in one flat array, so that padding a batch is one gather."""

    def __init__(self, sequences: Sequence[Sequence[int]], before: Sequence[int] = (), after: Sequence[int] = ()):
        extra = len(before) + len(after)
        self.lengths: Rows = np.fromiter((len(ids) + extra for ids in sequences), np.int64, len(sequences))
        self.starts: Rows = np.cumsum(self.lengths) - self.lengths
        flat = (i for ids in sequences for part in (before, ids, after) for i in part)
        self.flat: Rows = np.fromiter(flat, np.int64, int(self.lengths.sum()))

    def padded(self, rows: Rows, pad: int) -> Rows:
        """[B, longest] int64, padded on the right with `pad`."""
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        real = columns < lengths[:, None]
        places = np.where(real, self.starts[rows][:, None] + columns, 0)
        return np.where(real, self.flat[places], pad)


def cut(order: Rows, lengths: Rows, tokens: int) -> list[Rows]:
    """Rows in this order, cut where rows × longest would exceed `tokens`."""
    starts, width, first = [], 0, 0
    for i, length in enumerate(lengths[order].tolist()):
        widened = length if length > width else width
        if (i - first + 1) * widened > tokens:
            starts.append(i)
            first, width = i, length
        else:
            width = widened
    return np.split(order, starts)
