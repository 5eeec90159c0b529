"""Batches of sentence pairs: a budget of tokens, little padding, and a place in the data that can be named.

B is the number of pairs in a batch, S and T its longest source and target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.text.batches import Cursor, Ragged, Rows, cut
from glassformer.text.tokenizer import BOS, EOS, PAD

SPLIT_ABOVE = 0.2
"""The share of padding above which a batch is trained on in parts; batches made in length buckets stay below it."""

PARTS = 5
"""So many parts, each with an equal share of the squared lengths, leave 15 % of padding in a batch that had half: equal
numbers of rows would leave 20 %."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs padded on the right: what the encoder reads, and what the decoder reads and predicts.

    `source` [B, S] is `x </s>`; `target` [B, T + 1] is `<s> y </s>`: the decoder reads all of it but the last column
    and predicts all of it but the first. `rows` [B] are the pairs' places in the corpus. All are int64.
    """

    source: Tensor
    target: Tensor
    rows: Tensor
    n_source_tokens: int
    n_target_tokens: int
    pad_id: int = PAD

    @property
    def n_tokens(self) -> int:
        """What a training counts: target tokens."""
        return self.n_target_tokens

    @property
    def padding(self) -> float:
        """The share of padding among the B × (S + T) places that the encoder and the decoder compute."""
        places = self.source.numel() + self.target.numel() - self.target.shape[0]
        return 1 - (self.n_source_tokens + self.n_target_tokens) / places

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on `device`."""
        source, target, rows = (x.to(device, non_blocking=True) for x in (self.source, self.target, self.rows))
        return replace(self, source=source, target=target, rows=rows)

    def __len__(self) -> int:
        return self.source.shape[0]

    def parts(self) -> list[PairBatch]:
        """The batch itself, or where much of it is padding, its rows by length in a few batches with less of it.

        The summed loss and gradients of the parts are those of the whole; only the work on padding is saved.
        """
        if self.padding <= SPLIT_ABOVE or len(self) < PARTS:
            return [self]
        source, target = ((ids != self.pad_id).sum(1) for ids in (self.source, self.target))
        longer = torch.maximum(source, target)
        order = torch.argsort(longer * 2 * int(longer.max()) + source + target, stable=True)
        share = longer[order].square().cumsum(0)
        ends = torch.searchsorted(share, share[-1] * torch.arange(1, PARTS) // PARTS)
        cut = [rows for rows in order.tensor_split(ends) if len(rows)]
        return [self._part(rows, source[rows], target[rows]) for rows in cut]

    def _part(self, rows: Tensor, source: Tensor, target: Tensor) -> PairBatch:
        return replace(
            self,
            source=self.source[rows, : int(source.max())],
            target=self.target[rows, : int(target.max())],
            rows=self.rows[rows],
            n_source_tokens=int(source.sum()),
            n_target_tokens=int(target.sum()) - len(rows),
        )


class PairBatches:
    """A corpus of encoded pairs, dealt into batches anew for every epoch.

    A batch holds as many pairs as fit into `tokens`: rows × its longest sentence, source `x </s>` or target `y </s>`,
    is at most that. With `bucket`, pairs of like lengths go together and the batches come in random order; without,
    pairs come in random order. An epoch has every pair exactly once and depends on `seed` and its number alone, not
    on what was read before.

    `ends` are the ids of `<s>` and `</s>`, `pad_id` that of padding.

    Raises `InputError` when there are no pairs, or a sentence alone is longer than the budget.
    """

    def __init__(
        self,
        source_ids: Sequence[Sequence[int]],
        target_ids: Sequence[Sequence[int]],
        *,
        tokens: int,
        seed: int = 0,
        bucket: bool = True,
        ends: tuple[int, int] = (BOS, EOS),
        pad_id: int = PAD,
    ):
        if len(source_ids) != len(target_ids):
            raise InputError(f"pairs need as many sources as targets, got {len(source_ids)} and {len(target_ids)}.")
        if not source_ids:
            raise InputError("there are no pairs to make batches of; check the data files.")
        if seed < 0:
            raise InputError(f"'seed' must be at least 0, got {seed}.")
        self.tokens, self.seed, self.bucket, self.pad_id = tokens, seed, bucket, pad_id
        self._source = Ragged(source_ids, before=[], after=[ends[1]])
        self._target = Ragged(target_ids, before=[ends[0]], after=[ends[1]])
        self.source_lengths = self._source.lengths
        self.target_lengths = self._target.lengths - 1
        longest = np.maximum(self.source_lengths, self.target_lengths)
        if longest.max() > tokens:
            row = int(longest.argmax())
            raise InputError(
                f"pair {row + 1} has a sentence of {longest[row]} tokens (its end counted), more than the batch budget "
                f"of {tokens}: raise 'batch_tokens' or leave the pair out."
            )
        self._longest = longest

    def __len__(self) -> int:
        return len(self.source_lengths)

    @property
    def n_source_tokens(self) -> int:
        """Unpadded source tokens of an epoch, `</s>` counted."""
        return int(self.source_lengths.sum())

    @property
    def n_target_tokens(self) -> int:
        """Unpadded target tokens of an epoch, `</s>` counted and `<s>` not: as many as are predicted."""
        return int(self.target_lengths.sum())

    def epoch(self, number: int) -> list[Rows]:
        """The batches of an epoch, as rows of the corpus: a pure function of the corpus, the seed and `number`."""
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self))
        if self.bucket:
            # Every other target length runs through its source lengths backwards: a batch that spans two target
            # lengths then has neighbours in source length too.
            target = self.target_lengths[order]
            snake = np.where(target % 2 == 0, self.source_lengths[order], -self.source_lengths[order])
            order = order[np.lexsort((snake, target))]
        batches = cut(order, self._longest, self.tokens)
        return [batches[i] for i in random.permutation(len(batches))] if self.bucket else batches

    def batch(self, rows: Sequence[int] | Rows, epoch: int = 0) -> PairBatch:
        """These pairs of the corpus, padded to the longest among them; the same in every epoch."""
        rows = np.asarray(rows, dtype=np.int64)
        return PairBatch(
            source=torch.from_numpy(self._source.padded(rows, self.pad_id)),
            target=torch.from_numpy(self._target.padded(rows, self.pad_id)),
            rows=torch.from_numpy(rows),
            n_source_tokens=int(self.source_lengths[rows].sum()),
            n_target_tokens=int(self.target_lengths[rows].sum()),
            pad_id=self.pad_id,
        )

    def padding(self, number: int = 0) -> float:
        """The share of padding among all places that an epoch's batches compute."""
        places = sum(
            len(rows) * int(self.source_lengths[rows].max() + self.target_lengths[rows].max())
            for rows in self.epoch(number)
        )
        return 1 - (self.n_source_tokens + self.n_target_tokens) / places

    def once(self) -> Iterator[PairBatch]:
        """Every pair once, in epoch 0's order: for evaluation."""
        return (self.batch(rows) for rows in self.epoch(0))

    def cursor(self, epoch: int = 0, index: int = 0) -> Cursor[PairBatch]:
        """An endless iterator of batches that starts at batch `index` of `epoch`; nothing before it is read."""
        return Cursor(self, epoch, index)

    def restore(self, state: Mapping[str, int]) -> Cursor[PairBatch]:
        """The cursor whose `state()` this is."""
        return Cursor(self, state["epoch"], state["index"])
