"""Answers that a model composes from passages, and what is left of them when every value was looked up there.

What a passage says is data. It stands between marks that it cannot write itself, and whatever the model makes of it, an
order included, must pass the same checks: a number, date or name stays only where the evidence has it in answer to the
question. Whether a document lies cannot be seen here; that two of them disagree can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from glassformer.factuality.claims import Claim, claims_of
from glassformer.factuality.documents import Passage
from glassformer.factuality.grounding import COUNT, READER, Evidence, Grounded, ground_all, opened
from glassformer.factuality.judging import Judged, Words, candidates, judged
from glassformer.factuality.prompts import STOP, ids_of
from glassformer.factuality.questions import Question, is_refusal
from glassformer.factuality.reading import Reading, read
from glassformer.factuality.records import Record, record
from glassformer.factuality.retrieval import Index
from glassformer.factuality.values import differ, find_values, same
from glassformer.factuality.verifying import Checked, verdict_of
from glassformer.tasks.squad import normalized

if TYPE_CHECKING:
    from glassformer.tasks.model import Model

NOT_SAID = "the documents do not say"
SHOWN = 3
"""The most passages that the model is shown: those in which the reader found an answer, the likeliest first."""
WORDS = 0.5
"""The least share of its words that a passage must have of an answer without any number, date or name."""
NEAR = 4.0
"""How much lower than the answer's own the score of another passage may be that gives another value "as surely". Of 104
development questions (13 articles, none of the test), whole articles disagreed with themselves for 2 of 69 right
answers, and of 81 passages with an altered value 57 were seen to disagree with the true one; 3 gives 1 and 56, 6 gives
5 and 60."""
MARK = '"""'
"""Stands before and after every passage in the prompt."""
STRUCK = "[…]"
"""Stands in an answer in place of what was struck from it."""


@dataclass(frozen=True, eq=False)
class Written:
    """What a model composed (`draft`), and what is left of it: `answer`, or None and `why`.

    `checks` are the values of the draft that the question does not have itself, each with its verdict and evidence;
    those not supported are struck from the answer. `grounded` is what the reader found; where that is no answer,
    nothing is composed, and there is no `record`.
    """

    answer: str | None
    why: str
    draft: str
    checks: tuple[Checked, ...]
    grounded: Grounded
    record: Record | None = None


def write_all(
    model: Model,
    questions: Sequence[str],
    index: Index,
    reader: Model | str = READER,
    *,
    count: int = COUNT,
    max_new_tokens: int = 48,
) -> list[Written]:
    """Answers in the model's words from the passages that `index` finds, checked against them; see `Checker`.

    The reader reads the `count` passages first: where it finds no answer, the documents do not say, and the model is
    not asked. Else the model is shown the passages with answers. Raises `InputError` as `ground_all` and `record`.
    """
    reading = opened(reader)
    grounded = ground_all(questions, index, reading, count=count)
    found = [[one.passage for one in index.search(question, count)] for question in questions]
    asked = [row for row, one in enumerate(grounded) if one.answer is not None]
    shown = [[one.text for one in _with_evidence(found[row], grounded[row].evidence)] for row in asked]
    records = compose(model, [questions[row] for row in asked], shown, max_new_tokens=max_new_tokens)
    told = dict(zip(asked, records, strict=True))
    checker = Checker(index, reading)
    written = []
    for row, (question, ground) in enumerate(zip(questions, grounded, strict=True)):
        draft = told[row].text.strip() if row in told else ""
        written.append(replace(checker.check(question, draft, ground, found[row]), record=told.get(row)))
    return written


