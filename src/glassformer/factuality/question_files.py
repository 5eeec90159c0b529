"""Files of questions with their right answers: JSON Lines, SQuAD's JSON, TruthfulQA's CSV, relations, known facts, TSV.

`rows_of` tells by the ending and the content which of them a file is, and gives what the file says, one `Row` a
question. Facts (a subject, a template, an answer) are read by `interpret.fact_files`, SQuAD by `text.questions`. Every
error names the file, and the line where there is one.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.fact_files import Record, read_fact_file
from glassformer.text.columns import read_lines, read_records, read_text, text_of
from glassformer.text.questions import read_questions as read_squad

FORMATS = (
    "questions are read from .jsonl (an object a line: question, answers), .tsv (question, a tab, answer), .csv "
    "(TruthfulQA) and .json (SQuAD, relations with 'samples', or a list of facts such as known_1000.json)"
)
_KEYS = ("id", "question", "answers", "answer", "context", "entity", "relation")
_TRUTHFUL = ("Question", "Best Answer", "Correct Answers")


@dataclass(frozen=True)
class Row:
    """A question as a file has it; `where` is its place for error messages. What a file does not say is empty."""

    where: str
    id: str
    question: str
    answers: tuple[str, ...]
    context: str | None = None
    entity: str = ""
    relation: str = ""


def rows_of(path: Path) -> list[Row]:
    """The questions of a file, in its order. `InputError` for a file that is missing, broken, or of no known kind."""
    readers = {".jsonl": _json_lines, ".tsv": _table, ".csv": _truthful, ".json": _json_file}
    if path.suffix not in readers:
        raise InputError(f"{path}: unknown kind of file; {FORMATS}.")
    rows = list(readers[path.suffix](path))
    if not rows:
        raise InputError(f"{path}: there are no questions in this file.")
    return rows


def _json_lines(path: Path) -> Iterator[Row]:
    for number, (where, record) in enumerate(read_records(path), 1):
        for key in record:
            hint = did_you_mean(key, _KEYS)
            if key not in _KEYS and hint:  # other keys are the user's own; a misspelt one would be lost silently
                raise InputError(f"{where}: there is no key '{key}' of a question.{hint}")
        texts = {key: text_of(record, key, where) for key in ("entity", "relation") if record.get(key) is not None}
        yield Row(
            where,
            text_of(record, "id", where, as_text=True) if "id" in record else f"{path.stem}-{number}",
            text_of(record, "question", where),
            _answers(record, where),
            text_of(record, "context", where) if record.get("context") is not None else None,
            **texts,
        )


def _answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The texts under 'answers' or 'answer'; none (`[]`, null) where there is no right answer."""
    key = "answers" if "answers" in record or "answer" not in record else "answer"
    if key not in record:
        raise InputError(f"{where}: there is no key 'answers'; a question without a right answer has the answers [].")
    given = record[key]
    given = [] if given is None else [given] if isinstance(given, str | int | float) else given
    if not isinstance(given, list):
        raise InputError(f"{where}: '{key}' must be a list of texts, got {json.dumps(given)[:40]}.")
    return tuple(text_of({key: answer}, key, where, as_text=True) for answer in given)


def _table(path: Path) -> Iterator[Row]:
    """A first line that names a column "question" says what the columns are; without one they are question and answer.
    Alternatives of an answer stand between bars. A table of subjects is one of facts, and has no questions."""
    lines = [line.split("\t") for line in read_lines(path)]
    names = [name.strip().casefold() for name in lines[0]]
    named = "question" in names
    if not named and names[0] in ("subject", "name"):
        raise InputError(
            f"{path}:1: there is no column 'question', only {', '.join(names)}: facts need their questions."
        )
    columns = names if named else ["question", "answers"]
    if "answers" not in columns and "answer" not in columns:
        raise InputError(f"{path}:1: there is no column 'answers', only {', '.join(columns)}.")
    for number, cells in enumerate(lines[named:], 1 + named):
        where = f"{path}:{number}"
        if len(cells) < len(columns) or not cells[columns.index("question")].strip():
            raise InputError(f"{where}: expected {', '.join(columns)} between tabs, got {chr(9).join(cells)[:60]!r}.")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        answers = tuple(answer.strip() for answer in row.get("answers", row.get("answer", "")).split("|"))
        yield Row(
            where,
            row.get("id") or f"{path.stem}-{number - named}",
            row["question"],
            tuple(filter(None, answers)),
            row.get("context") or None,
            row.get("entity", ""),
            row.get("relation", ""),
        )


