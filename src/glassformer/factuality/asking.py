"""`ask`: an answer with what it is worth: how sure the model is of it, by the token and, calibrated, as a risk; or the
words of documents that it is copied from. Or none, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from glassformer.errors import InputError
from glassformer.factuality import calibration
from glassformer.factuality.calibration import Asking, Calibration
from glassformer.factuality.documents import Documents, read_documents
from glassformer.factuality.grounding import COUNT, READER, Evidence, Grounded, ground_all
from glassformer.factuality.labelling import prompt_ids_of
from glassformer.factuality.prompts import STOP, relation_of
from glassformer.factuality.questions import Question
from glassformer.factuality.records import Record, record
from glassformer.factuality.retrieval import Index
from glassformer.factuality.thresholds import Limit
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.factuality.verifying import Checked
from glassformer.factuality.writing import NOT_SAID, Written, conflicting, disagreeing, write_all
from glassformer.generation.stopping import Reader
from glassformer.tasks.model import Model, load

EMBEDDER = "all-minilm-l6-v2"
"""What finds passages by meaning."""
MAX_NEW_TOKENS = 48

Texts = Index | Documents | Mapping[str, str] | str | Path | Sequence[str | Path]
"""What can be asked: an index, documents, texts by name, or files and folders."""


@dataclass(frozen=True)
class Token:
    """A token of an answer: what it adds to the text, its probability, and the entropy of its place in nats."""

    text: str
    probability: float
    entropy: float


@dataclass(frozen=True, eq=False)
class Reply:
    """`answer` is None where none is given, and `why` says so; `draft` is what was written or found all the same.

    A model's own answer has its `tokens`, the one-pass `scores` (higher = more uncertain, no probabilities) and, with a
    calibration, the `risk`: the probability that it is wrong. With a largest error `limit` is the threshold that was
    applied, None where no threshold reaches it. An answer from documents has `evidence`: its own quote first, then
    those of other passages that would answer too; and the `score` of the best of them, refused or not (see
    `grounding.ground_all`). One that the model composed is `written` and has `checks`: the numbers, dates and names of
    `draft`, each with its verdict; in `answer`, "[…]" stands for those that were struck.
    """

    question: str
    answer: str | None
    why: str
    draft: str
    tokens: tuple[Token, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    risk: float | None = None
    limit: Limit | None = None
    evidence: tuple[Evidence, ...] = ()
    score: float | None = None
    written: bool = False
    checks: tuple[Checked, ...] = ()

    @property
    def conflict(self) -> tuple[Evidence, ...]:
        """Evidence that gives another number, date or name than the first, about as surely: a document may lie."""
        return conflicting(self.evidence)

    @property
    def disagreeing(self) -> tuple[Evidence, ...]:
        """Evidence that gives another answer than the first one: neither holds the other's words."""
        return disagreeing(self.evidence)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values. What is no finite number (the score of no passage) is None."""
        said = {
            "question": self.question,
            "answer": self.answer,
            "why": self.why,
            "draft": self.draft,
            "risk": self.risk,
            "limit": None if self.limit is None else {**vars(self.limit)},
            "scores": dict(self.scores),
            "tokens": [{**vars(token)} for token in self.tokens],
            "evidence": [_as_json(each) for each in self.evidence],
            "disagreeing": len(self.disagreeing),
            "conflict": [_as_json(each) for each in self.conflict],
            "score": self.score,
            "written": self.written,
            "checks": [_check_as_json(each) for each in self.checks],
        }
        return cast("dict[str, Any]", _finite(said))


def ask(
    model: Model | str | None,
    question: str,
    *,
    documents: Texts | None = None,
    write: bool = False,
    reader: Model | str = READER,
    risk: Calibration | str | Path | None = None,
    max_error: float | None = None,
    count: int = COUNT,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Reply:
    """The answer to one question; see `ask_all`."""
    settings: dict[str, Any] = {"documents": documents, "reader": reader, "risk": risk, "max_error": max_error}
    return ask_all(model, [question], write=write, count=count, max_new_tokens=max_new_tokens, **settings)[0]


def ask_all(
    model: Model | str | None,
    questions: Sequence[str],
    *,
    documents: Texts | None = None,
    write: bool = False,
    reader: Model | str = READER,
    risk: Calibration | str | Path | None = None,
    max_error: float | None = None,
    count: int = COUNT,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Reply]:
    """Answers to questions, in order.

    Without documents the model answers from what it has learnt, and every token's probability is kept. `risk`, a
    calibration of this model or its file, makes a risk of the scores; the question is then put as it was when the
    calibration was made. With `max_error` no answer is given where the risk is above the threshold that keeps the share
    of wrong answers below it, on questions like those of the calibration, nor to a question of none of its relations.

    With `documents` the answer is a span of them, copied by `reader` from the `count` passages that are found, or none:
    the model is not needed, and what it has learnt does not count. That documents are right is not checked; that two of
    them give different answers is told (`Reply.conflict`).

    With `write` the model composes an answer from the passages found, and every number, date and name of it is looked
    up there: what the evidence does not have is struck, and where nothing is left that answers, where the documents
    disagree or do not say, there is no answer (`writing.Checker`).

    Raises `InputError` for a question without words, a largest error without a calibration, a calibration with
    documents, `write` without a model or documents, and whatever documents and calibrations may raise.
    """
    asked = [Question(f"question {number}", question, ()) for number, question in enumerate(questions, 1)]
    if documents is not None:
        if risk is not None or max_error is not None:
            raise InputError("a risk is of what a model says by itself: leave it out where documents are asked.")
        texts, index = [one.question for one in asked], index_of(documents)
        if write:
            return _written(model, texts, index, reader, count=count, max_new_tokens=max_new_tokens)
        found = ground_all(texts, index, reader, count=count)
        return [_from_documents(text, grounded) for text, grounded in zip(texts, found, strict=True)]
    if write:
        raise InputError("an answer is written from documents: say which, or leave out 'write'.")
    if model is None:
        raise InputError("say which model is asked, or give documents.")
    if max_error is not None and risk is None:
        raise InputError("a largest error needs a calibration: make one (glassformer calibrate), and give it as risk.")
    return _from_model(model, asked, risk, max_error, max_new_tokens)


def _from_model(
    model: Model | str,
    asked: Sequence[Question],
    risk: Calibration | str | Path | None,
    max_error: float | None,
    max_new_tokens: int,
) -> list[Reply]:
    """What a model answers by itself, as it is judged by its calibration where it has one."""
    answering = load(model) if isinstance(model, str) else model
    name = model if isinstance(model, str) else "this model"
    known = calibration.load(risk, answering, name) if isinstance(risk, str | Path) else risk
    asking = Asking("bare", max_new_tokens=max_new_tokens) if known is None else known.asking
    limit = None if known is None or max_error is None else known.threshold(max_error)
    asked = [replace(one, relation=relation_of(one.question, asking.shots)) for one in asked]
    prompts = [prompt_ids_of(answering, one, asking) for one in asked]
    one_line = known is not None or not answering.pipeline.chat_template  # as those of a calibration are
    records = record(answering, prompts, max_new_tokens=asking.max_new_tokens, stop=(STOP,) if one_line else ())
    judged = _Judged(answering, known, limit, max_error)
    return [judged.reply(one, each) for one, each in zip(asked, records, strict=True)]


def index_of(documents: Texts, say: Callable[[str], None] | None = None) -> Index:
    """What is to be searched, ready for it: by words and by meaning. `say` gets lines of progress."""
    if isinstance(documents, Index):
        return documents
    if isinstance(documents, Mapping):
        documents = Documents.of_texts(documents)
    elif isinstance(documents, str | Path):
        documents = read_documents([documents])
    elif not isinstance(documents, Documents):
        documents = read_documents(documents)
    return Index(documents, load(EMBEDDER), say=say)


@dataclass(frozen=True)
class _Judged:
    """What a model's own answers are held against."""

    model: Model
    known: Calibration | None
    limit: Limit | None
    max_error: float | None

    def reply(self, question: Question, one: Record) -> Reply:
        text = one.text.strip()
        scores = {name: score.function(one) for name, score in ONE_PASS.items()} if one.ids else {}
        judged = self.known if scores else None
        risk = None if judged is None else judged.probability(scores, question.relation, text)
        combined = None if judged is None else judged.combined(scores, question.relation, text)
        why = self._why(text, combined, risk, question.relation)
        answer = None if why else text
        return Reply(question.question, answer, why, text, tokens_of(self.model, one), scores, risk, self.limit)

    def _why(self, text: str, combined: float | None, risk: float | None, relation: str) -> str:
        """Why the answer is not given; nothing where it is."""
        if not text:
            return "the model says nothing"
        if self.max_error is None or combined is None or risk is None:
            return ""
        error = f"{100 * self.max_error:g} %"
        if self.limit is None:
            return f"an error of at most {error} is out of reach with this calibration"
        if not relation and self.known is not None and any(shot.relation for shot in self.known.asking.shots):
            return f"an error of at most {error} is not assured: the calibration has no questions like this one"
        if combined > self.limit.score:
            return f"its risk is {100 * risk:.0f} %, too high for an error of at most {error}"
        return ""


