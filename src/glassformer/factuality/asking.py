"""`ask`: an answer with what it is worth: how sure the model is of it, by the token and, calibrated, as a risk; or the
words of documents that it is copied from. Or none, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from glassformer.generation.stopping import Reader
from glassformer.tasks.model import Model, load
from glassformer.tasks.squad import normalized

EMBEDDER = "all-minilm-l6-v2"
"""What finds passages by meaning."""
MAX_NEW_TOKENS = 48
NOT_SAID = "the documents do not say"

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
    those of other passages that would answer too.
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

    @property
    def disagreeing(self) -> tuple[Evidence, ...]:
        """Evidence that gives another answer than the first one: neither holds the other's words."""
        said = [_words(each) for each in self.evidence]
        return tuple(
            each
            for each, words in zip(self.evidence[1:], said[1:], strict=True)
            if not (words <= said[0] or said[0] <= words)
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
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
        }


def ask(
    model: Model | str | None,
    question: str,
    *,
    documents: Texts | None = None,
    reader: Model | str = READER,
    risk: Calibration | str | Path | None = None,
    max_error: float | None = None,
    count: int = COUNT,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Reply:
    """The answer to one question; see `ask_all`."""
    settings: dict[str, Any] = {"documents": documents, "reader": reader, "risk": risk, "max_error": max_error}
    return ask_all(model, [question], count=count, max_new_tokens=max_new_tokens, **settings)[0]


def ask_all(
    model: Model | str | None,
    questions: Sequence[str],
    *,
    documents: Texts | None = None,
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
    of wrong answers below it (on questions like those of the calibration).

    With `documents` the answer is a span of them, copied by `reader` from the `count` passages that are found, or none:
    the model is not needed, and what it has learnt does not count. That documents are right is not checked.

    Raises `InputError` for a question without words, a largest error without a calibration, a calibration with
    documents, and whatever documents and calibrations may raise.
    """
    asked = [Question(f"question {number}", question, ()) for number, question in enumerate(questions, 1)]
    if documents is not None:
        if risk is not None or max_error is not None:
            raise InputError("a risk is of what a model says by itself: leave it out where documents are asked.")
        found = ground_all([one.question for one in asked], index_of(documents), reader, count=count)
        return [_from_documents(one.question, grounded) for one, grounded in zip(asked, found, strict=True)]
    if model is None:
        raise InputError("say which model is asked, or give documents.")
    if max_error is not None and risk is None:
        raise InputError("a largest error needs a calibration: make one (glassformer calibrate), and give it as risk.")
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


def index_of(documents: Texts) -> Index:
    """What is to be searched, ready for it: by words and by meaning."""
    if isinstance(documents, Index):
        return documents
    if isinstance(documents, Mapping):
        documents = Documents.of_texts(documents)
    elif isinstance(documents, str | Path):
        documents = read_documents([documents])
    elif not isinstance(documents, Documents):
        documents = read_documents(documents)
    return Index(documents, load(EMBEDDER))


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
        why = self._why(text, combined, risk)
        answer = None if why else text
        return Reply(question.question, answer, why, text, tokens_of(self.model, one), scores, risk, self.limit)

    def _why(self, text: str, combined: float | None, risk: float | None) -> str:
        """Why the answer is not given; nothing where it is."""
        if not text:
            return "the model says nothing"
        if self.max_error is None or combined is None or risk is None:
            return ""
        error = f"{100 * self.max_error:g} %"
        if self.limit is None:
            return f"an error of at most {error} is out of reach with this calibration"
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
    return Reply(question, found.answer, why, found.answer or "", evidence=found.evidence)


def _words(evidence: Evidence) -> set[str]:
    start, end = evidence.answer or (evidence.start, evidence.end)
    return set(normalized(evidence.document.text[start:end]).split())


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
