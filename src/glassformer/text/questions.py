"""Questions about a text, whose answers are spans of it: SQuAD 1.1 and 2.0 (Rajpurkar 2016, 2018), and JSON Lines."""

from __future__ import annotations

import json
import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from glassformer.errors import InputError, did_you_mean
from glassformer.text.columns import HUB, read_records, read_text, text_of

Occurrence = Literal["given", "overlap"]

# A sentence ends at white space after its mark, unless a small letter follows, or an initial or a title stands before.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b\w\.)(?<!\b(?:Dr|Mr|Ms|St|Jr|Sr|No)\.)[\"'”’)\]]*\s+(?![a-z])|\n+")
_WORD = re.compile(r"\w+")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a about after all also an and any are as at be been before being but by can could did do does during each for "
        "from had has have he her him his how i if in into is it its many me more most much my name named no not of on "
        "one or other our s she so some such t than that the their them then there these they this those to was we "
        "were what when where which while who whom whose why will with would you your"
    )
)


@dataclass(frozen=True)
class Answer:
    """A span of a context: its text, and the character at which it starts (from 0)."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question about a context. Without answers, the context does not answer it (SQuAD 2.0)."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    title: str = ""


@dataclass(frozen=True)
class Questions:
    """Questions as read, and where they come from.

    `dropped` counts the questions left out because none of their answers is in the context, `dropped_answers` all
    answers that are not, and `moved` those that are, but elsewhere than the file says.
    """

    items: list[Question]
    origin: str
    dropped: int = 0
    dropped_answers: int = 0
    moved: int = 0

    def __len__(self) -> int:
        return len(self.items)


def read_questions(path: str | Path, occurrence: Occurrence = "given") -> Questions:
    """Read questions with their contexts and answers.

    `path` is a file of SQuAD's JSON; or a `.jsonl` file, whose objects hold `question`, `context`, and `answers` or
    `answer` (`id` and `title` if there are any); or `hub:NAME[:CONFIG][:SPLIT]` with such columns (extra `datasets`).
    In these an answer is a text, or an object with `text` and, if it is known, `answer_start` (or `start`); the column
    of the Hub's SQuAD, an object of two lists, is read too. No answer (`[]`, null, `"is_impossible": true`) means that
    the context does not answer the question.

    An answer that is not where the file says is looked for elsewhere in the context: the nearest occurrence counts.
    One without a place is found by `best_occurrence`; so is every answer with `occurrence="overlap"`, for files whose
    places cannot be trusted. Answers that occur nowhere are dropped, and questions that lose all of theirs; one
    `UserWarning` counts them and names the first.

    Raises `InputError` for files that are missing, empty, undecodable or no JSON (file, line and column), for what is
    not as above (with its place), and when no question is left.
    """
    if occurrence not in get_args(Occurrence):
        known = get_args(Occurrence)
        hint = did_you_mean(occurrence, known)
        raise InputError(f"'occurrence' must be one of {', '.join(known)}, got '{occurrence}'.{hint}")
    items: list[Question] = []
    bare: list[str] = []  # ids of questions that lost all of their answers
    lost = moved = 0
    for number, (where, title, context, record) in enumerate(_read(path), 1):
        question = text_of(record, "question", where)
        answers, missing, elsewhere = _placed(_answers(record, where), context, question, occurrence)
        lost, moved = lost + missing, moved + elsewhere
        name = text_of(record, "id", where, as_text=True) if "id" in record else str(number)
        if missing and not answers or record.get("is_impossible") is False and not answers:
            bare.append(name)
        else:
            items.append(Question(name, question, context, answers, title))
    questions = Questions(items, str(path), len(bare), lost, moved)
    if not items:
        raise InputError(f"{path}: there is no question whose answer is in its context ({len(bare)} were read).")
    if lost or bare:
        _warn(questions, bare)
    return questions


def split_titles(questions: Questions, titles: Collection[str]) -> tuple[Questions, Questions]:
    """The questions of the articles `titles`, and all others, in their order; what was dropped is counted in neither.

    Raises `InputError` for a title that no question has.
    """
    known = {question.title for question in questions.items}
    for title in sorted(set(titles) - known):
        hint = did_you_mean(title, known)
        raise InputError(f"{questions.origin}: there is no article '{title}' among its {len(known)}.{hint}")
    chosen = set(titles)
    inside = [question for question in questions.items if question.title in chosen]
    others = [question for question in questions.items if question.title not in chosen]
    return Questions(inside, questions.origin), Questions(others, questions.origin)


def best_occurrence(context: str, answer: str, question: str) -> int:
    """Where in `context` the text `answer` most likely answers `question`: the character at which it starts.

    Among several occurrences, those that are whole words go before parts of words ("9" in "1905"); among these, the
    one whose sentence shares most content words with the question; among equals, the first.

    Raises `InputError` if the answer is not in the context.
    """
    starts = _occurrences(context, answer)
    if not starts:
        raise InputError(f"the answer {answer[:40]!r} is not in its context.")
    if len(starts) == 1:
        return starts[0]
    whole = [start for start in starts if _whole_words(context, start, start + len(answer))]
    wanted = _content_words(question)
    return max(whole or starts, key=lambda start: len(wanted & _sentence_words(context, start, start + len(answer))))


# --- Files ------------------------------------------------------------------------------------------------------------

_Raw = tuple[str, str, str, dict[str, Any]]  # where it stands, title, context, and the object of the question


def _read(path: str | Path) -> Iterator[_Raw]:
    if not (str(path).startswith(HUB) or Path(path).suffix == ".jsonl"):
        yield from _read_squad(Path(path))
        return
    for where, record in read_records(path):
        yield where, _title(record, where), text_of(record, "context", where), record


def _read_squad(path: Path) -> Iterator[_Raw]:
    text = read_text(path, "a JSON object with the key 'data', as SQuAD has it")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg}). The file must be SQuAD's JSON; name a file "
            "of JSON Lines .jsonl."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, or nested too deeply
        raise InputError(f"{path}: cannot be read ({error}); the file must be SQuAD's JSON.") from None
    for place, article in _objects(document, "data", str(path)):
        title = _title(article, place)
        for inner, paragraph in _objects(article, "paragraphs", place):
            context = text_of(paragraph, "context", inner)
            for where, record in _objects(paragraph, "qas", inner):
                yield where, title, context, record


def _objects(parent: Any, key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in the list under a key, each with its place in the file (`dev.json: data[0].paragraphs[2]`)."""
    if not isinstance(parent, dict) or not isinstance(parent.get(key), list):
        raise InputError(f"{where}: must be a JSON object with a list '{key}', as SQuAD has it.")
    for number, item in enumerate(parent[key]):
        place = f"{where}{'.' if ': data[' in where else ': '}{key}[{number}]"
        if not isinstance(item, dict):
            raise InputError(f"{place}: must be a JSON object, got {json.dumps(item)[:40]}.")
        yield place, item


