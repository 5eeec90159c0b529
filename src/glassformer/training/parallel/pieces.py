"""The batches of a step in pieces of one shape, as a pipeline wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glassformer.tasks.objectives import IGNORE
from glassformer.text.examples import MaskedBatch, TextBatch
from glassformer.training.parallel.dealing import Borrowed

PIECES = 2
"""Into so many pieces for each stage a batch is cut, where it has the rows. Of S stages and M pieces every stage waits
S - 1 of M + S - 1 turns: with 2 S a third at most. More pieces have fewer rows, for which products are slower."""


@dataclass(frozen=True)
class Pieces:
    """Batches of `rows` × `length` ids each."""

    batches: list[Any]
    rows: int
    length: int


def pieces_of(batches: Sequence[Any], stages: int, pad_id: int) -> Pieces:
    """All rows of the batches, in at least `stages` pieces of one shape, padded on the right with `pad_id`.

    A piece that has fewer rows is filled up with one of them, of which nothing is predicted; so is one without any.
    """
    plain = [batch.batch if isinstance(batch, Borrowed) else batch for batch in batches]
    rows = max(-(-len(batch.ids) // (PIECES * stages)) for batch in plain)
    length = max(batch.ids.shape[1] for batch in plain)
    found = []
    for given, batch in zip(batches, plain, strict=True):
        for first in range(0, len(batch.ids), rows):
            found.append(_piece(batch, first, rows, length, pad_id, isinstance(given, Borrowed)))
    while len(found) < stages:
        found.append(_piece(plain[0], 0, rows, length, pad_id, idle=True))
    return Pieces(found, rows, length)


def _piece(batch: Any, first: int, rows: int, length: int, pad_id: int, idle: bool) -> Any:
    """Rows from `first` on of a batch; where it is `idle`, with nothing to predict."""
    count, width = batch.ids.shape
    chosen = torch.arange(first, first + rows, device=batch.ids.device)
    real = (chosen < count) & (not idle)
    chosen = chosen.clamp_max(count - 1)
    ids = _wider(batch.ids[chosen], length, pad_id)
    if isinstance(batch, MaskedBatch):
        row, place = batch.places // width - first, batch.places % width
        own = (row >= 0) & (row < rows) & (not idle)
        return replace(batch, ids=ids, places=(row * length + place)[own], target=batch.target[own])
    assert isinstance(batch, TextBatch)
    target = _wider(batch.target[chosen].masked_fill(~real[:, None], IGNORE), length, IGNORE)
    documents = batch.documents
    if documents is not None:  # padding is a document of its own
        documents = _wider(documents[chosen], length, int(documents.max()) + 1)
    full = batch.full and width == length and bool(real.all())
    return replace(batch, ids=ids, target=target, documents=documents, full=full)


def _wider(x: Tensor, length: int, value: int) -> Tensor:
    return F.pad(x, (0, length - x.shape[1]), value=value)
