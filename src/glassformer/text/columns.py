"""Files of text: as a whole, as lines, and as named columns (TSV, JSON Lines, data sets of the Hub of Hugging Face).

Lines end at a newline, and only there, so that other programs count them alike. Every error names file and line.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from glassformer.errors import InputError, did_you_mean

ROOTS = (
    "Data files are looked for under --data-root, else under the folder in GLASSFORMER_DATA, else under data/; "
    "docs/data.md says which files each recipe needs and where they come from."
)
HUB = "hub:"
_BOM = b"\xef\xbb\xbf"
_EXTRA = "pip install 'glassformer[datasets]'"


# --- Whole files and lines --------------------------------------------------------------------------------------------


def read_text(path: str | Path, holds: str = "text") -> str:
    """All characters of a UTF-8 file as they are, without a byte order mark.

    Raises `InputError` if the file is missing, empty (the message says that it must hold `holds`), or not UTF-8.
    """
    return _decode(_read_bytes(Path(path), holds), str(path))


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without line ends (`\\n` or `\\r\\n`) and byte order mark.

    Raises `InputError` if the file is missing, empty, or not UTF-8 (with the line).
    """
    return decode_lines(_read_bytes(Path(path), "one sentence a line"), str(path))


def decode_lines(data: bytes, where: str) -> list[str]:
    """Bytes to lines; `where` names the file in the error for bytes that are not UTF-8."""
    return lines_of(_decode(data, where))


def lines_of(text: str) -> list[str]:
    """The lines of a text, without line ends (`\\n` or `\\r\\n`)."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _read_bytes(path: Path, holds: str) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. {ROOTS}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. {ROOTS}") from None
    if not data.removeprefix(_BOM).strip():
        raise InputError(f"{path}: the file is empty; it must hold {holds}.")
    return data


def _decode(data: bytes, where: str) -> str:
    try:
        return data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        bad = error.object[error.start : error.start + 1].hex()
        raise InputError(f"{where}:{line}: the byte 0x{bad} is not UTF-8 text; convert the file to UTF-8.") from None


# --- Columns and records ----------------------------------------------------------------------------------------------


def has_columns(path: str | Path) -> bool:
    """Whether a path names columns: a `.tsv` or `.jsonl` file, or `hub:NAME`."""
    return str(path).startswith(HUB) or Path(path).suffix in (".tsv", ".jsonl")


def read_columns(path: str | Path, fields: Sequence[str] | Sequence[int], *, as_text: bool = False) -> list[list[str]]:
    """Named columns of a file: one list for each of `fields`, all of the same length.

    `.tsv`: names from the first line, or column numbers from 1 (as numbers or digits; then the first line is data).
    `.jsonl`: keys of the object on each line.
    `hub:NAME[:CONFIG][:SPLIT]`: columns of a data set on the Hub of Hugging Face, or of a local folder that its library
    `datasets` can read (extra `datasets`). What follows the one colon of `NAME:X` is a configuration if there is one of
    that name, else a split; a data set of one split needs none named. Class labels are given by their names.

    A value must be text; with `as_text` a number, true or false is taken as it is written in JSON.

    Raises `InputError` for files that are missing, empty or undecodable, a column that is not there, and broken lines.
    """
    names = [str(name) for name in fields]
    if not names:
        raise InputError(f"'fields' must name at least one column of {path}.")
    if str(path).startswith(HUB):
        return _hub_columns(str(path), names, as_text)
    suffix = Path(path).suffix
    if suffix == ".tsv":
        return _read_tsv(Path(path), names)
    if suffix != ".jsonl":
        raise InputError(f"{path} has no named columns: give a .tsv or .jsonl file, or {HUB}NAME.")
    columns: list[list[str]] = [[] for _ in names]
    for where, record in _read_jsonl(Path(path), f" with the keys {names}"):
        for column, name in zip(columns, names, strict=True):
            column.append(text_of(record, name, where, "Name keys with 'fields'.", as_text=as_text))
    return columns


def read_records(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a `.jsonl` file or the rows of `hub:NAME`, each with its place for error messages (file:line)."""
    if not str(path).startswith(HUB):
        return _read_jsonl(Path(path), "")
    data = _hub_open(str(path))
    return [(_hub_row(str(path), number), dict(row)) for number, row in enumerate(data, 1)]


def text_of(record: Mapping[str, Any], key: str, where: str, hint: str = "", *, as_text: bool = False) -> str:
    """The text under a key of a record. Raises `InputError` at `where` if it is not there or is no text."""
    if key not in record:
        hint = f" {hint}" if hint else ""
        raise InputError(f"{where}: there is no key '{key}', only {_listed(record)}.{did_you_mean(key, record)}{hint}")
    return _text(record[key], key, where, as_text)


