"""Files of facts: JSON Lines, the relations of Hernandez et al. 2023, the known facts of ROME (Meng et al. 2022), TSV.

`read_records` tells by the ending and the content which of them a file is. What it gives is what the file says, one
record a fact; `facts.facts` makes prompts of it. Every error names the file, and the line where there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassformer.errors import InputError
from glassformer.text.columns import read_lines, read_records, read_text, text_of

FORMATS = (
    "facts are read from .jsonl (an object a line: subject, relation, prompt, answers), .tsv (a subject, a tab, an "
    "answer), and .json (the relations of Hernandez et al., with 'samples', or a list such as known_1000.json)"
)
_SUBJECT_HEADINGS = ("subject", "name")
_ANSWER_HEADINGS = ("answer", "answers", "object")


@dataclass(frozen=True)
class Record:
    """A fact as a file has it; `where` is its place for error messages. `prompt` and `template` are empty where the
    file has none. A template holds {} or {subject} where the subject goes."""

    where: str
    id: str
    subject: str
    answers: tuple[str, ...]
    relation: str = ""
    prompt: str = ""
    template: str = ""
    start: int = -1


def read_fact_file(path: str | Path) -> list[Record]:
    """The facts of a file, in its order. `InputError` for a file that is missing, empty, broken or of no known kind."""
    path = Path(path)
    if path.suffix == ".jsonl":
        return [_record(where, f"{path.stem}-{n}", row) for n, (where, row) in enumerate(read_records(path), 1)]
    if path.suffix == ".tsv":
        return list(_table(path))
    if path.suffix == ".json":
        return list(_json_file(path))
    raise InputError(f"{path}: unknown kind of file; {FORMATS}.")


def _record(where: str, name: str, row: Mapping[str, Any]) -> Record:
    """One object. Other names of the keys are those of known_1000.json: known_id, attribute, relation_id."""
    row = {**row, "answers": row.get("answers", row.get("attribute"))}
    return Record(
        where,
        str(row.get("id", row.get("known_id", name))),
        text_of(row, "subject", where),
        _answers(row["answers"], where),
        _optional(row, "relation" if "relation" in row else "relation_id", where),
        _optional(row, "prompt", where),
        start=_start(row.get("start", -1), where),
    )


def _answers(given: Any, where: str) -> tuple[str, ...]:
    answers = [given] if isinstance(given, str) else given
    if not isinstance(answers, list) or not answers:
        raise InputError(f"{where}: 'answers' must be a list of at least one text, the right one first; got {given!r}.")
    return tuple(text_of({"answers": answer}, "answers", where) for answer in answers)


def _optional(row: Mapping[str, Any], key: str, where: str) -> str:
    return text_of(row, key, where) if row.get(key) is not None else ""


def _start(given: Any, where: str) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise InputError(f"{where}: 'start' must be the character where the subject begins, got {given!r}.")
    return given


def _table(path: Path) -> Iterator[Record]:
    """Subject and answer in the first two columns, or where a first line says so: one whose first name is "subject" or
    "name". The heading of the answers is the relation's name, unless it is just "answer"."""
    rows = [line.split("\t") for line in read_lines(path)]
    heading = [name.strip().casefold() for name in rows[0]]
    named = heading[0] in _SUBJECT_HEADINGS
    column, relation = 1, ""
    if named:
        column = next((heading.index(name) for name in _ANSWER_HEADINGS if name in heading), 1)
        relation = rows[0][column].strip() if len(heading) > 1 and heading[column] not in _ANSWER_HEADINGS else ""
        if len(rows) == 1:
            raise InputError(f"{path}: there is nothing below the line of column names.")
    for number, row in enumerate(rows[named:], 1 + named):
        where = f"{path}:{number}"
        if len(row) <= column or not row[0].strip() or not row[column].strip():
            raise InputError(f"{where}: expected a subject and an answer between tabs, got {chr(9).join(row)[:60]!r}.")
        yield Record(where, f"{path.stem}-{number - named}", row[0].strip(), (row[column].strip(),), relation)


def _json_file(path: Path) -> Iterator[Record]:
    try:
        content = json.loads(read_text(path, "facts"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}:{getattr(error, 'lineno', 1)}: not JSON ({error}).") from None
    if isinstance(content, list):
        rows = _objects(content, f"{path}: fact")
        yield from (_record(where, f"{path.stem}-{n}", row) for n, (where, row) in enumerate(rows, 1))
    elif isinstance(content, dict) and isinstance(content.get("samples"), list):
        yield from _relation(path, content)
    else:
        raise InputError(f"{path}: unknown kind of JSON file; {FORMATS}.")


def _objects(rows: Sequence[Any], what: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not rows:
        raise InputError(f"{what.rsplit(': ', 1)[0]}: the file is empty; it must hold facts.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{what} {number} must be a JSON object, got {json.dumps(row)[:40]}.")
        yield f"{what} {number}", row


def _unescaped(text: str) -> str:
    """Without escapes that were escaped twice: some of these files have "Bogot\\u00e1", backslash and all."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)


def _relation(path: Path, content: Mapping[str, Any]) -> Iterator[Record]:
    """A relation of Hernandez et al. 2023 ("Linearity of relation decoding in transformer language models"): templates
    with {} for the subject, of which the first is taken, and samples of subject and object."""
    templates = content.get("prompt_templates") or [""]
    if not isinstance(templates, list) or not isinstance(templates[0], str):
        raise InputError(f"{path}: 'prompt_templates' must be a list of texts with {{}} for the subject.")
    name = str(content.get("name") or path.stem)
    for number, (where, row) in enumerate(_objects(content["samples"], f"{path}: sample"), 1):
        subject, answer = (_unescaped(text_of(row, key, where)) for key in ("subject", "object"))
        yield Record(where, f"{path.stem}-{number}", subject, (answer,), name, template=templates[0])
