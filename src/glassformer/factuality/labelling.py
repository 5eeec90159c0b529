"""Asking a model questions whose answers are known: what it answers, how sure it was, and whether it is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.answering import records_of
from glassformer.factuality.calibration import Asking, Labelled, identity
from glassformer.factuality.kept_answers import KeptAnswers
from glassformer.factuality.prompts import STOP, ids_of, pool_of, shots_for
from glassformer.factuality.questions import Question, is_right
from glassformer.factuality.records import Kept, Record
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.tasks.model import Model


@dataclass(frozen=True, eq=False)
class Answered:
    """A question with the record of a model's answer to it, and whether that is right."""

    question: Question
    record: Record
    right: bool


def asking_of(questions: Sequence[Question], asking: Asking) -> Asking:
    """The same way of asking with its shots, chosen among the questions; see `prompts.pool_of`.

    Without shots in its prompts it has some of each relation too: by their wording `relation_of` tells what a new
    question asks for, which a risk may depend on.
    """
    return replace(asking, shots=tuple(pool_of(questions, max(1, asking.count), asking.seed)))


def prompt_ids_of(model: Model, question: Question, asking: Asking) -> list[int]:
    """What the model reads of a question put in this way."""
    return ids_of(model, question, _shots(question, asking), asking.style)


def _shots(question: Question, asking: Asking) -> list[Question]:
    return shots_for(question, asking.shots, asking.count, asking.seed) if asking.count else []


def answer_all(
    model: Model,
    questions: Sequence[Question],
    asking: Asking,
    *,
    kept: Path | None = None,
    keep: Kept | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Answered]:
    """Ask every question in one way, and judge the answers with `is_right`: leniently, unless shots have shown that an
    answer is a few bare words. In order; `say` is told how far it is.

    The shots that questions of one relation share are read once. With a file `kept` answers are written there as they
    come, and those that it has, of the same prompts and weights, are not asked for again. `keep` is that of `record`
    (states). Raises `InputError` for both, since no file keeps states.
    """
    if kept is not None and keep is not None:
        raise InputError("states are not written to a file of answers: leave out 'kept' or 'keep'.")
    prompts = [prompt_ids_of(model, question, asking) for question in questions]
    file = KeptAnswers(kept, identity(model), asking.max_new_tokens, STOP) if kept is not None else None
    found = {row: one for row, prompt in enumerate(prompts) if file and (one := file.get(prompt))}
    if found:
        say(f"{len(found)} of {len(prompts)} answers are in {kept} already")
    rows = [row for row in range(len(prompts)) if row not in found]
    groups = [tuple(shot.id for shot in _shots(questions[row], asking)) for row in rows]
    wanted: dict[str, Any] = {"max_new_tokens": asking.max_new_tokens, "stop": STOP, "keep": keep}
    for numbers, records in records_of(model, [prompts[row] for row in rows], groups, **wanted):
        if file:
            file.add(records)
        found |= {rows[number]: one for number, one in zip(numbers, records, strict=True)}
        right = sum(_is_right(one, questions[row], asking) for row, one in found.items())
        say(f"{len(found)} of {len(prompts)} questions answered, {right} of them right")
    return [Answered(each, found[row], _is_right(found[row], each, asking)) for row, each in enumerate(questions)]


def _is_right(one: Record, question: Question, asking: Asking) -> bool:
    return is_right(one.text, question, lenient=not asking.count)


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
