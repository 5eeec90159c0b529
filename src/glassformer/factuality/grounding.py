"""Answers on the ground of documents: a span that a reader copies from them, with the sentence that it stands in.

Nothing is composed, so nothing can be invented; and nothing of a document is followed, whatever it says. Whether it is
right cannot be seen here: the answer is what it says, and the quote shows where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassformer.errors import InputError
from glassformer.factuality.documents import Document, Passage
from glassformer.factuality.passages import Range, sentences_around
from glassformer.factuality.retrieval import Index
from glassformer.models.config import Spans

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

READER = "squad-minilm"
COUNT = 5
"""Passages that are read for a question."""
READ_AGAIN = 3
"""The best spans whose surroundings are read again; so many quotes can an answer have."""
BESIDE = 1
"""Sentences on either side of a span's own in the third reading."""
LIKENESS, USUAL_LIKENESS = 5.0, 0.6
"""What a cosine of 1 of question and sentence is worth in a span's score, and the cosine that changes nothing."""
LENIENCE = 4.37
"""How much lower than the reader's own threshold asks a score may be. That one is where F1 over all questions is best,
half of them without an answer: it refuses half of those that have one. With this one `squad-minilm` gives what scores
-3.5 or more: the threshold that serves paragraphs which seem to answer and other paragraphs of the article best alike,
on articles held out for it (`python benchmarks/grounding.py --part valid --settings own easy --choose`)."""


@dataclass(frozen=True)
class Evidence:
    """`quote` is `document.text[start:end]`, always: the sentence that holds an answer (several where it reaches over
    more). `answer` is the answer's own place in the document, where there is one."""

    quote: str
    document: Document
    start: int
    end: int
    score: float
    answer: Range | None = None


@dataclass(frozen=True)
class Grounded:
    """`answer` is copied from the first evidence, or None: the documents do not say.

    `evidence` is the quote of the answer, and after it those of other passages that would have been answers, whether
    they say the same or not. `score` is that of the best span, refused or not (see `ground_all`); −infinity where no
    passage was found.
    """

    answer: str | None
    evidence: tuple[Evidence, ...]
    score: float


def ground(
    question: str,
    index: Index,
    reader: Model | str = READER,
    *,
    count: int = COUNT,
    threshold: float | None = None,
) -> Grounded:
    """Answer a question with a span of the documents that `index` holds; see `ground_all`."""
    return ground_all([question], index, reader, count=count, threshold=threshold)[0]


def ground_all(
    questions: Sequence[str],
    index: Index,
    reader: Model | str = READER,
    *,
    count: int = COUNT,
    threshold: float | None = None,
) -> list[Grounded]:
    """Answer questions, each by itself, with spans of the documents that `index` holds.

    The `count` passages that the index finds are read by `reader`: a model with a head for spans, or its name. It then
    reads the best spans' surroundings again, the sentence by itself and with one on either side: what is no answer to
    the question is seldom taken for one in all three. A span's score is the mean of the three, of how much higher each
    scores its best span than "no answer", and, where the index has an embedder,
    + 5 (cosine of question and sentence − 0.6). The best of all is the answer, as the surest reading has it; but where
    its score is below −`threshold`, the documents do not say. By default `threshold` is the reader's own and `LENIENCE`
    more; a reader that was not trained to refuse has none and always answers.

    Raises `InputError` for a question without words, one too long for the reader, and a model of another kind.
    """
    model = opened(reader)
    found = [index.search(question, count) for question in questions]
    asked = [question for question, passages in zip(questions, found, strict=True) for _ in passages]
    spans = _read(model, asked, [(one.passage.document, _range(one.passage)) for passages in found for one in passages])
    first, place = [], 0
    for passages in found:
        end = place + len(passages)
        read = zip(passages, spans[place:end], strict=True)
        best = sorted(read, key=lambda one: -one[1].score)[:READ_AGAIN]
        first.append([(one.passage, span) for one, span in best])
        place = end
    limit = default_threshold(model) if threshold is None else threshold
    evidence = _read_again(model, index, questions, first)
    return [_chosen(one, limit) for one in evidence]


