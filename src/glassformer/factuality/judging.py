"""How well documents support a value: what a reader makes of it and of its rivals, and the words around them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glassformer.factuality.claims import Claim
from glassformer.factuality.documents import Passage
from glassformer.factuality.names import PARTICLES, bare, part_of
from glassformer.factuality.passages import sentences
from glassformer.factuality.reading import Reading
from glassformer.factuality.retrieval import Index, words_of
from glassformer.factuality.values import Value, differ, find_values, same

WORDS_WORTH = 8.0
"""What all of a claim's words in the sentence of a value are worth, in the reader's logits; the same for the three
sentences around it."""
FLOOR = -15.0
"""The strength of a rival where there is none."""
ABSENT = -20.0
"""The reader's score of a value that no passage has."""
LIMITS = -20.0, 30.0
"""Of the margin between a value and its rival; where the value is nowhere, it is the lower one."""
BETWEEN = 40
"""Characters by which a name may be longer where its words stand apart."""
STEM, ENDING = 4, r"\w{0,3}"
"""Letters from which a word of a name may have another ending, and that."""
FAMILIAR = 3
"""Passages with a name that make it half of a topic."""
WEIGHTS = {"bias": 1.226, "margin": 0.247, "words": 0.638, "topic": 3.476, "others": 1.148}
"""By benchmarks/verifying.py --fit on the development part of benchmarks/claims: log-odds that a value is right, moved
so that 0 doubts 1 in 100 true statements there (each article's by weights from the others)."""


@dataclass(frozen=True)
class Occurrence:
    """A value where it stands in a passage (characters [start, end) of it), how well it answers the claim's question
    (`score`, the reader's), and the share of the claim's words in its sentence (`near`) and in that and its neighbours
    (`wide`)."""

    passage: Passage
    start: int
    end: int
    text: str
    score: float
    near: float
    wide: float

    @property
    def strength(self) -> float:
        """All of it in one number, in the reader's logits."""
        return self.score + WORDS_WORTH * (self.near + self.wide)


@dataclass(frozen=True)
class Judged:
    """The best occurrence of a claimed value and of another one that could stand in its place, and what was seen."""

    claim: Claim
    support: Occurrence | None
    rival: Occurrence | None
    features: dict[str, float]

    @property
    def score(self) -> float:
        """How well the documents support the value: the weighted sum of what was seen. 0 is where doubt begins."""
        return score_of(self.features)


def score_of(features: Mapping[str, float]) -> float:
    """The weighted sum of what was seen."""
    return WEIGHTS["bias"] + sum(WEIGHTS[name] * value for name, value in features.items())


class Words:
    """How much each word tells: log(1 + passages / passages with it), by its beginning; and which names are topics."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._count = len(index.passages)
        self._with = Counter(word for passage in index.passages for word in set(words_of(passage.text)))
        self._of: dict[str, list[tuple[Passage, str]]] = {}

    def share(self, wanted: str, text: str) -> float:
        """The share of the words of one text that stand in another, each by how much it tells; 0 to 1."""
        words = set(words_of(wanted))
        found = words & set(words_of(text))
        whole = sum(map(self._weight, words))
        return sum(map(self._weight, found)) / whole if whole else 0.0

    def topic(self, name: str, passage: Passage) -> float:
        """How much a document speaks of a name: n / (n + 3) for n passages of it that have the name; 0 to 1."""
        count = sum(name.lower() in text for _, text in self._passages_of(passage))
        return count / (count + FAMILIAR)

    def elsewhere(self, claim: Claim, passage: Passage) -> list[Occurrence]:
        """Where the document of a passage has a claim's name, in other passages too: the reader was not asked there."""
        text = claim.value.text
        name = re.compile(rf"\b{re.escape(text)}{ENDING if len(text) >= STEM else ''}(?!\w)", re.IGNORECASE)
        found = []
        for one, small in self._passages_of(passage):
            if text.lower() in small:
                found += [
                    _occurrence(one, Value("name", match[0], match.start(), match.end()), ABSENT, claim, self)
                    for match in name.finditer(one.text)
                ]
        return found

    def _passages_of(self, passage: Passage) -> list[tuple[Passage, str]]:
        """The passages of a passage's document, each with its text in small letters."""
        document = passage.document.name
        if document not in self._of:
            own = [one for one in self._index.passages if one.document.name == document]
            self._of = {document: [(one, one.text.lower()) for one in own]}  # the one that was asked about last
        return self._of[document]

    def _weight(self, word: str) -> float:
        return math.log(1 + self._count / max(self._with[word], 1))