def tokens_of(model: Model, one: Record) -> tuple[Token, ...]:
    """The tokens of an answer's text; what ended it is not among them."""
    reader = Reader(model.tokenizer, context=one.prompt_ids)
    ids = one.ids[:-1] if one.ids and one.ids[-1] in model.ends else one.ids
    pieces = [reader.push(i) for i in ids]
    if pieces:
        pieces[-1] += reader.finish()
    left, found = len(one.text), []
    for text, logprob, entropy in zip(pieces, one.logprobs, one.entropies, strict=False):
        kept, left = text[:left], max(0, left - len(text))  # a stop string is no part of the text
        if kept or not text:
            found.append(Token(kept, math.exp(logprob), entropy))
    return tuple(found)


def _from_documents(question: str, found: Grounded) -> Reply:
    why = "" if found.answer is not None else NOT_SAID
    return Reply(question, found.answer, why, found.answer or "", evidence=found.evidence, score=found.score)


def _written(
    model: Model | str | None, questions: Sequence[str], index: Index, reader: Model | str, **settings: int
) -> list[Reply]:
    """Composed answers as replies, with what the model knew of its tokens."""
    if model is None:
        raise InputError("say which model is to write the answer, or leave out 'write' to have it copied.")
    writer = load(model) if isinstance(model, str) else model
    found = write_all(writer, questions, index, reader, **settings)
    return [_from_written(writer, question, one) for question, one in zip(questions, found, strict=True)]


def _from_written(model: Model, question: str, one: Written) -> Reply:
    kept = one.record
    scores = {name: score.function(kept) for name, score in ONE_PASS.items()} if kept and kept.ids else {}
    tokens = tokens_of(model, kept) if kept else ()
    return Reply(question, one.answer, one.why, one.draft, tokens, scores, evidence=one.grounded.evidence,
                 score=one.grounded.score, written=True, checks=one.checks)  # fmt: skip


def _as_json(evidence: Evidence) -> dict[str, Any]:
    start, end = evidence.answer or (None, None)
    return {
        "document": evidence.document.name,
        "start": evidence.start,
        "end": evidence.end,
        "quote": evidence.quote,
        "answer": None if start is None else evidence.document.text[start:end],
        "answer_start": start,
        "answer_end": end,
        "score": evidence.score,
    }


def _check_as_json(check: Checked) -> dict[str, Any]:
    kept = ("text", "start", "end", "kind", "verdict", "score", "found")
    return {name: getattr(check, name) for name in kept} | {"evidence": [_as_json(each) for each in check.evidence]}


def _finite(value: Any) -> Any:
    """The same plain values, with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