def _title(record: dict[str, Any], where: str) -> str:
    return text_of(record, "title", where) if record.get("title") is not None else ""


def _answers(record: dict[str, Any], where: str) -> list[tuple[str, int | None]]:
    """Texts and starts of a question's answers, as the file has them."""
    key = next((key for key in ("answers", "answer") if key in record), None)
    if record.get("is_impossible") is True:
        return []
    if key is None:
        raise InputError(
            f"{where}: there is no key 'answers'{did_you_mean('answers', record)}; a question that its context does "
            "not answer has the answers []."
        )
    given = record[key]
    if given is None or given == "":
        return []
    if isinstance(given, dict) and isinstance(given.get("text"), list):  # the Hub's SQuAD
        starts = given.get("answer_start", [None] * len(given["text"]))
        if not isinstance(starts, list) or len(starts) != len(given["text"]):
            raise InputError(f"{where}: '{key}' must have one 'answer_start' for each 'text'.")
        given = [{"text": text, "answer_start": start} for text, start in zip(given["text"], starts, strict=True)]
    elif not isinstance(given, list):
        given = [{**record, "text": given} if isinstance(given, str) else given]
    return [_answer(item, f"{where}: '{key}'") for item in given]


def _answer(item: Any, where: str) -> tuple[str, int | None]:
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict):
        raise InputError(
            f"{where}: an answer must be a text, or an object with 'text', got {json.dumps(item, default=str)[:40]}."
        )
    start = item.get("answer_start", item.get("start"))
    if start is not None and (not isinstance(start, int) or isinstance(start, bool)):
        raise InputError(
            f"{where}: an answer's start must be a number of characters, got {json.dumps(start, default=str)[:40]}."
        )
    return text_of(item, "text", where), start


def _warn(questions: Questions, bare: list[str]) -> None:
    message = f"{questions.origin}: {questions.dropped_answers} answers are not in their contexts and were left out"
    if bare:
        total = len(questions) + len(bare)
        named = ", ".join(bare[:5]) + (", …" if len(bare) > 5 else "")
        message += f"; {len(bare)} of {total} questions have none that is, and were left out too (id {named})"
    warnings.warn(f"{message}.", stacklevel=3)


# --- Places -----------------------------------------------------------------------------------------------------------


def _placed(
    given: list[tuple[str, int | None]], context: str, question: str, occurrence: Occurrence
) -> tuple[tuple[Answer, ...], int, int]:
    """The answers that are in the context; how many are not, and how many are elsewhere than was said."""
    found, missing, moved = [], 0, 0
    for text, said in given:
        if not text.strip() or text not in context:
            missing += 1
            continue
        if said is None or occurrence == "overlap":
            start = best_occurrence(context, text, question)
        elif said >= 0 and context.startswith(text, said):
            start = said
        else:
            start = min(_occurrences(context, text), key=lambda place: abs(place - said))
            moved += 1
        found.append(Answer(text, start))
    return tuple(found), missing, moved


def _occurrences(context: str, text: str) -> list[int]:
    starts, start = [], context.find(text)
    while start >= 0:
        starts.append(start)
        start = context.find(text, start + 1)
    return starts


def _whole_words(context: str, start: int, end: int) -> bool:
    """Whether no word is cut at the ends of a span."""

    def within(place: int) -> bool:
        return 0 < place < len(context) and bool(_WORD.fullmatch(context[place - 1 : place + 1]))

    return not within(start) and not within(end)


def _sentence_words(context: str, start: int, end: int) -> frozenset[str]:
    """The content words of the sentence around a span, or of the sentences that it reaches into."""
    ends = _sentence_ends(context)
    first, last = bisect_right(ends, start), bisect_left(ends, end)
    return _content_words(context[ends[first - 1] if first else 0 : ends[last] if last < len(ends) else len(context)])


@lru_cache(maxsize=8)
def _sentence_ends(context: str) -> list[int]:
    return [found.end() for found in _SENTENCE_END.finditer(context)]


def _content_words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _FUNCTION_WORDS