def _truthful(path: Path) -> Iterator[Row]:
    """TruthfulQA (Lin et al. 2022): the best answer, and the other correct ones between semicolons; its category is the
    relation. Its answers are sentences, which a normalised match judges poorly: most right answers count as wrong."""
    reader = csv.reader(io.StringIO(read_text(path, "TruthfulQA's table"), newline=""), strict=True)
    try:
        names = next(reader)
        for name in _TRUTHFUL:
            if name not in names:
                raise InputError(f"{path}:1: there is no column '{name}' of TruthfulQA's.{did_you_mean(name, names)}")
        for number, cells in enumerate(reader, 1):
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(names):
                raise InputError(f"{where}: expected {len(names)} columns between commas, got {len(cells)}.")
            row = dict(zip(names, cells, strict=True))
            answers = [row["Best Answer"], *row["Correct Answers"].split(";")]
            distinct = tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip()))
            yield Row(where, f"{path.stem}-{number}", row["Question"], distinct, relation=row.get("Category", ""))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a table of comma-separated values ({error}).") from None


def _json_file(path: Path) -> Iterator[Row]:
    content = _loaded(path)
    if isinstance(content, dict) and "data" in content:
        yield from _squad(path)
    elif isinstance(content, dict) and "samples" in content:
        template = question_template(content, path)
        yield from _merged(_asked(row, template) for row in read_fact_file(path))
    elif isinstance(content, list):
        yield from _merged(_completion(record) for record in read_fact_file(path))
    else:
        raise InputError(f"{path}: unknown kind of JSON file; {FORMATS}.")


def _loaded(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "questions"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}:{getattr(error, 'lineno', 1)}: not JSON ({error}); {FORMATS}.") from None


def _squad(path: Path) -> Iterator[Row]:
    """SQuAD 1.1 and 2.0: the article's title is the entity, its paragraph the context."""
    for one in read_squad(path).items:
        answers = tuple(dict.fromkeys(answer.text for answer in one.answers))
        yield Row(f"{path}: {one.id}", one.id, one.question, answers, one.context, one.title)


def question_template(content: Mapping[str, Any], path: Path) -> str:
    """How a relation's file asks: of its zero-shot templates the first with a question mark, up to that mark ("What
    country is {} in? It is in" asks "What country is {} in?"); else the first, which the answer completes."""
    templates = content.get("prompt_templates_zs") or content.get("prompt_templates") or []
    if not isinstance(templates, list) or not templates or not all(isinstance(one, str) for one in templates):
        raise InputError(f"{path}: 'prompt_templates_zs' must be a list of texts with {{}} for the subject.")
    asking = next((one for one in templates if "?" in one), "")
    return asking[: asking.index("?") + 1] if asking else templates[0]


def _asked(record: Record, template: str) -> Row:
    """A fact as a question, by its relation's template."""
    return replace(_completion(record), question=template.replace("{}", record.subject))


def _completion(record: Record) -> Row:
    return Row(record.where, record.id, record.prompt, record.answers, entity=record.subject, relation=record.relation)


def _merged(rows: Iterator[Row]) -> Iterator[Row]:
    """A question that a file of facts has several times is one, and each of its answers is right."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.relation, row.question)
        first = found.get(key, row)
        found[key] = replace(first, answers=tuple(dict.fromkeys((*first.answers, *row.answers))))
    yield from found.values()
