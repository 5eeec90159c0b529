"""What a reader makes of the values of a passage: how well each would answer a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glassformer.generation.decoding import evaluation
from glassformer.tasks.answer import BATCH_TOKENS, MAX_TOKENS, best_spans
from glassformer.tasks.objectives import span_logits
from glassformer.tasks.translate import batches
from glassformer.text.spans import SpanPieces

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

BEFORE, AFTER = 3, 4
"""Tokens by which an answer may be longer than the value in it, on either side: "the late 1980s", "25 minutes"."""


@dataclass(frozen=True)
class Reading:
    """One question to one passage, in sums of two logits less that of "no answer".

    `best` is that of the best span, which is characters `span` of the passage; `places` are those of the places that
    were asked about.
    """

    best: float
    span: tuple[int, int]
    places: tuple[float, ...]


def read(
    model: Model, questions: Sequence[str], passages: Sequence[str], places: Sequence[Sequence[tuple[int, int]]]
) -> list[Reading]:
    """Each question put to its passage, and how well each of `places` (characters of it) answers: the best span that
    holds the place and at most `BEFORE` tokens before and `AFTER` tokens behind it.

    A passage too long for the reader is read in pieces; a place's score is the best of any, and "no answer" scores what
    it does in the piece that thinks the least of it.
    """
    longest = min(MAX_TOKENS, model.config.max_length)
    pieces = SpanPieces(
        model.tokenizer, questions, passages, max_tokens=longest, stride=max(1, min(128, longest // 3)),
        pad_id=model.config.pad_id,
    )  # fmt: skip
    found: list[list[tuple[float, Reading]]] = [[] for _ in questions]
    with torch.inference_mode(), evaluation(model.network):
        for rows in batches(pieces.lengths().tolist(), BATCH_TOKENS):
            batch = pieces.batch(np.array(rows)).to(model.device)
            logits = span_logits(model.network(batch.ids, batch.segments).logits, batch.allowed).cpu()
            for place, row in enumerate(rows):
                number = pieces.pieces[row].question
                found[number].append(_of_piece(pieces, row, logits[place], places[number]))
    return [_merged(one) for one in found]


def _of_piece(pieces: SpanPieces, row: int, logits: Tensor, places: Sequence[tuple[int, int]]) -> tuple[float, Reading]:
    """The score of "no answer" in a piece, and its reading without that taken away."""
    null = float(logits[:, 0].sum())
    logits = logits.clone()
    logits[:, 0] = float("-inf")
    score, first, last = (part.item() for part in best_spans(logits[None]))
    tokens = torch.isfinite(logits[0]).nonzero().flatten().tolist()
    ranges = [pieces.range_of(row, token, token) for token in tokens]
    starts, ends = np.array([one[0] for one in ranges]), np.array([one[1] for one in ranges])
    scores = []
    for begin, end in places:
        left = int(np.searchsorted(ends, begin, side="right"))
        right = int(np.searchsorted(starts, end, side="left")) - 1
        if left > right or starts[left] > begin or ends[right] < end:
            scores.append(float("-inf"))
            continue
        a, b = tokens[left], tokens[right]
        low, high = max(tokens[0], a - BEFORE), min(tokens[-1], b + AFTER)
        scores.append(float(logits[0, low : a + 1].max() + logits[1, b : high + 1].max()))
    return null, Reading(float(score), pieces.range_of(row, int(first), int(last)), tuple(scores))


def _merged(found: list[tuple[float, Reading]]) -> Reading:
    null = min(one[0] for one in found)
    best = max((one[1] for one in found), key=lambda reading: reading.best)
    places = [max(scores) - null for scores in zip(*(one[1].places for one in found), strict=True)]
    return Reading(best.best - null, best.span, tuple(places))