def candidates(claim: Claim, passage: Passage) -> list[Value]:
    """All values of a passage, and where it has the claimed name in small letters or with hyphens ("oxygen-18"), or its
    words in another order, or others between them ("the Mamluk sultans of Egypt")."""
    values = find_values(passage.text)
    if claim.value.kind != "name":
        return values
    name = r"[\s-]".join(map(re.escape, re.split(r"[\s-]", claim.value.text)))
    for match in re.finditer(rf"\b{name}(?!\w)", passage.text, re.IGNORECASE):
        if not any(value.start == match.start() and value.end == match.end() for value in values):
            values.append(Value("name", match[0], match.start(), match.end()))
    if not any(_says(claim.value, value) for value in values):
        values += scattered(claim.value.text, passage.text)
    return values


def scattered(name: str, text: str) -> list[Value]:
    """Where all words of a name of several words stand near each other in a sentence, in any form and order."""
    words = [word for word in bare(name) if word not in PARTICLES]
    if len(words) < 2:
        return []
    found = []
    for start, end in sentences(text):
        places = [_place_of(word, text, start, end) for word in words]
        known = [place for place in places if place is not None]
        if len(known) == len(words):
            first, last = min(place[0] for place in known), max(place[1] for place in known)
            if last - first <= len(name) + BETWEEN:
                found.append(Value("name", text[first:last], first, last))
    return found


def _place_of(word: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Where a word of a name stands first in a part of a text, perhaps with another ending."""
    match = re.compile(rf"\b{re.escape(word)}{ENDING if len(word) >= STEM else ''}(?!\w)", re.IGNORECASE).search(
        text, start, end
    )
    return match.span() if match else None


def judged(
    claim: Claim, statement: str, passages: Sequence[Passage], readings: Sequence[Reading], words: Words
) -> Judged:
    """What passages say to a claim. `readings` hold the scores of each passage's `candidates`, in their order."""
    support: list[Occurrence] = []
    rivals: list[Occurrence] = []
    others = find_values(claim.rest)
    for passage, reading in zip(passages, readings, strict=True):
        values = candidates(claim, passage)
        for value, place in zip(values, reading.places, strict=True):
            inside = reading.span[0] <= value.start and value.end <= reading.span[1]
            score = max(reading.best if inside else place, ABSENT)
            if _says(claim.value, value):
                support.append(_occurrence(passage, value, score, claim, words))
            elif _rivals(claim.value, value) and not any(same(one, value) or same(value, one) for one in others):
                rivals.append(_occurrence(passage, value, score, claim, words))
    about = max(passages, key=lambda one: words.share(statement, one.text), default=None)
    if not support and about and claim.value.kind == "name":
        support = words.elsewhere(claim, about)
    best = max(support, key=lambda one: one.strength, default=None)
    rival = max(rivals, key=lambda one: one.strength, default=None)
    return Judged(claim, best, rival, _features(claim, statement, support, rival, about, words))


def _says(claimed: Value, found: Value) -> bool:
    if same(claimed, found):
        return True
    if claimed.kind != "name":
        return False
    return _plain(claimed.text) == _plain(found.text) or bool(scattered(claimed.text, found.text))


def _rivals(claimed: Value, found: Value) -> bool:
    """Whether a value could stand in the claimed one's place; what is a part of its name is no other thing."""
    parts = claimed.kind == "name" and (part_of(claimed.text, found.text) or part_of(found.text, claimed.text))
    return differ(claimed, found) and not parts


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", " ", name.lower())


def _occurrence(passage: Passage, value: Value, score: float, claim: Claim, words: Words) -> Occurrence:
    text = passage.text
    found = sentences(text)
    number = max((place for place, one in enumerate(found) if one[0] <= value.start), default=0)
    near = text[slice(*found[number])]
    wide = text[found[max(0, number - 1)][0] : found[min(len(found) - 1, number + 1)][1]]
    shares = words.share(claim.rest, near), words.share(claim.rest, wide)
    return Occurrence(passage, value.start, value.end, value.text, score, *shares)


def _features(
    claim: Claim,
    statement: str,
    support: Sequence[Occurrence],
    rival: Occurrence | None,
    about: Passage | None,
    words: Words,
) -> dict[str, float]:
    strongest = max((one.strength for one in support), default=-math.inf)
    margin = strongest - max(FLOOR, rival.strength if rival else FLOOR)
    return {
        "margin": min(max(margin, LIMITS[0]), LIMITS[1]),
        "words": max((one.near + one.wide for one in support), default=0.0),
        # Of what a document speaks throughout, a sentence of it need not say the name.
        "topic": words.topic(claim.value.text, about) if about and claim.value.kind == "name" else 0.0,
        # Where one of many values is wrong, it is each of them the less likely.
        "others": math.log(max(1, len(find_values(statement)))),
    }
