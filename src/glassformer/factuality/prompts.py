"""How a question is put to a model: the styles, each a template, and the examples that stand before it."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.questions import Question
from glassformer.tasks.chat import chat_ids
from glassformer.tasks.inputs import text_ids
from glassformer.tasks.model import Model

Style = Literal["bare", "may-abstain", "few-shot", "with-evidence"]
Message = dict[str, str]

# What a model that chats is told before the question, and what any other reads before "Q: …".
INSTRUCTIONS: dict[Style, str] = {
    "bare": "Answer in a few words.",
    "may-abstain": 'Answer in a few words. If you are not sure, say "I don\'t know".',
    "few-shot": "Answer in a few words.",
    "with-evidence": 'Answer in a few words, from this text only. If it does not say, say "I don\'t know".',
}
STOP = "\n"
"""An answer ends with its line."""


def prompt_of(question: Question, shots: Sequence[Question] = (), style: Style = "few-shot") -> str:
    """The question as plain text for a model that goes on from it, up to where the answer begins, at "A:".

    Every line is "Q: …" or "A: …". "few-shot" begins with the `shots` and their first answers, one below the other
    (Brown et al. 2020); "bare" is the question alone; "may-abstain" and "with-evidence" begin with their instruction
    (`INSTRUCTIONS`), the latter with the question's context after it. Shots go with every style.

    Raises `InputError` for a style that is none, evidence that is not there, and shots without an answer.
    """
    _check(question, shots, style)
    before = "" if style in ("bare", "few-shot") else f"{INSTRUCTIONS[style]}\n"
    evidence = f"Text: {_line(question.context or '')}\n" if style == "with-evidence" else ""
    shown = "".join(f"Q: {_line(shot.question)}\nA: {_line(shot.answers[0])}\n" for shot in shots)
    return f"{before}{shown}{evidence}Q: {_line(question.question)}\nA:"


def messages_of(question: Question, shots: Sequence[Question] = (), style: Style = "bare") -> list[Message]:
    """The same as a conversation, for a model that was tuned to chat: the shots are earlier turns, the instruction
    opens the first. Errors as in `prompt_of`."""
    _check(question, shots, style)
    turns: list[Message] = []
    for shot in shots:
        turns.append({"role": "user", "content": shot.question})
        turns.append({"role": "assistant", "content": shot.answers[0]})
    evidence = f"{question.context}\n\n" if style == "with-evidence" else ""
    turns.append({"role": "user", "content": f"{evidence}{question.question}"})
    turns[0]["content"] = f"{INSTRUCTIONS[style]}\n{turns[0]['content']}"
    return turns


def ids_of(model: Model, question: Question, shots: Sequence[Question] = (), style: Style = "few-shot") -> list[int]:
    """What the model reads: `messages_of` by its chat template where it has one, else `prompt_of`; "few-shot" is plain
    text for every model, since the examples say by themselves what is asked."""
    if style != "few-shot" and model.pipeline.chat_template:
        return chat_ids(model, messages_of(question, shots, style))
    return text_ids(model, [prompt_of(question, shots, style)])[0]


def shots_for(question: Question, pool: Sequence[Question], count: int, seed: int) -> list[Question]:
    """`count` questions of the pool to stand before this one, with answers, never of its entity.

    They are of its relation where that has enough, else the rest are of others. Of one relation, each shows another
    answer until all answers have been shown. Which, and their order, is drawn by the seed: the same for all questions
    of a relation, but where one of these would be of the question's own entity and the next takes its place.

    Raises `InputError` where the pool has too few.
    """
    chosen: list[Question] = []
    same = [one for one in pool if one.relation == question.relation]
    others = [one for one in pool if one.relation != question.relation]
    for part, name in ((same, question.relation), (others, "")):
        chosen += _varied(part, f"shots {seed} {name}", question.entity)[: count - len(chosen)]
    if len(chosen) < count:
        raise InputError(f"{count} shots need as many other questions with answers; here are {len(chosen)}.")
    return chosen


def pool_of(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Of each relation 2 · `count` questions of different entities, which is what `shots_for` needs: so many in reserve
    for questions about the entity of one of them. Their contexts, which no prompt shows, are left out."""
    pool: list[Question] = []
    for name in sorted({one.relation for one in questions}):
        entities: set[str] = set()
        for one in _varied([one for one in questions if one.relation == name], f"pool {seed} {name}"):
            if len(entities) < 2 * count and one.entity.casefold() not in entities:
                entities.add(one.entity.casefold())
                pool.append(replace(one, context=None))
    return pool


def relation_of(text: str, pool: Sequence[Question]) -> str:
    """The relation that a question most likely asks for, told by its wording: "" where none of the pool's is near.

    Of a relation's wording (a question of the pool without its entity) the text must have more than half of the words,
    each weighted by −log of the share of wordings that have it; the one with the largest share is taken. So a question
    that names no relation is put, and its risk judged, as those of the calibration were.
    """
    wordings = {one.relation: _words(one.question) - _words(one.entity) for one in pool if one.relation}
    counts = Counter(word for words in wordings.values() for word in words)
    weights = {word: math.log((len(wordings) + 1) / count) for word, count in counts.items()}
    best, found = 0.5, ""
    for relation, words in sorted(wordings.items()):
        share = sum(weights[word] for word in words & _words(text)) / (sum(weights[word] for word in words) or 1.0)
        if share > best:
            best, found = share, relation
    return found


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _varied(questions: Sequence[Question], seed: str, but: str = "") -> list[Question]:
    """In an order drawn by the seed: one of each answer, then a second of each, and so on, but for one entity."""
    draw = random.Random(seed)
    classes: dict[str, list[Question]] = {}
    for one in draw.sample(questions, len(questions)):
        if one.answers and one.entity.casefold() != but.casefold():
            classes.setdefault(one.answers[0].casefold(), []).append(one)
    rounds = max(map(len, classes.values()), default=0)
    return [group[turn] for turn in range(rounds) for group in classes.values() if turn < len(group)]


def check_style(name: str) -> Style:
    """The style of this name; `InputError` for one that is none, with the nearest."""
    for known in get_args(Style):
        if name == known:
            return known
    styles = get_args(Style)
    raise InputError(f"a style is one of {', '.join(styles)}, got '{name}'.{did_you_mean(name, styles)}")


def _check(question: Question, shots: Sequence[Question], style: str) -> None:
    check_style(style)
    if style == "with-evidence" and not question.context:
        raise InputError(f"question '{question.id}' has no context, which the style 'with-evidence' shows.")
    if bare := [shot.id for shot in shots if not shot.answers]:
        raise InputError(f"a shot must have an answer, '{bare[0]}' has none.")


def _line(text: str) -> str:
    """On one line, since a newline ends an answer."""
    return " ".join(text.split())
