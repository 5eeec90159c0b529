"""The verb `answer`: the span of a text that answers a question, or that none does."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.errors import InputError
from glassformer.generation.decoding import evaluation
from glassformer.models.config import Spans
from glassformer.tasks import squad
from glassformer.tasks.intervals import bootstrap
from glassformer.tasks.objectives import span_logits
from glassformer.tasks.translate import batches
from glassformer.text.spans import SpanPieces

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

T = TypeVar("T")

BATCH_TOKENS = 4096
MAX_TOKENS = 384
STRIDE = 128
LONGEST = 30
"""Tokens that an answer may have (Devlin et al. 2019 in their code)."""


@dataclass(frozen=True)
class Answer:
    """`text` is `context[start:end]`, the best span; both ends are None and the text empty where there is no answer.

    `score` is how much higher the best span scores than "no answer", the sum of its two logits less that of the first
    token's: negative where the model doubts that the context answers the question. `span` is the best span, refused or
    not.
    """

    text: str
    start: int | None
    end: int | None
    score: float
    span: str

    @property
    def answered(self) -> bool:
        """Whether the question was not refused."""
        return self.start is not None


class Asked(Protocol):
    """A question about a context, with the texts of its right answers (none where it has none)."""

    @property
    def id(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def context(self) -> str: ...
    @property
    def answers(self) -> Sequence[Any]: ...


def answer(
    model: Model,
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    threshold: float | None = None,
    max_tokens: int = 0,
    stride: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    first_line: int = 1,
) -> list[Answer]:
    """See `Model.answer`. `threshold` None is the model's own; infinity refuses nothing. `stride` None is 128, a third
    of `max_tokens` where that is less."""
    head = getattr(model.config, "head", None)
    if not isinstance(head, Spans):
        raise InputError(f"'answer' wants a model with a head for spans; this one is {model.purpose}.")
    if len(questions) != len(contexts):
        raise InputError(f"every question needs its context, got {len(questions)} and {len(contexts)}.")
    for number, (question, context) in enumerate(zip(questions, contexts, strict=True), first_line):
        if not question.strip() or not context.strip():
            raise InputError(f"question {number} or its context is empty: give both.")
    if not questions:
        return []
    limit = threshold if threshold is not None else head.threshold
    longest = min(max_tokens or MAX_TOKENS, model.config.max_length)
    step = stride if stride is not None else max(1, min(STRIDE, longest // 3))
    shape = {"max_tokens": longest, "stride": step, "pad_id": model.config.pad_id, "first": first_line}
    pieces = SpanPieces(model.tokenizer, questions, contexts, **shape)
    for piece in pieces.pieces:
        if piece.begin == piece.end:
            number = piece.question + first_line
            raise InputError(f"the context of question {number} has no token: give one with words in it.")
    best, null = _search(model, pieces, len(questions), batch_tokens)
    return [_answer(pieces, contexts[number], best[number], null[number], limit) for number in range(len(questions))]


_Span = tuple[float, int, int, int]  # score, piece, first and last place in its row


def _search(model: Model, pieces: SpanPieces, count: int, batch_tokens: int) -> tuple[list[_Span], list[float]]:
    """The best span of every question over all pieces of its context, and the least score of "no answer" in any."""
    best: list[_Span] = [(float("-inf"), 0, 0, 0)] * count
    null = [float("inf")] * count
    lengths = pieces.lengths()
    with torch.inference_mode(), evaluation(model.network):
        for rows in batches(lengths.tolist(), batch_tokens):
            batch = pieces.batch(torch.tensor(rows).numpy()).to(model.device)
            logits = span_logits(model.network(batch.ids, batch.segments).logits, batch.allowed).cpu()
            nulls = logits[:, :, 0].sum(1).tolist()
            logits[:, :, 0] = float("-inf")
            scores, first, last = (part.tolist() for part in best_spans(logits))
            for place, row in enumerate(rows):
                number = pieces.pieces[row].question
                null[number] = min(null[number], nulls[place])
                found = (scores[place], row, first[place], last[place])
                if found[0] > best[number][0] or (found[0] == best[number][0] and row < best[number][1]):
                    best[number] = found
    return best, null


def best_spans(logits: Float[Tensor, "B 2 T"], longest: int = LONGEST) -> tuple[Tensor, Tensor, Tensor]:
    """Score, first and last place [B] of each row's best span of at most `longest` tokens."""
    begin, end = logits[:, 0], logits[:, 1]
    width = logits.shape[2]
    scores = torch.full_like(begin, float("-inf"))
    lengths = torch.zeros_like(begin, dtype=torch.int64)
    for more in range(min(longest, width)):
        sums = begin[:, : width - more] + end[:, more:]
        better = sums > scores[:, : width - more]
        scores[:, : width - more] = torch.where(better, sums, scores[:, : width - more])
        lengths[:, : width - more] = torch.where(better, more, lengths[:, : width - more])
    score, first = scores.max(-1)
    return score, first, first + lengths.gather(1, first[:, None]).squeeze(1)


