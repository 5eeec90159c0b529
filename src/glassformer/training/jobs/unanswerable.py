"""Questions that a text does not answer, made by rule from questions that it does.

Texts without an answer are cheap: another paragraph of the article. Questions that seem to have one are not, and people
wrote those of SQuAD 2.0; Rajpurkar et al. 2018 ("Know What You Don't Know", section 4) look at what such questions
change. `value` and `opposite` change some of that by rule, as Jia and Liang 2017 ("Adversarial Examples for Evaluating
Reading Comprehension Systems", section 3.3) change questions: a name or number by another, a word by its opposite. A
question may have an answer all the same, seldom enough to learn from the others.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import get_args

import numpy as np

from glassformer.errors import InputError
from glassformer.text.questions import Question
from glassformer.training.sections import Negative

_WORD = re.compile(r"\w+")
_NAME = r"[A-Z][\w'’-]+(?: (?:of |the |de |van )?[A-Z][\w'’-]+)*"
_VALUE = re.compile(rf"(?<=[a-z0-9,;:)\"] )(?P<name>{_NAME})|(?<![\w.,])(?P<number>\d[\d,.]*\d|\d)(?![\w%])")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_VERB = re.compile(r"\b(?:was|were|is|are|did|does|do|could|has|have|had|would|should)\b(?! not)")
_LONGEST = 4  # words of a name
_PAIRS = (
    "first last, largest smallest, biggest smallest, highest lowest, most least, more fewer, before after, increase "
    "decrease, increased decreased, north south, northern southern, east west, eastern western, oldest newest, early "
    "late, earlier later, earliest latest, began ended, begin end, started ended, start stop, win lose, won lost, male "
    "female, men women, man woman, minimum maximum, positive negative, above below, inside outside, internal external, "
    "support oppose, supported opposed, major minor, majority minority, rich poor, high low, higher lower, greater "
    "smaller, greatest smallest, long short, longest shortest, longer shorter, large small, larger smaller, old new, "
    "modern ancient, good bad, best worst, better worse, strong weak, stronger weaker, fast slow, faster slower, cause "
    "prevent, caused prevented, causes prevents, allow forbid, allowed forbade, include exclude, included excluded, "
    "accept reject, accepted rejected, public private, legal illegal, common rare, possible impossible, similar "
    "different, always never, often seldom, usually rarely, father mother, son daughter, brother sister, husband wife, "
    "king queen, built destroyed, created destroyed, founded dissolved, established abolished, open close, opened "
    "closed, join leave, joined left, born died, gain lose, gained lost, rise fall, rose fell, import export, bought "
    "sold, buy sell, attacked defended, victory defeat, hot cold, warm cold, dry wet, light dark, black white, urban "
    "rural, domestic foreign, simple complex, natural artificial, permanent temporary, known unknown, successful "
    "unsuccessful, agreed disagreed, popular unpopular, important unimportant, with without"
)
_OPPOSITES: dict[str, list[str]] = defaultdict(list)
for _one, _other in (pair.split() for pair in _PAIRS.split(",")):
    _OPPOSITES[_one].append(_other)
    if _other not in ("left", "without"):  # "left" seldom means what "joined" is the opposite of
        _OPPOSITES[_other].append(_one)


def unanswerable(
    questions: list[Question], share: float, seed: int, kinds: Sequence[Negative] = ("paragraph",)
) -> list[Question]:
    """`share` times as many questions without an answer, drawn by `seed`, of these kinds in turn:

    - `paragraph`: a question beside another paragraph of its article, which holds none of its answers' texts;
    - `nearest`: beside the one of these that has most in common with the question, rare words weighing more;
    - `value`: beside its own, but with one of the names or numbers that both have replaced by one of another paragraph;
    - `opposite`: beside its own, with a word replaced by its opposite, or now and then with "n't" behind its verb.

    A kind that a question cannot be made into gives way to the next one. Articles of one paragraph may give none.
    Raises `InputError` for no kind at all.
    """
    if not kinds:
        raise InputError(f"unanswerable questions need at least one kind of {', '.join(get_args(Negative))}.")
    maker = _Maker(questions, np.random.default_rng([seed, 3]))
    count = round(share * len(questions))
    order = [maker.random.permutation(len(questions)) for _ in range(count // len(questions) + 1)]
    found = []
    for place, row in enumerate(np.concatenate(order)[:count].tolist()):
        turn = place % len(kinds)
        tries = (maker.made(kind, questions[row]) for kind in (*kinds[turn:], *kinds[:turn]))
        if made := next((one for one in tries if one is not None), None):
            found.append(made)
    return found


class _Maker:
    """What is known of all articles, and the draws."""

    def __init__(self, questions: list[Question], random: np.random.Generator) -> None:
        self.random = random
        self.contexts: dict[str, list[str]] = defaultdict(list)
        for question in questions:
            if question.context not in self.contexts[question.title][-1:]:
                self.contexts[question.title].append(question.context)
        self._known: dict[str, list[tuple[str, str]]] = {}
        self._makers: dict[Negative, Callable[[Question], Question | None]] = {
            "paragraph": self._beside_another,
            "nearest": self._beside_the_nearest,
            "value": self._with_another_value,
            "opposite": self._with_the_opposite,
        }

    def made(self, kind: Negative, question: Question) -> Question | None:
        """A question of this kind from one with an answer, or None."""
        made = self._makers[kind](question)
        return made and dataclasses.replace(made, id=f"{question.id}-no", answers=())

    def _others(self, question: Question) -> list[str]:
        """The other paragraphs of a question's article that hold none of its answers."""
        return [
            context
            for context in self.contexts[question.title]
            if context != question.context and not any(answer.text in context for answer in question.answers)
        ]

    def _beside_another(self, question: Question) -> Question | None:
        others = self._others(question)
        return dataclasses.replace(question, context=self._drawn(others)) if others else None

    def _beside_the_nearest(self, question: Question) -> Question | None:
        asked = set(_words(question.question))
        weights = {word: self._rarity(word) for word in asked}

        def common(context: str) -> float:
            return math.fsum(weights[word] for word in asked & self._word_sets[context])

        others = self._others(question)
        return dataclasses.replace(question, context=max(others, key=common)) if others else None

    def _with_another_value(self, question: Question) -> Question | None:
        text, own = question.question, set(self._values_of(question.context))
        here = [value for value in _values(text) if (_kind(value), value.group()) in own]
        taken = f"{question.context} {text}".casefold()
        for value in (here[place] for place in self.random.permutation(len(here)).tolist()):
            others = [
                other
                for context in self.contexts[question.title]
                if context != question.context
                for kind, other in self._values_of(context)
                if kind == _kind(value) and other.casefold() not in taken
            ]
            if others:
                changed = text[: value.start()] + self._drawn(others) + text[value.end() :]
                return dataclasses.replace(question, question=changed)
        return None

    def _with_the_opposite(self, question: Question) -> Question | None:
        text = question.question
        if words := [word for word in _WORD.finditer(text) if word.group().lower() in _OPPOSITES]:
            word = words[int(self.random.integers(len(words)))]
            changed = text[: word.start()] + self._drawn(_OPPOSITES[word.group().lower()]) + text[word.end() :]
            return dataclasses.replace(question, question=changed)
        verb = _VERB.search(text)
        if verb is None or self.random.random() < 0.5:  # else what is learnt is that "n't" means no answer
            return None
        return dataclasses.replace(question, question=f"{text[: verb.end()]}n't{text[verb.end() :]}")

    def _values_of(self, text: str) -> list[tuple[str, str]]:
        """The names and numbers of a text, each behind its kind. A sentence begins with a capital anyway."""
        if text not in self._known:
            self._known[text] = [(_kind(found), found.group()) for found in _values(text)]
        return self._known[text]

    def _drawn(self, some: Sequence[str]) -> str:
        return some[int(self.random.integers(len(some)))]

    @cached_property
    def _word_sets(self) -> dict[str, set[str]]:
        return {context: set(_words(context)) for contexts in self.contexts.values() for context in contexts}

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(word for words in self._word_sets.values() for word in words)

    def _rarity(self, word: str) -> float:
        return math.log(1 + len(self._word_sets) / (1 + self._counts[word]))


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _values(text: str) -> Iterator[re.Match[str]]:
    return (found for found in _VALUE.finditer(text) if len(found.group().split()) <= _LONGEST)


def _kind(found: re.Match[str]) -> str:
    """ "name", "year" or "number"."""
    return "year" if _YEAR.fullmatch(found.group()) else str(found.lastgroup)
