"""`glassformer summarize`: a short text for a long one."""

from __future__ import annotations

import sys
from io import BufferedReader
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put, put_json
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks
from glassformer.errors import InputError


def summarize(
    *file: Annotated[Path, Parameter(help="Text files, a document each; without any, standard input is one document.")],
    model: ModelOption,
    lines: Annotated[
        bool, Parameter(help="Every line of standard input is a document, and gives a line.", negative="")
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        Parameter(help="The most tokens of a summary. Without it 64, or half of what the model can read."),
    ] = None,
    beam: Annotated[int, Parameter(help="Beam width; 1 takes the most probable token always.")] = 1,
    truncate: Annotated[
        bool, Parameter(help="Read only the beginning of a text that is too long, instead of refusing it.", negative="")
    ] = False,
    precision: PrecisionOption = None,
    json: Annotated[bool, Parameter(help="A JSON object a document.", negative="")] = False,
) -> None:
    """Write a short text for a long one: a line a document."""
    from glassformer.text.columns import decode_lines, read_text

    if file and lines:
        raise InputError("--lines is about standard input: give files, or --lines.")
    if file:
        chunks = iter([(1, [read_text(path) for path in file])])
    elif lines:
        chunks = read_chunks(cast("BufferedReader", sys.stdin.buffer))
    else:
        document = "\n".join(decode_lines(sys.stdin.buffer.read(), "standard input"))
        chunks = iter([(1, [document])])
    loaded = load_to_run(model, precision)
    for first, texts in chunks:
        settings = {"beam": beam, "max_new_tokens": max_new_tokens, "truncate": truncate, "first_line": first}
        for found in loaded.summarize(texts, **settings):
            if json:
                put_json({"summary": found.text, "finish_reason": found.finish_reason})
            else:
                put(" ".join(found.text.split()))