def _answer(pieces: SpanPieces, context: str, best: _Span, null: float, threshold: float | None) -> Answer:
    score, piece, first, last = best
    start, end = pieces.range_of(piece, first, last)
    text = context[start:end]
    if threshold is not None and null - score > threshold:
        return Answer("", None, None, score - null, text)
    return Answer(text, start, end, score - null, text)


def evaluate_answers(model: Model, questions: Sequence[Asked], **settings: Any) -> dict[str, Any]:
    """Answer questions and score the answers as SQuAD does; see `tasks.squad.score_answers`.

    `exact_match` and `f1` (0 to 100) come with their 95 % intervals (bootstrap over questions). Where some questions
    have no answer there are also the means over either kind, and the `threshold` at which the model refuses (None where
    it never does). `settings` are those of `answer`.
    """
    began = time.perf_counter()
    found = answers_of(model, questions, **settings)
    seconds = time.perf_counter() - began
    result = scored(found, questions)
    scores = squad.score_questions(_by_key(one.text for one in found), _references(questions)).values()
    for name in ("exact_match", "f1"):
        interval = bootstrap([100 * getattr(score, name) for score in scores])
        result[f"{name}_interval"] = [interval.low, interval.high]
    if not all(one.answers for one in questions):
        given = settings.get("threshold")
        limit = given if given is not None else model.config.head.threshold
        result["threshold"] = limit if limit is not None and math.isfinite(limit) else None
    return {**result, "n": len(questions), "seconds": seconds}


def answers_of(model: Model, questions: Sequence[Asked], **settings: Any) -> list[Answer]:
    """`answer` for questions with their contexts."""
    return answer(model, [one.question for one in questions], [one.context for one in questions], **settings)


def scored(found: Sequence[Answer], questions: Sequence[Asked]) -> dict[str, Any]:
    """The scores of answers that were found; see `tasks.squad.score_answers`."""
    result: dict[str, Any] = dict(squad.score_answers(_by_key(one.text for one in found), _references(questions)))
    result.pop("missing")
    return result


def refused(found: Sequence[Answer], threshold: float) -> list[Answer]:
    """The answers, those refused that "no answer" outscores by more than `threshold`."""
    return [replace(one, text="", start=None, end=None) if -one.score > threshold else one for one in found]


def best_refusal(found: Sequence[Answer], questions: Sequence[Asked]) -> squad.Threshold:
    """The threshold of refusal that gives the best F1 on these questions; see `tasks.squad.best_threshold`."""
    differences, predictions = _by_key(-one.score for one in found), _by_key(one.span for one in found)
    return squad.best_threshold(differences, predictions, _references(questions))


def _by_key(values: Iterable[T]) -> dict[str, T]:
    """Values by the number of their question: ids need not be unique."""
    return {str(number): value for number, value in enumerate(values)}


def _references(questions: Sequence[Asked]) -> dict[str, list[str]]:
    return _by_key([right.text for right in one.answers] for one in questions)
