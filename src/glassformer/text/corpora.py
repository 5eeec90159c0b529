"""Parallel corpora: two aligned files, or two columns of a TSV, of JSON Lines, or of a data set of the Hub."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glassformer.errors import InputError
from glassformer.text.columns import HUB, has_columns, read_columns
from glassformer.text.columns import decode_lines as decode_lines
from glassformer.text.columns import read_lines as read_lines


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

    An absolute path stays, and so does `hub:NAME`. Else it is taken from `data_root`, or from the folder in the
    environment variable GLASSFORMER_DATA, or from `data/`; what is not there but in the working folder is taken from
    here.
    """
    if str(path).startswith(HUB):
        return Path(path)
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
    two names from its first line, or two column numbers from 1 (then the first line is data); or a `.jsonl` file or
    `hub:NAME[:CONFIG][:SPLIT]` (see `columns.read_columns`), with `fields` two keys. Without `fields`, `source` and
    `target` themselves are the names.

    Pairs with an empty side teach nothing: they are dropped with a warning that counts them, unless `drop_empty` is
    off (to evaluate and to translate, where every line counts).

    Raises `InputError` for a missing, empty or undecodable file, files of unequal length, and broken lines.
    """
    path = Path(path)
    if has_columns(path):
        names = [str(name) for name in fields] if fields is not None else [source, target]
        if len(names) != 2:
            raise InputError(f"'fields' must name two columns of {path}, source and target; got {names}.")
        sources, targets = read_columns(path, names)
        origin = str(path)
    else:
        sources, targets = _read_aligned(path, source, target, fields)
        origin = f"{path}.{{{source},{target}}}"
    return _without_empty(Pairs(sources, targets, origin)) if drop_empty else Pairs(sources, targets, origin)


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