def compose(
    model: Model, questions: Sequence[str], passages: Sequence[Sequence[str]], *, max_new_tokens: int = 48
) -> list[Record]:
    """The model's answers, a line each, to questions with passages in the prompt (style "with-evidence").

    Passages stand on one line each between `MARK`s, which are taken out of their text, and the spellings of the
    model's special tokens are broken there, so that no passage can end its turn. The last passages are left out where
    all are longer than what the model reads. Raises `InputError` as `record`.
    """
    prompts = [
        _prompt(model, question, texts, max_new_tokens) for question, texts in zip(questions, passages, strict=True)
    ]
    return record(model, prompts, max_new_tokens=max_new_tokens, stop=STOP) if prompts else []


def shown_as(texts: Sequence[str], specials: Iterable[str] = ()) -> str:
    """Passages as the prompt has them: data, between marks."""
    parts = [f"{MARK}{_harmless(text, specials)}{MARK}" for text in texts]
    return "\n".join(parts)


def _harmless(text: str, specials: Iterable[str]) -> str:
    """On one line, without a run of quotes that could be a mark, or a special token's spelling."""
    text = re.sub(r'"{2,}', '"', " ".join(text.split())).strip('" ')
    for special in specials:
        if special.strip():
            text = text.replace(special, " ".join(special))
    return text


def _prompt(model: Model, question: str, texts: Sequence[str], max_new_tokens: int) -> list[int]:
    specials = model.tokenizer.tokens(sorted(model.tokenizer.special_ids))
    room = model.config.max_length - max_new_tokens
    for kept in range(len(texts), 0, -1):
        ids = ids_of(model, Question("", question, (), shown_as(texts[:kept], specials)), (), "with-evidence")
        if len(ids) <= room:
            break
    return ids


def _with_evidence(passages: Sequence[Passage], evidence: Sequence[Evidence]) -> list[Passage]:
    """The passages in which a reader found its answers, in the order of these."""
    found: dict[tuple[str, int], Passage] = {}
    for each in evidence:
        for one in passages:
            if one.document is each.document and one.start <= each.start and each.end <= one.end:
                found.setdefault((one.document.name, one.start), one)
    return list(found.values())[:SHOWN]


# --- Checking ---------------------------------------------------------------------------------------------------------


class Checker:
    """Documents and a reader, ready to check answers to questions. Not tied to what wrote them."""

    def __init__(self, index: Index, reader: Model | str = READER) -> None:
        self._reader, self._words = opened(reader), Words(index)

    def check(self, question: str, draft: str, grounded: Grounded, passages: Sequence[Passage]) -> Written:
        """What is left of a draft. In this order there is no answer where

        1. the reader finds none in the passages: the documents do not say;
        2. passages disagree about it (`conflicting`): one of them must be wrong, and nothing says which;
        3. the draft is empty or a refusal;
        4. the reader's answers have values, and what is kept of the draft has none of them: that a value stands in the
           evidence does not make it an answer. Each is judged as `verify` judges those of statements, as the answer to
           the question and as a part of its own sentence, by the better of the two (`judging.Judged`);
        5. all its values were struck; or it has none, and too few of its words stand in any passage.
        """
        if grounded.answer is None:
            return Written(None, NOT_SAID, draft, (), grounded)
        checks = self.values(question, draft, passages) if re.search(r"\w", draft) else ()
        why = disagreement(grounded.evidence) or self._why(draft, checks, grounded, passages)
        return Written(None if why else without(draft, checks), why, draft, checks, grounded)

    def values(self, question: str, draft: str, passages: Sequence[Passage]) -> tuple[Checked, ...]:
        """The draft's values that are not the question's own, in their order, each with its verdict."""
        own = find_values(question)
        texts = " ".join(passage.text for passage in passages)
        checks = []
        for claim in claims_of(draft):
            asked = any(same(claim.value, one) or same(one, claim.value) for one in own)
            if not asked and not _is_word(claim, texts):
                checks.append(self._checked(question, draft[claim.start : claim.end], claim, passages))
        return tuple(checks)

    def _checked(self, question: str, sentence: str, claim: Claim, passages: Sequence[Passage]) -> Checked:
        """By the better of two views: the value as the question's answer, and as a part of its own sentence."""
        views = [(f"{question} {claim.value.text}", replace(claim, rest=question, probe=question))]
        if re.search(r"\w", claim.rest):
            views.append((f"{question} {sentence}", replace(claim, rest=f"{claim.rest} {question}")))
        judgements = [self._judged(statement, view, passages) for statement, view in views]
        return max(map(verdict_of, judgements), key=lambda one: one.score)

    def _judged(self, statement: str, claim: Claim, passages: Sequence[Passage]) -> Judged:
        places = [[(value.start, value.end) for value in candidates(claim, passage)] for passage in passages]
        texts = [passage.text for passage in passages]
        readings: list[Reading] = read(self._reader, [claim.probe] * len(texts), texts, places)
        return judged(claim, statement, passages, readings, self._words)

    def _why(self, draft: str, checks: Sequence[Checked], grounded: Grounded, passages: Sequence[Passage]) -> str:
        """Why a draft is no answer; nothing where it is one."""
        if not re.search(r"\w", draft):
            return "the model says nothing"
        if is_refusal(draft):
            return "the model says that the text does not say"
        answers = [value for each in grounded.evidence for value in find_values(answer_of(each))]
        kept = [value for one in checks if one.verdict == "supported" for value in find_values(one.text)]
        named = any(same(a, b) or same(b, a) for a in kept for b in answers)
        struck = [one.text for one in checks if one.verdict != "supported"]
        if struck and not (named if answers else kept):
            return f"the evidence does not have {_listed(struck)}"
        if answers and not named:
            return f"what the model says is not what the documents answer: {_listed([grounded.answer or ''])}"
        share = max(self._words.share(draft, passage.text) for passage in passages)
        return "" if checks or share >= WORDS else "its words are not in the evidence"


