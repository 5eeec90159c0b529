"""Questions with pieces of their contexts: long contexts are read in overlapping pieces, each with the whole question.

`[CLS] question [SEP] piece [SEP]`. Each piece knows where in the text its tokens stand, so that an answer is a range of
characters.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import InputError
from glassformer.text.batches import Rows
from glassformer.text.tokenizer import Tokenizer

Range = tuple[int, int]
"""Characters [start, end) of a text."""


@dataclass(frozen=True)
class SpanBatch:
    """`ids` and `segments` [B, T]; `allowed` [B, T] is where an answer may begin and end; `span` [B, 2] are its first
    and last token, both 0 where the piece does not hold it. `rows` [B] are the pieces' numbers."""

    ids: Tensor
    segments: Tensor
    allowed: Tensor
    span: Tensor
    rows: Tensor
    n_tokens: int = 0

    def to(self, device: torch.device | str) -> SpanBatch:
        """The same batch on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("ids", "segments", "allowed", "span")}
        return replace(self, **moved)

    def parts(self) -> list[SpanBatch]:
        """The batch itself."""
        return [self]


@dataclass(frozen=True)
class Piece:
    """Tokens [begin, end) of a question's context; `span` are the answer's first and last token among all of the
    context's, None where this piece does not hold it."""

    question: int
    begin: int
    end: int
    span: tuple[int, int] | None = None


class SpanPieces:
    """Questions and contexts, encoded and cut: `Examples` for `ExampleBatches`.

    A piece has at most `max_tokens` tokens in all and begins `stride` tokens of the context after the one before it;
    the last piece ends with the context. `answers` holds each question's range of characters, None for a question that
    its context does not answer.

    Raises `InputError` for a tokenizer without [CLS] and [SEP], and a question that leaves no room for its context; it
    is named by its number, counting from `first`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        questions: Sequence[str],
        contexts: Sequence[str],
        answers: Sequence[Range | None] | None = None,
        *,
        max_tokens: int = 384,
        stride: int = 128,
        pad_id: int = 0,
        first: int = 1,
    ) -> None:
        if tokenizer.cls_id is None or tokenizer.sep_id is None:
            raise InputError(
                "questions and contexts are joined by [CLS] and [SEP], which this tokenizer does not have."
            )
        self._first = first
        self._cls, self._sep, self.pad_id = tokenizer.cls_id, tokenizer.sep_id, pad_id
        numbers: dict[str, int] = {}
        self._context_of = [numbers.setdefault(context, len(numbers)) for context in contexts]
        self._questions = [np.array(ids, dtype=np.int64) for ids in tokenizer.encode_all(list(questions))]
        encoded = tokenizer.encode_spans_all(list(numbers))
        self._contexts = [np.array(ids, dtype=np.int64) for ids, _ in encoded]
        self._ranges = [ranges for _, ranges in encoded]
        wanted = answers if answers is not None else [None] * len(questions)
        self.pieces = [
            piece
            for number, answer in enumerate(wanted)
            for piece in self._cut(number, self._tokens_of(number, answer), max_tokens, stride)
        ]
        self._lengths: Rows = np.array(
            [len(self._questions[piece.question]) + 3 + piece.end - piece.begin for piece in self.pieces],
            dtype=np.int64,
        )

    def _tokens_of(self, number: int, answer: Range | None) -> tuple[int, int] | None:
        """The first and the last token that touch a range of the context's characters."""
        if answer is None:
            return None
        ranges = self._ranges[self._context_of[number]]
        first = bisect_right(ranges, answer[0], key=lambda one: one[1])
        last = bisect_left(ranges, answer[1], key=lambda one: one[0]) - 1
        return (first, last) if first <= last else None

    def _cut(self, number: int, span: tuple[int, int] | None, max_tokens: int, stride: int) -> list[Piece]:
        length = len(self._contexts[self._context_of[number]])
        room = max_tokens - len(self._questions[number]) - 3
        if room < min(length, stride) or room < 1:
            raise InputError(
                f"question {number + self._first} has {len(self._questions[number])} tokens: with {max_tokens} in all, "
                f"that leaves {max(room, 0)} for its context, fewer than the stride of {stride}. Shorten it."
            )
        begins = [0] if length <= room else [*range(0, length - room, stride), length - room]
        pieces = []
        for begin in begins:
            end = min(begin + room, length)
            held = span is not None and begin <= span[0] and span[1] < end
            pieces.append(Piece(number, begin, end, span if held else None))
        return pieces

    def range_of(self, piece: int, first: int, last: int) -> Range:
        """The characters of the context that places `first` to `last` of a piece's row stand for."""
        one = self.pieces[piece]
        ranges = self._ranges[self._context_of[one.question]]
        offset = one.begin - len(self._questions[one.question]) - 2
        return ranges[first + offset][0], ranges[last + offset][1]

    def lengths(self, epoch: int = 0) -> Rows:
        """See `Examples.lengths`."""
        return self._lengths

    def batch(self, rows: Rows, epoch: int = 0) -> SpanBatch:
        """See `Examples.batch`."""
        shape = (len(rows), int(self._lengths[rows].max()))
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        segments, allowed = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
        span = np.zeros((len(rows), 2), dtype=np.int64)
        for place, row in enumerate(rows.tolist()):
            piece = self.pieces[row]
            question = self._questions[piece.question]
            first = len(question) + 2
            end = first + piece.end - piece.begin
            ids[place, 0], ids[place, first - 1], ids[place, end] = self._cls, self._sep, self._sep
            ids[place, 1 : first - 1] = question
            ids[place, first:end] = self._contexts[self._context_of[piece.question]][piece.begin : piece.end]
            segments[place, first : end + 1] = 1
            allowed[place, first:end] = True
            if piece.span is not None:
                span[place] = np.array(piece.span) + first - piece.begin
        n_tokens = int(self._lengths[rows].sum())
        arrays = [torch.from_numpy(array) for array in (ids, segments, allowed, span, np.asarray(rows))]
        return SpanBatch(arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], n_tokens)
