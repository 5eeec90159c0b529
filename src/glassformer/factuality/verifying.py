"""Statements against documents: is each number, date and name of them supported, contradicted, or not to be found?

A claim is asked of the passages that speak of it, without its value: a reader finds what stands in the value's place
there. Documents are data: nothing that they say is followed, and a document may be wrong itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from glassformer.errors import InputError
from glassformer.factuality.claims import Claim, claims_of, sentences_of
from glassformer.factuality.documents import Documents, Passage
from glassformer.factuality.grounding import READER, Evidence, opened
from glassformer.factuality.judging import Judged, Occurrence, Words, candidates, judged
from glassformer.factuality.passages import sentences, sentences_around
from glassformer.factuality.reading import Reading, read
from glassformer.factuality.retrieval import Index

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

Verdict = Literal["supported", "contradicted", "not found"]

COUNT = 4
"""Passages that are searched for a claim without its value; and two less for the whole sentence."""
_Job = tuple[str, str, tuple[tuple[int, int], ...]]  # a question, a passage and places in it
SUPPORTED = 0.0
"""The least score of a value that is supported; see `judging.WEIGHTS`."""
CONTRADICTED = -3.0
"""How much more the reader may prefer "no answer" to another value that contradicts the claimed one."""
COVERED = 0.25
"""The least share of a sentence's words that the quotes and their neighbours must have to support all of it."""


BESIDE = 300
"""Characters on either side of a quote that count for that."""


@dataclass(frozen=True)
class Checked:
    """A claim of the statement: characters [start, end) of it, a value or (`kind` "claim") a whole sentence.

    `evidence` quotes what supports or contradicts it, the best first; none where nothing was found. `found` is what
    stands in the documents in place of a contradicted value. `score` is greater the better the support is (no
    probability; 0 is where doubt begins); that of a sentence is the least of its values.
    """

    text: str
    start: int
    end: int
    kind: Literal["number", "date", "name", "claim"]
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    score: float
    found: str | None = None