def disagreeing(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The evidence that gives another answer than the first one: neither holds the other's words."""
    said = [set(normalized(answer_of(each)).split()) for each in evidence]
    others = zip(evidence[1:], said[1:], strict=True)
    return tuple(each for each, words in others if not (words <= said[0] or said[0] <= words))


def conflicting(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The evidence that gives another number, date or name than the first one, about as surely: with a score at most
    `NEAR` lower. Values that can both be so ("1503" and "1503–1519", "Leonardo" and all of his name) do not."""
    if not evidence:
        return ()
    first = find_values(answer_of(evidence[0]))
    found = []
    for one in disagreeing(evidence):
        others = find_values(answer_of(one))
        agree = any(same(a, b) or same(b, a) for a in first for b in others)
        if one.score >= evidence[0].score - NEAR and not agree and any(differ(a, b) for a in first for b in others):
            found.append(one)
    return tuple(found)


def disagreement(evidence: Sequence[Evidence]) -> str:
    """That passages disagree, with what each says and its document; nothing where they do not."""
    others = conflicting(evidence)
    if not others:
        return ""
    said = [f"“{' '.join(answer_of(one).split())}” ({one.document.name})" for one in (evidence[0], *others)]
    return f"the documents disagree: {' or '.join(said)}"


def without(draft: str, checks: Sequence[Checked], mark: str = STRUCK) -> str:
    """The draft with `mark` in place of each value that is not supported; "{}" in it is the value."""
    for one in sorted(checks, key=lambda one: -one.start):
        if one.verdict != "supported":
            draft = draft[: one.start] + mark.replace("{}", draft[one.start : one.end]) + draft[one.end :]
    return draft


def answer_of(evidence: Evidence) -> str:
    """The words that answer; the whole quote where no place in it is known."""
    return evidence.document.text[slice(*(evidence.answer or (evidence.start, evidence.end)))]


def _is_word(claim: Claim, texts: str) -> bool:
    """Whether what may be a name is written small in the passages: it only begins a sentence."""
    value = claim.value
    return value.doubtful and bool(re.search(rf"\b{re.escape(value.text.lower())}\b", texts))


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(f"“{' '.join(text.split())}”" for text in texts)
