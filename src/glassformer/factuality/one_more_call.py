"""Scores that ask the model once more: whether its answer is true, and how probable it is without the question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from glassformer.errors import InputError
from glassformer.factuality.records import Asked, Record, record_answers
from glassformer.factuality.uncertainty import Score, table_of
from glassformer.tasks.generate import first_id
from glassformer.tasks.inputs import text_ids
from glassformer.tasks.model import Model

PROMPT = (
    "Question: {question}\nProposed Answer: {answer}\nIs the proposed answer:\n (A) True\n (B) False\n"
    "The proposed answer is:"
)
OPTIONS = (" (A)", " (B)")
"""Kadavath et al. 2022, section 3: the question, and what stands for true and for false."""

WEIGHT, THRESHOLD = 0.0656, 3.599
"""λ and τ (nats) of van der Poel et al. 2022."""


@dataclass(frozen=True, eq=False)
class Again:
    """What the model says when it is asked once more: of an answer's `record`, the same ids as a record that stands
    `free` of the question (`without_question`), and `doubt`, −log P(True) (`p_true`)."""

    record: Record
    free: Record
    doubt: float


def ask_again(
    model: Model, records: Sequence[Record], questions: Sequence[str], *, free: Asked | None = None, shots: str = ""
) -> list[Again]:
    """Ask about each record's answer to its question, as text, once more: two passes, over all together."""
    doubts = p_true(model, questions, [one.text for one in records], shots=shots)
    return list(map(Again, records, without_question(model, records, free), doubts))


def p_true(model: Model, questions: Sequence[str], answers: Sequence[str], *, shots: str = "") -> list[float]:
    """−log P(True) of each answer: Kadavath et al. 2022, "Language Models (Mostly) Know What They Know".

    The model is shown the question with its answer, and asked whether that is (A) true or (B) false; P(True) is
    p(A) / (p(A) + p(B)). One pass over both. `shots` may begin the prompt with questions that are answered already.
    """
    if len(questions) != len(answers):
        raise InputError(f"every question needs its answer, got {len(questions)} and {len(answers)}.")
    asked: list[list[int]] = []
    options: list[list[int]] = []
    for question, answer in zip(questions, answers, strict=True):
        prompt = shots + PROMPT.format(question=question.strip(), answer=answer.strip())
        both = text_ids(model, [prompt + option for option in OPTIONS])
        shared = len(commonprefix(both))
        asked += [ids[:shared] for ids in both]
        options += [ids[shared:] for ids in both]
    # only what tells the two apart counts: what they begin with has one probability, for both
    found = [math.fsum(one.logprobs) for one in record_answers(model, asked, options)]
    return [_log1p_exp(wrong - right) for right, wrong in zip(found[::2], found[1::2], strict=True)]


def without_question(model: Model, records: Sequence[Record], free: Asked | None = None) -> list[Record]:
    """The same answers as if the model had given them without a question: after `free`, a prompt that asks nothing.

    By default it is the token that the model's texts begin with.
    """
    asked: Asked = [first_id(model)] if free is None else free
    return record_answers(model, [asked] * len(records), [one.ids for one in records])


def pointwise_mutual_information(record: Record, free: Record) -> float:
    """Less the mean over tokens of log p(token | question) − log p(token | no question): −PMI of question and answer.

    `free` is the record's answer `without_question`. Takayama & Arase 2019, "Relevant and Informative Response
    Generation using Pointwise Mutual Information"; as a score, van der Poel et al. 2022.
    """
    return -math.fsum(a - b for a, b in _pairs(record, free)) / len(record.ids)


def conditional_mutual_information(
    record: Record, free: Record, weight: float = WEIGHT, threshold: float = THRESHOLD
) -> float:
    """The same where the model was unsure: less the mean of log p(token | question) − λ [H ≥ τ] log p(token | no
    question), with λ `weight`, τ `threshold` and H the token's entropy.

    van der Poel, Cotterell & Meister 2022, "Mutual Information Alleviates Hallucinations in Abstractive Summarization",
    equation 5.
    """
    unsure = [entropy >= threshold for entropy in record.entropies]
    terms = (a - weight * b * here for (a, b), here in zip(_pairs(record, free), unsure, strict=True))
    return -math.fsum(terms) / len(record.ids)


def _pairs(record: Record, free: Record) -> list[tuple[float, float]]:
    if record.ids != free.ids or not record.ids:
        raise InputError("the two records must be of one answer, with a token at least: see `without_question`.")
    return list(zip(record.logprobs, free.logprobs, strict=True))


def _log1p_exp(x: float) -> float:
    """log(1 + exp x), whatever x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


_POEL = "van der Poel et al. 2022, Mutual Information Alleviates Hallucinations in Abstractive Summarization"
_KADAVATH = "Kadavath et al. 2022, Language Models (Mostly) Know What They Know"


def _doubt(again: Again) -> float:
    return again.doubt


def _mutual(again: Again) -> float:
    return pointwise_mutual_information(again.record, again.free)


def _conditional(again: Again) -> float:
    return conditional_mutual_information(again.record, again.free)


ONE_MORE_CALL: Mapping[str, Score] = table_of(
    Score("p(true)", _doubt, _KADAVATH, "one more call"),
    Score("mutual information", _mutual, _POEL, "one more call"),
    Score("conditional mutual information", _conditional, _POEL, "one more call"),
)
"""What asking once more tells."""
