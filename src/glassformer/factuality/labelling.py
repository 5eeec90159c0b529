"""Asking a model questions whose answers are known: what it answers, how sure it was, and whether it is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.calibration import Asking, Labelled
from glassformer.factuality.prompts import STOP, ids_of, pool_of, shots_for
from glassformer.factuality.questions import Question, is_right
from glassformer.factuality.records import Record, record
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.tasks.model import Model

BATCH = 64
"""So many questions are asked at a time: progress is told between."""


@dataclass(frozen=True, eq=False)
class Answered:
    """A question with the record of a model's answer to it, and whether that is right."""

    question: Question
    record: Record
    right: bool


def asking_of(questions: Sequence[Question], asking: Asking) -> Asking:
    """The same way of asking with its shots, chosen among the questions; see `prompts.pool_of`."""
    if not asking.count:
        return asking
    return replace(asking, shots=tuple(pool_of(questions, asking.count, asking.seed)))


def prompt_ids_of(model: Model, question: Question, asking: Asking) -> list[int]:
    """What the model reads of a question put in this way."""
    shots = shots_for(question, asking.shots, asking.count, asking.seed) if asking.count else []
    return ids_of(model, question, shots, asking.style)


def answer_all(
    model: Model,
    questions: Sequence[Question],
    asking: Asking,
    *,
    say: Callable[[str], None] = lambda line: None,
    **kept: Any,
) -> list[Answered]:
    """Ask every question in one way, and judge the answers with `is_right`: leniently, unless shots have shown that an
    answer is a few bare words. In order; `say` is told how far it is. `kept` goes to `record` (states)."""
    order = sorted(range(len(questions)), key=lambda row: (questions[row].relation, len(questions[row].question)))
    found: dict[int, Answered] = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        prompts = [prompt_ids_of(model, questions[row], asking) for row in rows]
        records = record(model, prompts, max_new_tokens=asking.max_new_tokens, stop=STOP, **kept)
        for row, one in zip(rows, records, strict=True):
            right = is_right(one.text, questions[row], lenient=not asking.count)
            found[row] = Answered(questions[row], one, right)
        say(
            f"{len(found)} of {len(order)} questions answered, {sum(one.right for one in found.values())} of them right"
        )
    return [found[row] for row in range(len(questions))]


def labelled(answered: Sequence[Answered], names: Sequence[str] = ()) -> Labelled:
    """Scores and labels for a calibration: the one-pass scores of these names, all of them unless named. Raises
    `InputError` as `check_names`."""
    check_names(names)
    scores = {name: [ONE_PASS[name].function(one.record) for one in answered] for name in names or ONE_PASS}
    texts = [one.record.text for one in answered]
    return Labelled([one.question for one in answered], scores, [not one.right for one in answered], texts)


def check_names(names: Sequence[str]) -> None:
    """`InputError` for a score that no single pass gives."""
    for name in names:
        if name not in ONE_PASS:
            raise InputError(
                f"there is no one-pass score '{name}', only {', '.join(ONE_PASS)}.{did_you_mean(name, ONE_PASS)}"
            )


def audit_rows(answered: Sequence[Answered], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` answers drawn by the seed, or all where there are fewer, as plain values for a person to judge."""
    for one in random.Random(f"audit {seed}").sample(list(answered), min(count, len(answered))):
        yield {
            "id": one.question.id,
            "question": one.question.question,
            "answer": one.record.text.strip(),
            "right": one.right,
            "expected": list(one.question.answers),
        }
