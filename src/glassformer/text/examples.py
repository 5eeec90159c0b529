"""Texts with what is to be learnt of them: the next token, hidden tokens, a label, the end of a prompt.

Each class is `Examples` for `ExampleBatches`. B rows, T places; everything is padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.text.batches import Ragged, Rows

IGNORE = -100
"""As a target: nothing is predicted here."""


@dataclass(frozen=True)
class TextBatch:
    """`ids` [B, T] and the token to predict at each place, `target` [B, T] (`IGNORE`: none).

    `documents` [B, T] numbers the documents that share a row; None where each row is one. `full`: something is
    predicted everywhere.
    """

    ids: Tensor
    target: Tensor
    documents: Tensor | None = None
    n_tokens: int = 0
    full: bool = False

    def to(self, device: torch.device | str) -> TextBatch:
        """The same batch on `device`."""
        documents = None if self.documents is None else self.documents.to(device)
        return replace(self, ids=self.ids.to(device), target=self.target.to(device), documents=documents)

    def parts(self) -> list[TextBatch]:
        """The batch itself: there is little padding in it."""
        return [self]


@dataclass(frozen=True)
class MaskedBatch:
    """`ids` [B, T] with some tokens hidden; `places` [M] are those to predict in the flattened ids, `target` [M] what
    was there."""

    ids: Tensor
    places: Tensor
    target: Tensor
    n_tokens: int = 0

    def to(self, device: torch.device | str) -> MaskedBatch:
        """The same batch on `device`."""
        return replace(self, ids=self.ids.to(device), places=self.places.to(device), target=self.target.to(device))

    def parts(self) -> list[MaskedBatch]:
        """The batch itself."""
        return [self]


@dataclass(frozen=True)
class LabelledBatch:
    """`ids` [B, T] of texts and the number of each one's label, `labels` [B]."""

    ids: Tensor
    labels: Tensor
    n_tokens: int = 0

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same batch on `device`."""
        return replace(self, ids=self.ids.to(device), labels=self.labels.to(device))

    def parts(self) -> list[LabelledBatch]:
        """The batch itself."""
        return [self]


class Packed(Protocol):
    """Framed documents one after another: a long row of tokens, of which pieces are looked up by their places."""

    def __len__(self) -> int: ...
    @property
    def several(self) -> bool:
        """Whether there is more than one document."""

    def ids(self, places: Rows) -> Rows:
        """The tokens there, int64."""

    def documents(self, places: Rows) -> Rows:
        """Numbers of the documents that they belong to, int64."""


class PackedTexts:
    """`Packed` in memory."""

    def __init__(
        self, documents: Sequence[Sequence[int]], before: Sequence[int] = (), after: Sequence[int] = ()
    ) -> None:
        ragged = Ragged(documents, before, after)
        self._flat, self.several = ragged.flat, len(ragged.lengths) > 1
        self._documents = np.repeat(np.arange(len(ragged.lengths)), ragged.lengths)

    def __len__(self) -> int:
        return len(self._flat)

    def ids(self, places: Rows) -> Rows:
        """See `Packed.ids`."""
        return self._flat[places]

    def documents(self, places: Rows) -> Rows:
        """See `Packed.documents`."""
        return self._documents[places]


class Windows:
    """Documents one after another in windows of `context` tokens, each predicting the token after it.

    A document is framed by `before` and `after` (ids), unless the text is `Packed` already. Where a window holds the
    end of one and the beginning of the next, neither sees the other, and the next one's first token is not predicted.
    In training the first window of an epoch begins at an offset drawn for it, and what is left over at both ends is
    left out; otherwise (`every`) every token is predicted exactly once. Raises `InputError` for less text than one
    window, in training.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]] | Packed,
        context: int,
        *,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        pad_id: int = 0,
        seed: int = 0,
        every: bool = False,
    ) -> None:
        self.text = PackedTexts(documents, before, after) if isinstance(documents, Sequence) else documents
        self.context, self.pad_id, self.seed, self.every = context, pad_id, seed, every
        least = 2 if every else context + 1
        if len(self.text) < least:
            raise InputError(f"there are {len(self.text)} tokens of text, fewer than a window needs ({least}).")

    def _offset(self, epoch: int) -> int:
        room = min(self.context, len(self.text) - self.context)
        return 0 if self.every else int(np.random.default_rng([self.seed, 1, epoch]).integers(room))

    def count(self, epoch: int) -> int:
        """How many windows an epoch has."""
        predicted = len(self.text) - 1 - self._offset(epoch)
        return -(-predicted // self.context) if self.every else predicted // self.context

    def lengths(self, epoch: int) -> Rows:
        """See `Examples.lengths`."""
        lengths = np.full(self.count(epoch), self.context, dtype=np.int64)
        if self.every:
            lengths[-1] = len(self.text) - 1 - self.context * (len(lengths) - 1)
        return lengths

    def batch(self, rows: Rows, epoch: int) -> TextBatch:
        """See `Examples.batch`."""
        starts, last = rows * self.context + self._offset(epoch), len(self.text) - 1
        width = min(self.context, int((last - starts).max()))
        places = starts[:, None] + np.arange(width + 1)
        real = places[:, :-1] < last
        places = np.minimum(places, last)
        tokens = self.text.ids(places)
        same, inside = real, None
        if self.text.several:
            documents = self.text.documents(places)
            same = real & (documents[:, :-1] == documents[:, 1:])
            inside = documents[:, :-1] - documents[:, :1]
        return TextBatch(
            torch.from_numpy(np.where(real, tokens[:, :-1], self.pad_id)),
            torch.from_numpy(np.where(same, tokens[:, 1:], IGNORE)),
            torch.from_numpy(inside) if inside is not None and inside.any() else None,
            int(real.sum()),
            bool(same.all()),
        )


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden (Devlin et al. 2019, section 3.1): `rate` of them are to be predicted; of these 80 % are
    shown as `mask_id`, 10 % as a random id that is no special one, 10 % as they are."""

    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]
    rate: float = 0.15


class MaskedWindows:
    """Pieces of documents, at most `context` tokens with their frame, with tokens hidden anew in every epoch.

    A piece is part of one document. Its masks depend on the seed, the epoch and the piece alone; in epoch 0 of a corpus
    with seed 0 they are those that evaluation uses. Where a document is cut moves from epoch to epoch, unless `every`.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        context: int,
        masking: Masking,
        *,
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        pad_id: int = 0,
        seed: int = 0,
        every: bool = False,
    ) -> None:
        kept = [document for document in documents if len(document)]
        if not kept:
            raise InputError("there is no text to learn from: all documents are empty.")
        self._text = Ragged(kept)
        self._frame = (list(before), list(after))
        self._room = context - len(before) - len(after)
        if self._room < 2:
            raise InputError(f"'context' must leave room for text between the frame's tokens, got {context}.")
        self.masking, self.pad_id, self.seed, self.every = masking, pad_id, seed, every
        allowed = np.setdiff1d(np.arange(masking.vocab_size), np.array(masking.special_ids, dtype=np.int64))
        self._ordinary = allowed
        self._cache: tuple[int, Rows, Rows] | None = None

    def _pieces(self, epoch: int) -> tuple[Rows, Rows]:
        """Where each piece begins in the text, and how long it is."""
        if self._cache is None or self._cache[0] != epoch:
            lengths, room = self._text.lengths, self._room
            offsets = np.zeros_like(lengths)
            if not self.every:
                drawn = np.random.default_rng([self.seed, 1, epoch]).integers(room, size=len(lengths))
                offsets = np.where(lengths > room, drawn, 0)
            begins, ends = [], []
            for start, length, offset in zip(
                self._text.starts.tolist(), lengths.tolist(), offsets.tolist(), strict=True
            ):
                inner = list(range(offset, length, room)) if not offset else [0, *range(offset, length, room)]
                begins += [start + place for place in inner]
                ends += [start + place for place in [*inner[1:], length]]
            found = np.array(begins, dtype=np.int64)
            self._cache = (epoch, found, np.array(ends, dtype=np.int64) - found)
        return self._cache[1], self._cache[2]

    def lengths(self, epoch: int) -> Rows:
        """See `Examples.lengths`."""
        return self._pieces(epoch)[1] + len(self._frame[0]) + len(self._frame[1])

    def batch(self, rows: Rows, epoch: int) -> MaskedBatch:
        """See `Examples.batch`."""
        starts, lengths = (part[rows] for part in self._pieces(epoch))
        before, after = self._frame
        width = int(lengths.max()) + len(before) + len(after)
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        places, target = [], []
        for number, (row, start, length) in enumerate(
            zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ):
            piece = self._text.flat[start : start + length]
            chosen, shown = self._hide(piece, np.random.default_rng([self.seed, 2, epoch, row]))
            ids[number, : length + len(before) + len(after)] = [*before, *shown, *after]
            places.append(number * width + len(before) + chosen)
            target.append(piece[chosen])
        return MaskedBatch(
            torch.from_numpy(ids),
            torch.from_numpy(np.concatenate(places)),
            torch.from_numpy(np.concatenate(target)),
            int(self.lengths(epoch)[rows].sum()),
        )

    def _hide(self, piece: Rows, random: np.random.Generator) -> tuple[Rows, Rows]:
        """Which places of a piece are to be predicted (at least one), and the piece as it is shown."""
        count = max(1, round(self.masking.rate * len(piece)))
        chosen = np.sort(random.permutation(len(piece))[:count])
        fate = random.random(count)
        drawn = self._ordinary[random.integers(len(self._ordinary), size=count)]
        shown = piece.copy()
        shown[chosen] = np.where(fate < 0.8, self.masking.mask_id, np.where(fate < 0.9, drawn, piece[chosen]))
        return chosen, shown