def _text(value: object, name: str, where: str, as_text: bool) -> str:
    if as_text and isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise InputError(f"{where}: '{name}' must be text, got {json.dumps(value, default=str)[:40]}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: '{name}' holds half a surrogate pair (\\ud800 to \\udfff), which is no text."
        ) from None
    return value


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "an empty object"


# --- TSV and JSON Lines -----------------------------------------------------------------------------------------------


def _read_tsv(path: Path, fields: list[str]) -> list[list[str]]:
    rows = [line.split("\t") for line in read_lines(path)]
    if all(re.fullmatch("-?[0-9]{1,9}", name) for name in fields):
        numbers = [int(name) for name in fields]
        first, names = 1, [f"column {number}" for number in numbers]
        if min(numbers) < 1:
            raise InputError(f"'fields': columns are counted from 1, got {numbers}.")
        places = [number - 1 for number in numbers]
    else:
        first, names = 2, fields
        places = [_place(path, rows[0], name) for name in names]
        rows = rows[1:]
        if not rows:
            raise InputError(f"{path}: there is nothing below the line of column names.")
    for number, row in enumerate(rows, first):
        if len(row) <= max(places):
            wanted = " and ".join(names)
            raise InputError(
                f"{path}:{number}: expected {wanted}, but this line has {len(row)} column(s) between tabs."
            )
    return [[row[place] for row in rows] for place in places]


def _place(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise InputError(
            f"{path}:1: there is no column '{name}', only {_listed(header)}.{did_you_mean(name, header)} "
            "Name columns with 'fields', or give their numbers (from 1) if the file has no line of names."
        )
    return header.index(name)


def _read_jsonl(path: Path, having: str) -> list[tuple[str, dict[str, Any]]]:
    """Each line's object and place; `having` says in an error what the objects must hold."""
    records = []
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of too many digits is a bare ValueError
            raise InputError(f"{where}: not a JSON object ({error}); JSON Lines has one object a line.") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: must be a JSON object{having}, got {line[:40]}.")
        records.append((where, record))
    return records


# --- The Hub of Hugging Face ------------------------------------------------------------------------------------------


def _hub_columns(path: str, names: list[str], as_text: bool) -> list[list[str]]:
    data = _hub_open(path)
    for name in names:
        if name not in data.column_names:
            raise InputError(
                f"{path}: there is no column '{name}', only {_listed(data.column_names)}."
                f"{did_you_mean(name, data.column_names)} Name columns with 'fields'."
            )
    columns = []
    for name in names:
        labels = getattr(data.features[name], "names", None)
        values = [_label(value, labels) for value in data[name]] if labels else data[name]
        columns.append([_text(value, name, _hub_row(path, row), as_text) for row, value in enumerate(values, 1)])
    return columns


def hub_rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `hub:NAME`, each with its place, as they come: the data set is neither stored nor held (`streaming`).

    Raises `InputError` as `read_columns` does, and where a row cannot be fetched.
    """
    rows = iter(_hub_open(path, streaming=True))
    for number in itertools.count(1):
        try:
            row = next(rows, None)
        except Exception as error:  # as in `_hub_open`
            raise _hub_failed(path, error) from None
        if row is None:
            return
        yield _hub_row(path, number), dict(row)


def _hub_row(path: str, number: int) -> str:
    return f"{path}: row {number}"


def _label(value: object, labels: Sequence[str]) -> object:
    """A class's name; the number itself where it has none (-1 marks unlabelled rows)."""
    return labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value


def _hub_open(path: str, **how: Any) -> Any:
    """The rows of one split of a data set; `how` it is loaded is said to the library."""
    name, config, split = _hub_parts(path)
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise InputError(f"'{path}' is read with the library datasets, which is missing: {_EXTRA}.") from None
    try:
        if config and split is None and config not in datasets.get_dataset_config_names(name):
            config, split = None, config
        splits = [split] if split else list(datasets.get_dataset_split_names(name, config))
        data = datasets.load_dataset(name, config, split=splits[0], **how) if len(splits) == 1 else None
    except Exception as error:  # the network, the Hub and its client can fail in many ways, none of them ours
        raise _hub_failed(path, error) from None
    if data is None:
        raise InputError(f"'{path}' must name one of the splits {', '.join(splits)}: {path}:{(splits or ['SPLIT'])[0]}")
    if not how and not len(data):
        raise InputError(f"{path}: the data set is empty.")
    return data


def _hub_failed(path: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"'{path}' cannot be read: {reason}. Check the name and the network.")


def _hub_parts(path: str) -> tuple[str, str | None, str | None]:
    """Name, configuration and split; `datasets` may cut a split by brackets, which may hold a colon."""
    name, *rest = re.split(r":(?![^\[]*\])", path.removeprefix(HUB))
    if not name or len(rest) > 2:
        raise InputError(f"'{path}' must be written {HUB}NAME, {HUB}NAME:SPLIT or {HUB}NAME:CONFIG:SPLIT.")
    config, split = (*rest, "", "")[:2]
    return name, config or None, split or None
