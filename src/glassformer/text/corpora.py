"""Parallel corpora: two aligned files, one TSV, or one file of JSON Lines.

Lines end at a newline, and only there, so that other programs count them alike. Every error names file and line.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glassformer.errors import InputError, did_you_mean

ROOTS = (
    "Data files are looked for under --data-root, else under the folder in GLASSFORMER_DATA, else under data/; "
    "docs/data.md says which files each recipe needs and where they come from."
)


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations, as read: `source[i]` belongs to `target[i]`.

    `origin` says where they come from, `dropped` how many pairs were left out because a side was empty. `locales`
    has a label for each pair where there is one (the corpus of dates), else nothing.
    """

    source: list[str]
    target: list[str]
    origin: str
    dropped: int = 0
    locales: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.source)


def resolve(path: str | Path, data_root: str | Path | None = None) -> Path:
    """Where a recipe's `path` (a file, or the prefix of aligned files) lies.

    An absolute path stays. Else it is taken from `data_root`, or from the folder in the environment variable
    GLASSFORMER_DATA, or from `data/`; what is not there but in the working folder is taken from here.
    """
    path = Path(path).expanduser()
    if path.is_absolute():
        return path
    root = Path(data_root or os.environ.get("GLASSFORMER_DATA") or "data").expanduser()
    return path if not _present(root / path) and _present(path) else root / path


def read_pairs(
    path: str | Path,
    source: str,
    target: str,
    fields: Sequence[str] | Sequence[int] | None = None,
    *,
    drop_empty: bool = True,
) -> Pairs:
    """Read a corpus.

    `path` is a prefix P of two files aligned by line, `P.{source}` and `P.{target}`; or a `.tsv` file, with `fields`
    two names from its first line, or two column numbers from 1 (then the first line is data); or a `.jsonl` file, with
    `fields` two keys. Without `fields`, `source` and `target` themselves are the names.

    Pairs with an empty side teach nothing: they are dropped with a warning that counts them, unless `drop_empty` is
    off (to evaluate and to translate, where every line counts).

    Raises `InputError` for a missing, empty or undecodable file, files of unequal length, and broken lines.
    """
    path = Path(path)
    if path.suffix in (".tsv", ".jsonl"):
        names = [str(name) for name in fields] if fields is not None else [source, target]
        if len(names) != 2:
            raise InputError(f"'fields' must name two columns of {path}, source and target; got {names}.")
        read = _read_tsv if path.suffix == ".tsv" else _read_jsonl
        sources, targets = read(path, names)
        origin = str(path)
    else:
        sources, targets = _read_aligned(path, source, target, fields)
        origin = f"{path}.{{{source},{target}}}"
    return _without_empty(Pairs(sources, targets, origin)) if drop_empty else Pairs(sources, targets, origin)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, without line ends (`\\n` or `\\r\\n`) and byte order mark.

    Raises `InputError` if the file is missing, empty, or not UTF-8 (with the line).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. {ROOTS}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. {ROOTS}") from None
    if not data.strip():
        raise InputError(f"{path}: the file is empty; it must hold one sentence a line.")
    return decode_lines(data, str(path))


def decode_lines(data: bytes, where: str) -> list[str]:
    """Bytes to lines; `where` names the file in the error for bytes that are not UTF-8."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        bad = error.object[error.start : error.start + 1].hex()
        raise InputError(f"{where}:{line}: the byte 0x{bad} is not UTF-8 text; convert the file to UTF-8.") from None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _read_aligned(
    prefix: Path, source: str, target: str, fields: Sequence[str] | Sequence[int] | None
) -> tuple[list[str], list[str]]:
    if fields is not None:
        raise InputError(f"'fields' is for .tsv and .jsonl files; {prefix} is the prefix of two aligned files.")
    if not source or not target:
        raise InputError(f"{prefix} is a prefix: 'source' and 'target' must name the endings of its two files.")
    files = [prefix.parent / f"{prefix.name}.{language}" for language in (source, target)]
    sources, targets = read_lines(files[0]), read_lines(files[1])
    if len(sources) != len(targets):
        (longer, lines), (shorter, count) = sorted(
            zip(files, (sources, targets), strict=True), key=lambda item: len(item[1]), reverse=True
        )
        raise InputError(
            f"{longer}:{len(count) + 1}: this line has no partner: {longer.name} has {len(lines)} lines, {shorter} has "
            f"{len(count)}. Both files must be aligned line by line."
        )
    return sources, targets


def _read_tsv(path: Path, fields: list[str]) -> tuple[list[str], list[str]]:
    rows = [line.split("\t") for line in read_lines(path)]
    numbers = [int(name) for name in fields if re.fullmatch("-?[0-9]+", name)]
    if len(numbers) == 2:
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
            raise InputError(
                f"{path}:{number}: expected {' and '.join(names)}, but this line has {len(row)} column(s) between tabs."
            )
    return [row[places[0]] for row in rows], [row[places[1]] for row in rows]


def _place(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise InputError(
            f"{path}:1: there is no column '{name}', only {', '.join(map(repr, header))}.{did_you_mean(name, header)} "
            "Name two columns with 'fields', or give their numbers (from 1) if the file has no line of names."
        )
    return header.index(name)


def _read_jsonl(path: Path, fields: list[str]) -> tuple[list[str], list[str]]:
    columns: tuple[list[str], list[str]] = ([], [])
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{where}: not a JSON object ({error}); JSON Lines has one object a line.") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: must be a JSON object with the keys {fields}, got {line[:40]}.")
        for column, name in zip(columns, fields, strict=True):
            column.append(_text(record, name, where))
    return columns


def _text(record: dict[str, object], name: str, where: str) -> str:
    if name not in record:
        raise InputError(
            f"{where}: there is no key '{name}', only {', '.join(map(repr, record))}.{did_you_mean(name, record)} "
            "Name two keys with 'fields'."
        )
    value = record[name]
    if not isinstance(value, str):
        raise InputError(f"{where}: '{name}' must be text, got {json.dumps(value)[:40]}.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{where}: '{name}' holds half a surrogate pair (\\ud800 to \\udfff), which is no text.")
    return value


def _without_empty(pairs: Pairs) -> Pairs:
    both = list(zip(pairs.source, pairs.target, strict=True))
    kept = [pair for pair in both if pair[0].strip() and pair[1].strip()]
    dropped = len(both) - len(kept)
    if not kept:
        raise InputError(f"{pairs.origin}: every one of the {dropped} pairs has an empty side; nothing is left.")
    if not dropped:
        return pairs
    lines = [number for number, pair in enumerate(both, 1) if not (pair[0].strip() and pair[1].strip())][:5]
    warnings.warn(
        f"{pairs.origin}: {dropped} of {len(pairs)} pairs have an empty side and were left out "
        f"(pair {', '.join(map(str, lines))}{', …' if dropped > len(lines) else ''}).",
        stacklevel=3,
    )
    return Pairs([pair[0] for pair in kept], [pair[1] for pair in kept], pairs.origin, dropped)


def _present(path: Path) -> bool:
    """Whether there is a file of this name, or files of which it is the prefix."""
    try:
        return path.exists() or any(name.startswith(f"{path.name}.") for name in os.listdir(path.parent))
    except OSError:
        return False