@dataclass(frozen=True)
class Verification:
    """A statement with its `claims`, in its order, each sentence behind its values. Without any, there was nothing to
    check: no number, date or name."""

    statement: str
    claims: tuple[Checked, ...]

    @property
    def supported(self) -> bool:
        """Whether there was something to check, and all of it is supported."""
        return bool(self.claims) and all(one.verdict == "supported" for one in self.claims)

    def table(self) -> str:
        """A line for each claim, with the quote that decides it below; for people."""
        if not self.claims:
            return f"{self.statement}\n  nothing to check: no number, date or name"
        width = max(len(one.kind) for one in self.claims)
        rows = [self.statement]
        for one in self.claims:
            named = "the whole sentence" if one.kind == "claim" else one.text
            instead = f" (the documents: {one.found})" if one.found else ""
            rows.append(f"  {one.verdict:<12}  {one.kind:<{width}}  {named}{instead}")
            rows += [f'      "{_line(quote.quote)}"  {quote.document.name}:{quote.start}-{quote.end}'
                     for quote in one.evidence[:1] if one.kind != "claim"]  # fmt: skip
        return "\n".join(rows)

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; places are characters of the statement and of the documents."""
        return {"statement": self.statement, "claims": [_record(one) for one in self.claims]}


class Verifier:
    """Documents and a reader, ready for statements. See `verify`."""

    def __init__(self, documents: Documents | Index, reader: Model | str | None = None, *, count: int = COUNT) -> None:
        if count < 1:
            raise InputError(f"'count' must be at least 1, got {count}.")
        self.index = documents if isinstance(documents, Index) else Index(documents)
        self.reader = opened(READER if reader is None else reader)
        self.count = count
        self._words = Words(self.index)

    def verify(self, statement: str) -> Verification:
        """One statement."""
        return self.verify_all([statement])[0]

    def verify_all(self, statements: Sequence[str]) -> list[Verification]:
        """Statements, each by itself; the reader takes the passages of all of them together."""
        results = self.judge_all(statements)
        return [
            Verification(statement, tuple(self._checked(statement, judgements)))
            for statement, judgements in zip(statements, results, strict=True)
        ]

    def judge_all(self, statements: Sequence[str]) -> list[list[Judged]]:
        """What the documents say to each value of each statement, without verdicts."""
        for number, statement in enumerate(statements, 1):
            if not re.search(r"\w", statement):
                raise InputError(f"statement {number} has no words: give a sentence to check.")
        asked = [
            (statement, claim, self._passages(statement, claim))
            for statement in statements
            for claim in self._claims(statement)
        ]
        readings = iter(self._read([(claim, passage) for _, claim, passages in asked for passage in passages]))
        found: dict[str, list[Judged]] = {statement: [] for statement in statements}
        done: set[tuple[str, int]] = set()
        for statement, claim, passages in asked:
            own = [next(readings) for _ in passages]
            if (statement, claim.value.start) not in done:
                done.add((statement, claim.value.start))
                sentence = statement[claim.start : claim.end]
                found[statement].append(judged(claim, sentence, passages, own, self._words))
        return [found[statement] for statement in statements]

    def covered(self, statement: str, judgements: Sequence[Judged]) -> float:
        """The least share of a sentence's words that stand in what supports its values and around it; 1 without any."""
        shares = []
        for start, end in sentences_of(statement):
            own = [one.support for one in judgements if start <= one.claim.value.start < end]
            if own:
                quotes = [evidence_of(one) for one in own if one is not None]
                shares.append(self._words.share(statement[start:end], _around(quotes)))
        return min(shares, default=1.0)

    def _claims(self, statement: str) -> list[Claim]:
        """The claims of a statement, without first words that the documents write small: they are no names."""
        claims = claims_of(statement)
        if not any(claim.value.doubtful for claim in claims):
            return claims
        texts = [passage.text for passage in self._found(statement)]
        return [
            claim
            for claim in claims
            if not claim.value.doubtful
            or not any(re.search(rf"\b{re.escape(claim.value.text.lower())}\b", text) for text in texts)
        ]

    def _found(self, query: str, less: int = 0) -> list[Passage]:
        if not re.search(r"\w", query):
            return []
        return [one.passage for one in self.index.search(query, max(1, self.count - less))]

    def _passages(self, statement: str, claim: Claim) -> list[Passage]:
        sentence = statement[claim.start : claim.end]
        both = [*self._found(claim.rest), *self._found(sentence, 2)]
        return list({(one.document.name, one.start): one for one in both}.values())

    def _read(self, asked: Sequence[tuple[Claim, Passage]]) -> list[Reading]:
        """What the reader makes of each passage's values; what is asked twice is read once."""
        jobs: dict[_Job, None] = {}
        keys: list[_Job] = []
        for claim, passage in asked:
            places = tuple((value.start, value.end) for value in candidates(claim, passage))
            keys.append((claim.probe, passage.text, places))
            jobs[keys[-1]] = None
        read_once = read(self.reader, *map(list, zip(*jobs, strict=True))) if jobs else []
        found = dict(zip(jobs, read_once, strict=True))
        return [found[key] for key in keys]

    def _checked(self, statement: str, judgements: Sequence[Judged]) -> Iterable[Checked]:
        for start, end in sentences_of(statement):
            own = [one for one in judgements if start <= one.claim.value.start < end]
            if own:
                values = _with_topics(own, [verdict_of(one) for one in own])
                yield from values
                yield self._sentence(statement, start, end, values)

    def _sentence(self, statement: str, start: int, end: int, values: Sequence[Checked]) -> Checked:
        """The claim of a whole sentence: as good as the worst of its values, and its words must be about the quotes."""
        verdicts = {one.verdict for one in values}
        evidence = tuple({(one.document.name, one.start): one for value in values for one in value.evidence}.values())
        verdict: Verdict = "contradicted" if "contradicted" in verdicts else "not found"
        if verdicts == {"supported"} and self._words.share(statement[start:end], _around(evidence)) >= COVERED:
            verdict = "supported"
        score = min(one.score for one in values)
        return Checked(statement[start:end], start, end, "claim", verdict, evidence, score)


