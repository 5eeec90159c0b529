"""Documents one after another, from files of any length: what `documents.read_documents` reads, without holding it."""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from glassformer.errors import InputError, did_you_mean
from glassformer.text.columns import HUB, ROOTS, hub_rows, read_text, text_of
from glassformer.text.documents import Split, is_heading, refuse_split


def stream_documents(path: str | Path, split: Split = "file", field: str = "text") -> Iterator[str]:
    """The documents of a file or of `hub:NAME[:CONFIG][:SPLIT]`, as `read_documents` gives them and in its order.

    One document is held at a time, and of a data set of the Hub what its library fetches ahead (`streaming`); only
    `split = "file"` of plain text is all of the file. Raises `InputError` as soon as something is wrong, with the line,
    and at the end where there was no document.
    """
    found = False
    for document in _documents(str(path), split, field):
        if document.strip():
            found = True
            yield document
    if not found:
        raise InputError(f"{path}: there is no document in it; all of it is blank.")


def _documents(path: str, split: Split, field: str) -> Iterator[str]:
    refuse_split(path, split)
    if path.startswith(HUB):
        return (text_of(row, field, where, "Name it with --column.") for where, row in hub_rows(path))
    if Path(path).suffix == ".jsonl":
        return _jsonl(Path(path), field)
    if Path(path).suffix == ".tsv":
        return _tsv(Path(path), field)
    if split == "file":
        return iter([read_text(path)])
    lines = (line for _, line in numbered_lines(Path(path)))
    if split == "line":
        return lines
    return _blocks(lines, lambda line: not line.strip()) if split == "blank-line" else _articles(lines, path)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers from 1, without line ends and byte order mark.

    Raises `InputError` where the file is missing, is no file, or has a line that is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, _decoded(line, f"{path}:{number}").removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. {ROOTS}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start : error.start + 1].hex()
        raise InputError(f"{where}: the byte 0x{bad} is not UTF-8 text; convert the file to UTF-8.") from None


def _jsonl(path: Path, field: str) -> Iterator[str]:
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not a JSON object ({error}); JSON Lines has one object a line.") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: must be a JSON object with the key '{field}', got {line[:40]}.")
        yield text_of(record, field, where, "Name it with --column.")


def _tsv(path: Path, field: str) -> Iterator[str]:
    """A column by its name in the first line, or by its number from 1; then the first line is data."""
    lines = numbered_lines(path)
    place = int(field) - 1 if field.isdecimal() else None
    if place is None:
        names = next(lines, (1, ""))[1].split("\t")
        if field not in names:
            raise InputError(
                f"{path}:1: there is no column '{field}', only {', '.join(map(repr, names))}."
                f"{did_you_mean(field, names)} Name it with --column."
            )
        place = names.index(field)
    if place < 0:
        raise InputError("columns are counted from 1, got 0.")
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) <= place:
            raise InputError(
                f"{path}:{number}: expected column '{field}', but this line has {len(cells)} column(s) between tabs."
            )
        yield cells[place]


def _blocks(lines: Iterable[str], apart: Callable[[str], bool]) -> Iterator[str]:
    """What stands between lines that are `apart`."""
    for between, block in itertools.groupby(lines, apart):
        if not between:
            yield "\n".join(block)


def _articles(lines: Iterable[str], where: str) -> Iterator[str]:
    """Articles that begin at their headings, and what stands before the first, without blank lines at the ends."""
    article: list[str] = []
    headed = False
    for line in lines:
        if is_heading(line):
            headed = True
            yield _trimmed(article)
            article = []
        article.append(line)
    if not headed:
        raise InputError(f"{where}: there is no heading, a line such as '= Title ='; choose another 'split'.")
    yield _trimmed(article)


def _trimmed(lines: list[str]) -> str:
    filled = [number for number, line in enumerate(lines) if line.strip()]
    return "\n".join(lines[filled[0] : filled[-1] + 1]) if filled else ""
