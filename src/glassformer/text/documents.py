"""Documents for language models: plain text cut into documents, or the texts of a column; and shares of a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from glassformer.errors import InputError, did_you_mean
from glassformer.text.columns import has_columns, lines_of, read_columns, read_text

Split = Literal["file", "line", "blank-line", "heading"]

_HEADING = re.compile(r"\s*= (?!= ).*[^=\s] =\s*")  # one mark a side: "= = Section = =" stays within its article
_WANTED = "write PATH[FROM:TO], two shares of the text with 0 <= FROM < TO <= 1, as in input.txt[0:0.9]"


def read_documents(
    path: str | Path,
    split: Split = "file",
    field: str = "text",
    *,
    part: tuple[float, float] | None = None,
) -> list[str]:
    """The documents of a file, none of them empty.

    Plain text (UTF-8; a byte order mark is dropped) is split as `split` says:

    - `file`: the whole file is one document, its characters kept exactly as they are, line ends too;
    - `line`: every line that is not blank;
    - `blank-line`: the blocks of lines between blank lines;
    - `heading`: articles that begin at a line `= Title =`, which belongs to them; what stands before the first is a
      document too.

    The lines of a block or article are joined by `\\n`, blank lines around it fall away. In a `.jsonl` or `.tsv` file
    or `hub:NAME[:CONFIG][:SPLIT]` each row is one document, the text of its column `field` (see
    `columns.read_columns`).

    `part` keeps only what lies between two shares of the file's characters (`share_of`), or of its rows.

    Raises `InputError` for files that are missing, empty or undecodable, and when no document is left.
    """
    refuse_split(path, split)
    if has_columns(path):
        [rows] = read_columns(path, [field])
        documents = rows if part is None else rows[between(part, len(rows))]
    else:
        text = read_text(path)
        documents = _split(text if part is None else share_of(text, part), split, str(path))
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise InputError(f"{path}{_written(part)}: there is no document in it; all of it is blank.")
    return documents


def refuse_split(path: str | Path, split: str) -> None:
    """`InputError` for a split that there is not, and for one of plain text where each row is a document."""
    known = get_args(Split)
    if split not in known:
        raise InputError(f"'split' must be one of {', '.join(known)}, got '{split}'.{did_you_mean(split, known)}")
    if has_columns(path) and split != "file":
        raise InputError(
            f"{path}: each row is a document; 'split = \"{split}\"' is for plain text. In a recipe that is "
            "'data.documents': set it to \"file\"."
        )


def is_heading(line: str) -> bool:
    """Whether a line is `= Title =`, which begins a document."""
    return _HEADING.fullmatch(line) is not None


def share_of(text: str, part: tuple[float, float]) -> str:
    """The piece of a text between two shares of its characters, `text[int(a n) : int(b n)]` for n characters.

    The shares (0, x) and (x, 1) cut a text in two without a gap. Raises `InputError` unless 0 <= a < b <= 1.
    """
    return text[between(part, len(text))]


def parse_part(path: str) -> tuple[str, tuple[float, float] | None]:
    """A recipe's path and the share that it asks for: `"input.txt[0:0.9]"` is `("input.txt", (0.0, 0.9))`.

    An end that is left out is 0 or 1; a path without brackets at its end has no share. The names of data sets on the
    Hub stay whole, since the library `datasets` cuts splits by brackets of its own (`hub:NAME:train[:90%]`).

    Raises `InputError` for brackets that hold something else.
    """
    opened = path.rfind("[")
    if (
        path.startswith("hub:")
        or opened < 0
        or not (path.endswith("]") or re.fullmatch(r"[\d.:]*", path[opened + 1 :]))
    ):
        return path, None
    number = r"(\d+(?:\.\d*)?|\.\d+)?"
    found = re.fullmatch(rf"(.+)\[\s*{number}\s*:\s*{number}\s*\]", path, re.DOTALL)
    if found is None:
        raise InputError(f"'{path}': {path[opened:]} is no share of a text; {_WANTED}.")
    part = float(found[2] or 0), float(found[3] or 1)
    between(part, 0)
    return found[1], part


def between(part: tuple[float, float], size: int) -> slice:
    """Which of `size` things lie between two shares. `InputError` unless 0 <= a < b <= 1."""
    start, end = part
    if not 0 <= start < end <= 1:
        raise InputError(f"[{start:g}:{end:g}] is no share of a text; {_WANTED}.")
    return slice(int(start * size), int(end * size))


def _written(part: tuple[float, float] | None) -> str:
    return "" if part is None else f"[{part[0]:g}:{part[1]:g}]"


def _split(text: str, split: Split, where: str) -> list[str]:
    if split == "file":
        return [text]
    lines = lines_of(text)
    if split == "line":
        return lines
    if split == "blank-line":
        return _joined(lines, [n for n, line in enumerate(lines) if not line.strip()])
    headings = [n for n, line in enumerate(lines) if is_heading(line)]
    if not headings:
        raise InputError(f"{where}: there is no heading, a line such as '= Title ='; choose another 'split'.")
    return _joined(lines, headings)


def _joined(lines: list[str], starts: list[int]) -> list[str]:
    """Blocks of lines that begin at the line numbers `starts` and at the first line."""
    ends = [*starts, len(lines)]
    return [_block(lines[start:end]) for start, end in zip([0, *starts], ends, strict=True)]


def _block(lines: list[str]) -> str:
    """Lines as one text, without the blank ones at its ends."""
    filled = [n for n, line in enumerate(lines) if line.strip()]
    return "\n".join(lines[filled[0] : filled[-1] + 1]) if filled else ""