def verify(
    statement: str, documents: Documents | Index, *, reader: Model | str | None = None, count: int = COUNT
) -> Verification:
    """Check a statement's numbers, dates and names, and its sentences, against documents.

    For each value the passages that speak of the rest of its sentence are read with a question that asks for it. It is
    *supported* where the evidence has the same value (see `values.same`) in a place that answers the question, or words
    of the sentence around it; *contradicted* where the reader finds another value of its kind there, and *not found*
    else. A sentence is supported where all of its values are and the quotes are about its words.

    `reader` is a model that finds spans, or its name ("squad-minilm"); `count` is how many passages are read for a
    value, about. Documents must be searchable (extra `ground`). To check many statements make a `Verifier` once.

    Raises `InputError` for a statement without words, and what `Index` and the reader refuse.
    """
    return Verifier(documents, reader, count=count).verify(statement)


def verdict_of(one: Judged) -> Checked:
    """What follows from what the documents say to a value."""
    value = one.claim.value
    kept = (value.text, value.start, value.end, value.kind)
    if one.support is not None and one.score >= SUPPORTED:
        return Checked(*kept, "supported", (evidence_of(one.support),), one.score)
    if one.rival is not None and one.rival.score >= CONTRADICTED:
        return Checked(*kept, "contradicted", (evidence_of(one.rival),), one.score, one.rival.text)
    return Checked(*kept, "not found", (), one.score)


def _around(evidence: Sequence[Evidence]) -> str:
    """Quotes with what stands before and behind them in their documents."""
    return " ".join(one.document.text[max(0, one.start - BESIDE) : one.end + BESIDE] for one in evidence)


def _with_topics(own: Sequence[Judged], values: Sequence[Checked]) -> list[Checked]:
    """The same, but what stands beside the value that contradicts the worst of them is supported by that.

    Where "The Mona Lisa was painted in 1815" has a wrong year, nothing "was painted in 1815", and the name would not be
    found; but the sentence with the right year speaks of it.
    """
    wrong = [(one.score, other.rival) for one, other in zip(values, own, strict=True) if one.verdict == "contradicted"]
    if not wrong:
        return list(values)
    score, rival = min(wrong, key=lambda one: one[0])
    assert rival is not None
    found = []
    for one in values:
        place = _beside(one.text, rival) if one.verdict != "supported" and one.score > score else None
        if place is not None:
            one = replace(one, verdict="supported", evidence=(evidence_of(place),), found=None)
        found.append(one)
    return found


def _beside(name: str, rival: Occurrence) -> Occurrence | None:
    """Where a text stands in the sentence of a rival or in one of its neighbours."""
    text = rival.passage.text
    parts = sentences(text)
    number = max((place for place, one in enumerate(parts) if one[0] <= rival.start), default=0)
    begin, end = parts[max(0, number - 1)][0], parts[min(len(parts) - 1, number + 1)][1]
    match = re.compile(rf"\b{re.escape(name)}(?!\w)").search(text, begin, end)
    return replace(rival, start=match.start(), end=match.end(), text=match[0]) if match else None


def evidence_of(one: Occurrence) -> Evidence:
    """The sentence around an occurrence, by its place in the document."""
    document, offset = one.passage.document, one.passage.start
    begin, stop = offset + one.start, offset + one.end
    start, end = sentences_around(document.text, begin, stop, (one.passage.start, one.passage.end))
    return Evidence(document.text[start:end], document, start, end, one.score, (begin, stop))


def _record(one: Checked) -> dict[str, Any]:
    return {
        "text": one.text, "start": one.start, "end": one.end, "kind": one.kind, "verdict": one.verdict,
        "score": round(one.score, 4), "found": one.found,
        "evidence": [
            {"quote": quote.quote, "document": quote.document.name, "start": quote.start, "end": quote.end,
             "score": round(quote.score, 4)}
            for quote in one.evidence
        ],
    }  # fmt: skip


def _line(text: str) -> str:
    return " ".join(text.split())
