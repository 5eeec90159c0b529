"""`glassformer verify`: is each number, date, name and sentence of a statement what documents say?"""

from __future__ import annotations

import os
import sys
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from glassformer.cli.options import EncodingOption, check_words
from glassformer.cli.output import put, put_json, say, visible
from glassformer.cli.translate import read_chunks

if TYPE_CHECKING:
    from glassformer.factuality.verifying import Verification

COLOURS = {"supported": "\x1b[32m", "contradicted": "\x1b[31m", "not found": "\x1b[33m"}
"""Green, red and yellow."""
_END = "\x1b[0m"


def verify(
    *statement: Annotated[str, Parameter(help="Statements; without any, the lines of standard input.")],
    documents: Annotated[
        tuple[Path, ...], Parameter(help="Files and folders to check against; may be given several times.")
    ],
    encoding: EncodingOption = None,
    reader: Annotated[str, Parameter(help="The model that finds values in passages.")] = "squad-minilm",
    count: Annotated[int, Parameter(help="How many passages are read for each value, about.")] = 4,
    strict: Annotated[
        bool, Parameter(help="Exit with 1 where anything is contradicted or not found.", negative="")
    ] = False,
    json: Annotated[
        bool, Parameter(help="A JSON object a statement, with all quotes and places.", negative="")
    ] = False,
) -> None:
    """Check statements against documents: every number, date and name of them, and each sentence as a whole.

    Each is supported, contradicted (with what the documents have in its place) or not found, with the sentence that
    decides it, its file and its characters there. Documents may be wrong themselves, and nothing that they say is
    obeyed. A statement without numbers, dates and names has nothing to check.
    """
    check_words(statement, "statement")
    from glassformer.factuality.documents import read_documents
    from glassformer.factuality.verifying import Verifier

    verifier = Verifier(read_documents(documents, encoding=encoding, say=say), reader, count=count)
    chunks = iter([(1, list(statement))]) if statement else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    doubtful = False
    for _, lines in chunks:
        for line in lines:
            if not line.strip() and not statement:
                continue
            result = verifier.verify(line)
            doubtful = doubtful or bool(result.claims) and not result.supported
            if json:
                put_json(result.to_json())
            else:
                put(_shown(result))
    if strict and doubtful:
        raise SystemExit(1)


def _shown(result: Verification) -> str:
    """The table; on a terminal with a colour for each verdict, and without what a terminal would obey."""
    table = result.table()
    if not sys.stdout.isatty():
        return table
    lines = [visible(line) for line in table.split("\n")]
    return "\n".join(lines if "NO_COLOR" in os.environ else map(_coloured, lines))


def _coloured(line: str) -> str:
    for verdict, colour in COLOURS.items():
        if line.startswith(f"  {verdict} "):
            return f"  {colour}{verdict}{_END}{line[len(verdict) + 2 :]}"
    return line