@dataclass(frozen=True)
class _Span:
    """The best span of a reading, at characters [start, end) of its document."""

    start: int
    end: int
    score: float


_Place = tuple[Document, Range]


def _range(passage: Passage) -> Range:
    return passage.start, passage.end


def _read(model: Model, questions: Sequence[str], places: Sequence[_Place]) -> list[_Span]:
    """The best span of each place, refused or not."""
    if not questions:
        return []
    texts = [document.text[start:end] for document, (start, end) in places]
    spans = []
    for found, (_, (start, _)) in zip(model.answer(questions, texts, threshold=float("inf")), places, strict=True):
        assert found.start is not None and found.end is not None
        spans.append(_Span(start + found.start, start + found.end, found.score))
    return spans


def _read_again(
    model: Model, index: Index, questions: Sequence[str], first: Sequence[Sequence[tuple[Passage, _Span]]]
) -> list[list[Evidence]]:
    """The evidence of each question's spans, by three readings and the likeness of question and sentence."""
    rows = [(number, passage, span) for number, spans in enumerate(first) for passage, span in spans]
    asked = [questions[number] for number, _, _ in rows]
    views: list[list[_Place]] = [
        [
            (passage.document, sentences_around(passage.document.text, span.start, span.end, _range(passage), beside))
            for _, passage, span in rows
        ]
        for beside in (0, BESIDE)
    ]
    readings = [[span for _, _, span in rows], *(_read(model, asked, places) for places in views)]
    sentences = [document.text[start:end] for document, (start, end) in views[0]]
    likeness = index.likeness(asked, sentences) if rows else None
    evidence: list[list[Evidence]] = [[] for _ in questions]
    for row, (number, passage, _) in enumerate(rows):
        spans = [reading[row] for reading in readings]
        score = sum(span.score for span in spans) / len(spans)
        if likeness is not None:
            score += LIKENESS * (likeness[row] - USUAL_LIKENESS)
        evidence[number].append(_evidence(passage, max(spans, key=lambda span: span.score), score))
    return evidence


def opened(reader: Model | str) -> Model:
    """The reader, opened where it is given by its name. `InputError` for a model that does not find spans."""
    from glassformer.tasks.model import load

    model = load(reader) if isinstance(reader, str) else reader
    if not isinstance(getattr(model.config, "head", None), Spans):
        named = f"'{reader}'" if isinstance(reader, str) else "this one"
        raise InputError(f"a reader finds spans that answer questions, as '{READER}' does; {named} is {model.purpose}.")
    return model


def default_threshold(reader: Model) -> float:
    """By how much "no answer" may outscore a span that is still given, unless another threshold is asked for."""
    own = reader.config.head.threshold
    return float("inf") if own is None else own + LENIENCE


def _evidence(passage: Passage, span: _Span, score: float) -> Evidence:
    """The quote around a span."""
    document = passage.document
    start, end = sentences_around(document.text, span.start, span.end, _range(passage))
    return Evidence(document.text[start:end], document, start, end, score, (span.start, span.end))


def _chosen(evidence: Sequence[Evidence], limit: float) -> Grounded:
    """The best evidence and what stands beside it, or none; of equal scores the first counts."""
    ordered = sorted(evidence, key=lambda one: -one.score)
    if not ordered or -ordered[0].score > limit:
        return Grounded(None, (), ordered[0].score if ordered else float("-inf"))
    kept: list[Evidence] = []
    for one in ordered:
        overlaps = any(
            one.document is other.document and one.start < other.end and other.start < one.end for other in kept
        )
        if -one.score <= limit and not overlaps:
            kept.append(one)
    first = kept[0]
    assert first.answer is not None
    return Grounded(first.document.text[slice(*first.answer)], tuple(kept), first.score)