class LabelledTexts:
    """Texts (ids with their frame) and the number of each one's label. `InputError` for a text without a token."""

    def __init__(self, texts: Sequence[Sequence[int]], labels: Sequence[int], pad_id: int = 0) -> None:
        self._text, self.pad_id = Ragged(texts), pad_id
        self._labels = np.array(labels, dtype=np.int64)
        refuse_empty(self._text.lengths)

    def lengths(self, epoch: int) -> Rows:
        """See `Examples.lengths`."""
        return self._text.lengths

    def batch(self, rows: Rows, epoch: int) -> LabelledBatch:
        """See `Examples.batch`."""
        ids = torch.from_numpy(self._text.padded(rows, self.pad_id))
        return LabelledBatch(ids, torch.from_numpy(self._labels[rows]), int(self._text.lengths[rows].sum()))


class PromptedTexts:
    """Prompts and how each goes on (ids): the tokens of the answer alone are predicted. `InputError` for an empty
    one of either."""

    def __init__(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int = 0) -> None:
        whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        self._text, self.pad_id = Ragged(whole), pad_id
        self._prompts: Rows = np.fromiter((len(prompt) for prompt in prompts), np.int64, len(prompts))
        refuse_empty(self._prompts)
        refuse_empty(self._text.lengths - self._prompts)

    def lengths(self, epoch: int) -> Rows:
        """See `Examples.lengths`."""
        return self._text.lengths - 1

    def batch(self, rows: Rows, epoch: int) -> TextBatch:
        """See `Examples.batch`."""
        padded = self._text.padded(rows, self.pad_id)
        ids, following = padded[:, :-1], padded[:, 1:]
        columns = np.arange(1, padded.shape[1])
        answered = (columns >= self._prompts[rows][:, None]) & (columns < self._text.lengths[rows][:, None])
        target = np.where(answered, following, IGNORE)
        n_tokens = int((self._text.lengths[rows] - 1).sum())
        return TextBatch(torch.from_numpy(np.ascontiguousarray(ids)), torch.from_numpy(target), None, n_tokens)


def refuse_empty(lengths: Rows) -> None:
    """`InputError` that names the first text without a token."""
    if len(lengths) and lengths.min() < 1:
        raise InputError(f"text {int(lengths.argmin()) + 1} has no token; leave it out of the data.")
