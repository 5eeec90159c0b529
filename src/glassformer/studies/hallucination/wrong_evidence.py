"""Questions with evidence that is wrong: a passage that does not answer, and passages with another value in place of
the right one."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from glassformer.errors import InputError
from glassformer.factuality.questions import Question, is_refusal, is_right
from glassformer.factuality.values import Value, differ, find_values, same
from glassformer.tasks.squad import normalized

Kind = Literal["true", "absent", "altered", "both"]
Outcome = Literal["right", "misled", "another", "abstains"]

KINDS: tuple[Kind, ...] = ("true", "absent", "altered", "both")
TITLES = (
    *("Amazon_rainforest", "Civil_disobedience", "Construction", "Ctenophora", "European_Union_law", "Force"),
    *("Harvard_University", "Islamism", "Jacksonville,_Florida", "Oxygen", "Pharmacy", "Private_school", "Rhine"),
    *("Sky_(United_Kingdom)", "Southern_California", "University_of_Chicago", "Victoria_(Australia)", "Warsaw"),
)
"""The test articles of recipes/squad-refusal.toml: nothing was taught or chosen on them."""

_LEAD = re.compile(r"^(?:(?:in|on|at|by|about|around|from|of|the|an?)\s+)+", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """A question whose answer is the value `right`, and what it may be shown: its own passage (`true`), one of the
    article without that value (`absent`), and the own one with `wrong` in place of it (`altered`), another value of
    the kind from elsewhere in the article: it says none of the question's answers then. `first`: whether the altered
    one stands before the true one."""

    question: Question
    right: Value
    wrong: Value
    true: str
    absent: str
    altered: str
    first: bool

    def texts(self, kind: Kind) -> list[str]:
        """The passages of a kind of evidence, in the order in which they are shown."""
        if kind == "both":
            return [self.altered, self.true] if self.first else [self.true, self.altered]
        return [{"true": self.true, "absent": self.absent, "altered": self.altered}[kind]]


def cases_of(questions: Sequence[Question], each: int, seed: int, titles: Sequence[str] = TITLES) -> list[Case]:
    """At most `each` cases of every article, drawn by the seed, in the order of the articles: of those of `titles`, or
    of all where the questions are of others. `InputError` where no question can be altered."""
    articles = [one for one in dict.fromkeys(question.entity for question in questions) if one in titles]
    found: list[Case] = []
    for title in articles or list(dict.fromkeys(question.entity for question in questions)):
        own = [question for question in questions if question.entity == title and question.context]
        paragraphs = list(dict.fromkeys(question.context or "" for question in own))
        values = {text: find_values(text) for text in paragraphs}
        order = random.Random(f"misleading {seed} {title}")
        order.shuffle(own)
        cases = (_case(question, values, order) for question in own)
        found += itertools.islice((case for case in cases if case), each)
    if not found:
        raise InputError(
            "no question's answer is a number, date or name that could be replaced: give articles of SQuAD."
        )
    return found


def _case(question: Question, values: dict[str, list[Value]], order: random.Random) -> Case | None:
    """A question with its evidence; None where its answer is no single value, or nothing could take its place."""
    right, true = _only_value(question.answers), question.context or ""
    if right is None or _has(find_values(question.question), right) or not _has(values[true], right):
        return None
    taken = [*values[true], *find_values(question.question)]
    others = [value for text, held in values.items() if text != true for value in held]
    wrong = [one for one in others if _fits(one, right) and not _has(taken, one) and differ(right, one)]
    absent = [text for text, held in values.items() if not _has(held, right) and not _holds(text, question.answers)]
    if not wrong or not absent:
        return None
    chosen = order.choice(wrong)
    altered = replaced(true, values[true], right, chosen.text)
    if _has(find_values(altered), right) or not _has(find_values(altered), chosen):
        return None
    if any(f" {normalized(answer)} " in f" {normalized(altered)} " for answer in question.answers):
        return None
    return Case(question, right, chosen, true, order.choice(absent), altered, order.random() < 0.5)


def _only_value(answers: Iterable[str]) -> Value | None:
    """The value that an answer is, but for a preposition or article before it; None where it is more or less."""
    for answer in answers:
        core = _LEAD.sub("", answer.strip().rstrip(".,;"))
        found = find_values(core)
        if len(found) == 1 and found[0].text == core:
            return found[0]
    return None


def replaced(text: str, values: Sequence[Value], right: Value, wrong: str) -> str:
    """The text with `wrong` wherever one of its values says `right`."""
    for value in sorted(values, key=lambda value: -value.start):
        if _alike(value, right):
            text = text[: value.start] + wrong + text[value.end :]
    return text


def _fits(value: Value, right: Value) -> bool:
    """Whether a value looks like the right one: of its kind, as many words, digits where it has digits."""
    return value.kind == right.kind and not value.doubtful and _shape(value.text) == _shape(right.text)


def _shape(text: str) -> str:
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", text))


def _alike(one: Value, other: Value) -> bool:
    return same(one, other) or same(other, one)


def _has(values: Iterable[Value], wanted: Value) -> bool:
    return any(_alike(value, wanted) for value in values)


def _holds(text: str, answers: Iterable[str]) -> bool:
    return any(answer.casefold() in text.casefold() for answer in answers)


def outcome(text: str | None, case: Case, kind: Kind) -> Outcome:
    """What an answer is: "abstains" for none or a refusal; "right" or "misled" by which of the two values it names, the
    first of them where it has both; of a passage that does not answer, any other answer is "misled" too."""
    if not text or is_refusal(text):
        return "abstains"
    places = {
        name: min((one.start for one in find_values(text) if _alike(one, value)), default=len(text))
        for name, value in (("right", case.right), ("wrong", case.wrong))
    }
    named = min(places.values()) < len(text)
    if named and places["wrong"] < places["right"]:
        return "misled"
    if named or is_right(text, case.question, lenient=True):
        return "right"
    return "misled" if kind == "absent" else "another"
