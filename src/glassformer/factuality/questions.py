"""Questions with their right answers: reading them, judging an answer, and splitting them without tearing apart what
belongs together."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glassformer.errors import InputError, did_you_mean
from glassformer.factuality.question_files import rows_of
from glassformer.tasks.squad import normalized

# What may follow a short answer: punctuation that ends a word (not the comma of "1,500", not a question mark, which
# doubts what stands before it), an opening bracket, or a legal form as in "Apple Inc."
_BOUNDARY = re.compile(
    r"""\s*(?:
        [.,;:!]+ (?= ["'”’)\]]* (?:\s|$)) | ["”’)\]]+ (?:\s|$) | \s[(\[] | \s[-–—]\s | \s?— | \n | $
        | \s(?:inc|incorporated|corp|corporation|company|co|ltd|limited|llc|plc|ag|gmbh|s\.?a)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_NEGATIONS = frozenset(
    ("not", "never", "no", "neither", "nor", "without", "cannot", "nobody", "none", "isn", "wasn", "aren", "weren")
    + ("doesn", "didn", "don", "isnt", "wasnt", "doesnt", "didnt")
)
_CLAUSE = re.compile(r"[.,;:!?\n](?!\d)|\b(?:but|rather|instead)\b", re.IGNORECASE)
_REFUSAL = re.compile(
    r"""\b(?: (?:do|does|did|can|could) (?:n't|n’t|\s+not|not) \s+ (?:\w+\s+)? (?:know|say|tell|answer|mention|state)
        | (?:am|'m|’m|is|are) \s+ (?:not|un) \s*(?:sure|certain|known|clear)
        | (?:not|no) \s+ (?:answer|information|idea|way\ to\ know) | not \s+ (?:known|stated|mentioned|given|answerable)
        | unknown | unanswerable | (?:cannot|can't|can’t) \s+ (?:be\ )?(?:answer|say|know|determine) )""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Question:
    """A question and its right answers, any of which will do; without answers there is none to be known.

    `entity` is what a split must not tear apart: the subject, or the article's title; the id where it is not given.
    Raises `InputError` for a question without a word, and for an answer without one.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    context: str | None = None
    entity: str = ""
    relation: str = ""

    def __post_init__(self) -> None:
        given = (self.answers,) if isinstance(self.answers, str) else tuple(self.answers)
        object.__setattr__(self, "answers", given)
        object.__setattr__(self, "entity", self.entity.strip() or self.id)
        if not _WORD.search(self.question):
            raise InputError(f"question '{self.id}' must have at least one word, got {self.question!r}.")
        if bare := [answer for answer in given if not answer.strip()]:
            raise InputError(f"question '{self.id}': an answer must be a text that is not empty, got {bare[0]!r}.")


def read_questions(path: str | Path, *, relation: str | None = None, limit: int | None = None) -> list[Question]:
    """The questions of a file, in its order: of one `relation`, and the first `limit`, where these are given.

    - `.jsonl`: objects `{id, question, answers, context, entity, relation}`, of which question and answers must be
      there; `[]` says that there is no right answer;
    - `.tsv`: question and answer, or columns with the names above in the first line; "a|b" is two right answers;
    - `.csv`: TruthfulQA (Lin et al. 2022), every correct answer counts;
    - `.json`: SQuAD 1.1 and 2.0 (the article is the entity; unanswerable ones have no answers), a relation of Hernandez
      et al. 2023 (its zero-shot template is the question; see `question_files.question_template`), or a list of facts
      such as known_1000 (Meng et al. 2022), whose prompts are completed. A subject with several answers has all.

    Raises `InputError` for a file that is missing, empty, broken (with the line) or of no known kind, for ids that
    occur twice, and for a relation that no question has, with the nearest name.
    """
    if limit is not None and limit < 1:
        raise InputError(f"'limit' must be at least 1, got {limit}.")
    found: dict[str, Question] = {}
    for row in rows_of(Path(path)):
        if row.id in found:
            raise InputError(f"{row.where}: the id '{row.id}' is there already; every question needs its own.")
        try:
            found[row.id] = Question(row.id, row.question, row.answers, row.context, row.entity, row.relation)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from None
    questions = list(found.values())
    if relation is not None:
        questions = _of_relation(questions, relation, path)
    return questions[:limit]


def _of_relation(questions: list[Question], relation: str, path: str | Path) -> list[Question]:
    known = {one.relation for one in questions} - {""}
    if not known:
        raise InputError(f"{path}: its questions name no relations; leave 'relation' out.")
    if relation not in known:
        listed = ", ".join(sorted(known)[:8]) + (", …" if len(known) > 8 else "")
        raise InputError(f"{path}: there is no relation '{relation}', only {listed}.{did_you_mean(relation, known)}")
    return [one for one in questions if one.relation == relation]


# --- Judging ----------------------------------------------------------------------------------------------------------


def is_right(text: str, question: Question, *, lenient: bool = False) -> bool:
    """Whether a text gives one of the question's answers, by a match of words. What counts:

    1. Only the first line of the text, after blank lines.
    2. Case, accents, punctuation and the words a, an, the do not count (SQuAD's normalising, Rajpurkar et al. 2016);
       hyphens part words or join them. Numbers are compared as they are written: 1815 is not 1503, 1,500 is 1500,
       3.14 is not 314.
    3. The text is the answer, or begins with it and goes on after a boundary: "Paris, France" and "Paris (the city)"
       for Paris, "Apple Inc." for Apple; but not "Paris Hilton", "Paris?" or "1503-1519" for 1503.
    4. With `lenient`, the answer may stand anywhere in that line as words of its own, as in "It was developed by
       Apple.", unless a negation stands before it in its clause ("not Paris", "it isn't in Paris").
    5. A question without answers is answered rightly by nothing, or by a refusal (`is_refusal`), and by nothing else.

    Such a match is strict on wording (USA is not United States unless it is among the answers) and blind to sense:
    audit a sample of what it says.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not question.answers:
        return not normalized(line) or is_refusal(line)
    line = _folded(line)
    return any(_begins_with(line, answer) or (lenient and _holds(line, answer)) for answer in _spelt(question.answers))


def is_refusal(text: str) -> bool:
    """Whether a text says that it does not know ("I don't know", "unknown", "the text does not say"): by its words."""
    return bool(_REFUSAL.search(text))


def _folded(text: str) -> str:
    """Without accents: "Bogotá" is often written Bogota. What is an accent and nothing else stays."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part)).strip() or text


def _spelt(answers: Iterable[str]) -> list[str]:
    return [_folded(answer).strip() for answer in answers]


def _same(text: str, answer: str) -> bool:
    """Equal after normalising, with hyphens as spaces or as nothing."""

    def forms(given: str) -> set[str]:
        given = _numbers_kept(re.sub(r"[‐‑–—−]", "-", re.sub(r"[“”«»„‘’¿¡]", "'", given)))
        return {normalized(given), normalized(given.replace("-", " "))} - {""}

    return bool(forms(text) & forms(answer)) or text.casefold() == answer.casefold()


def _numbers_kept(text: str) -> str:
    """With words for the punctuation that tells numbers apart: 3.14 is not 314, -5 not 5, 1503-1519 not 15031519."""
    text = re.sub(r"(?<=\d)-(?=\d)", " to ", text)
    text = re.sub(r"(?<!\w)-(?=\d)", "minus ", text)
    return re.sub(r"(?<=\d)\.(?=\d)", " point ", text)


def _begins_with(line: str, answer: str) -> bool:
    """Whether the line is the answer, or goes on after it at a boundary."""
    if _same(line, answer):
        return True
    return any(_same(line[: found.start()], answer) for found in _BOUNDARY.finditer(line) if found.start())


def _holds(line: str, answer: str) -> bool:
    """Whether the answer's words stand in the line one after the other, and no negation before them in their clause."""
    words = list(_WORD.finditer(line))
    wanted = [word for word in _plain(answer) if word not in ("a", "an", "the")] or _plain(answer)
    for first in range(len(words) - len(wanted) + 1):
        if wanted and [_bare(word[0]) for word in words[first : first + len(wanted)]] == wanted:
            clause = _CLAUSE.split(line[: words[first].start()])[-1]
            if not _NEGATIONS & set(_plain(clause)) and "n't" not in clause:
                return True
    return False


def _plain(text: str) -> list[str]:
    return [_bare(word) for word in _WORD.findall(text)]


def _bare(word: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", word.casefold())


# --- Splitting --------------------------------------------------------------------------------------------------------


def split_by_entity(questions: Sequence[Question], parts: Sequence[float], seed: int) -> list[list[int]]:
    """The numbers of the questions in disjoint parts, so that no entity has questions in two of them.

    `parts` are the parts' shares of all questions, such as (0.5, 0.5); only their ratio counts. Entities are taken in
    an order drawn by the seed, and each goes to the part that lacks most of its share. Case does not tell entities
    apart. Every part's numbers are in order. Raises `InputError` for shares that are not positive, and for fewer
    entities than parts.
    """
    if not parts or not all(part > 0 for part in parts):
        raise InputError(f"'parts' must be one or more shares above 0, such as (0.5, 0.5), got {tuple(parts)}.")
    groups: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        groups.setdefault(question.entity.casefold(), []).append(row)
    if len(groups) < len(parts):
        raise InputError(f"{len(parts)} parts need as many entities at least, these questions have {len(groups)}.")
    order = sorted(groups)
    random.Random(f"split {seed}").shuffle(order)
    return _dealt([groups[name] for name in order], [part / sum(parts) for part in parts], len(questions))


def _dealt(groups: Collection[list[int]], shares: Sequence[float], total: int) -> list[list[int]]:
    """Every group to the part that lacks most; an empty part goes first, so that none stays empty."""
    found: list[list[int]] = [[] for _ in shares]

    def lacking(part: int) -> tuple[bool, float]:
        return not found[part], shares[part] * total - len(found[part])

    for group in groups:
        found[max(range(len(shares)), key=lacking)] += group
    return [sorted(part) for part in found]
