"""Other facts before a prompt: what gives an answer away, and examples that give none away.

A prompt may begin with a few facts of the same relation, complete with their answers, one a line (Brown et al. 2020:
"few-shot"), so that a small model knows what is asked. They must not answer the question themselves.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from glassformer.errors import InputError
from glassformer.text.stemmer import stem

if TYPE_CHECKING:
    from glassformer.interpret.facts import Fact

_WORD = re.compile(r"\w+")
_SMALL = frozenset(("and", "for", "from", "the", "von", "del", "des", "les", "los", "las"))


def gives_away(text: str, answer: str) -> bool:
    """Whether a text tells an answer: one of its words begins with a word of the answer, or with the stem of one, or
    has that stem itself ("Francophone" tells France, "General Electric" tells General Motors).

    Words of one or two letters and small words (the, of) count only where the answer has no others; then all of it
    must be there, word by word. Case does not count. It is meant to find too much rather than too little.
    """
    words = _WORD.findall(text.casefold())
    parts = _WORD.findall(answer.casefold())
    telling = [part for part in parts if len(part) > 2 and part not in _SMALL]
    if not telling:
        return bool(parts) and f" {' '.join(parts)} " in f" {' '.join(words)} "
    stems = tuple({stem(part) for part in telling})
    return any(word.startswith(stems) or stem(word) in stems for word in words)


def choose_shots(facts: Sequence[Fact], count: int, seed: int) -> list[Fact]:
    """`count` facts of one relation to stand before the others: of as many different answers as can be.

    With fewer shots than answers, each shot has an answer of its own, and the rarest answers are taken: their facts
    are to be left out, since the shots show them, and so the fewest facts are lost. With `count` a multiple of the
    number of answers all stand there equally often; then the shots favour none, and nothing is to be left out. Between
    the two some answers would be favoured: that is an `InputError`. No shot's subject gives any answer away. Which
    facts are taken and their order are drawn by the seed.

    Raises `InputError` also for facts of several relations, and where there are too few facts.
    """
    relations = sorted({fact.relation for fact in facts})
    if len(relations) > 1:
        raise InputError(f"shots are facts of one relation, this file has {len(relations)}: name one with 'relation'.")
    draw = random.Random(f"shots {seed}")
    classes: dict[str, list[Fact]] = {}
    for fact in facts:
        classes.setdefault(fact.answers[0], []).append(fact)
    if count > len(classes) and count % len(classes):
        raise InputError(
            f"'shots' must be at most the number of different answers, {len(classes)}, or a multiple of it, got "
            f"{count}: else some answers would stand before the prompt more often than others."
        )
    order = sorted(classes, key=lambda name: (len(classes[name]), draw.random()))
    each = max(1, count // len(classes))
    chosen: list[Fact] = []
    for name in order:
        mute = [fact for fact in classes[name] if not any(gives_away(fact.subject, other) for other in classes)]
        if len(mute) >= each and len(chosen) < count:
            chosen += draw.sample(mute, each)
    if len(chosen) < count:
        raise InputError(f"there are too few facts for {count} shots whose subjects tell no answer: take fewer shots.")
    draw.shuffle(chosen)
    return chosen


def shown_alike(shots: Sequence[Fact], facts: Sequence[Fact]) -> bool:
    """Whether every answer of the facts stands in the shots equally often, so that they favour none."""
    shown = [shot.answers[0] for shot in shots]
    return len({shown.count(fact.answers[0]) for fact in facts}) == 1 and bool(shown)


def lines_of_shots(shots: Sequence[Fact]) -> str:
    """The shots with their answers, one a line; the empty text where there are none."""
    return "".join(f"{joined(shot.prompt, shot.answers[0])}\n" for shot in shots)


def joined(prompt: str, answer: str) -> str:
    """The prompt with its answer, a space between them unless the prompt ends with one (or with another blank)."""
    return prompt + answer if prompt[-1:].isspace() else f"{prompt} {answer}"


def after_shots(fact: Fact, before: str) -> Fact:
    """The fact with other lines before its prompt."""
    return replace(fact, prompt=before + fact.prompt, start=fact.start + len(before))
