"""`glassformer answer`: the span of a text that answers a question."""

from __future__ import annotations

import dataclasses
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


def answer(
    *question: Annotated[str, Parameter(help="Questions; without any, the lines of standard input.")],
    model: ModelOption,
    context: Annotated[
        Path, Parameter(allow_leading_hyphen=True, help="The text file that they are about ('-' is standard input).")
    ],
    threshold: Annotated[
        float | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Refuse where 'no answer' scores higher than the answer by more than this; inf never refuses. Without "
            "it, the model's own.",
        ),
    ] = None,
    precision: PrecisionOption = None,
    json: Annotated[bool, Parameter(help="A JSON object a question.", negative="")] = False,
) -> None:
    """Find the span of a text that answers a question, or say that there is none.

    A line a question: the answer, its place in the text (characters from 0, start:end), and how much higher it scores
    than "no answer", between tabs; or "no answer", "-" and that score.
    """
    from glassformer.text.columns import read_text

    if str(context) == "-" and not question:
        raise InputError("standard input cannot be both the text and the questions: give the questions as arguments.")
    text = _standard_input() if str(context) == "-" else read_text(context)
    loaded = load_to_run(model, precision, many=True)
    chunks = iter([(1, list(question))]) if question else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    for first, lines in chunks:
        answers = loaded.answer(lines, text, threshold=threshold, first_line=first)
        for asked, found in zip(lines, answers, strict=True):
            if json:
                put_json({"question": asked, **dataclasses.asdict(found), "answered": found.answered})
            elif found.answered:
                put(f"{' '.join(found.text.split())}\t{found.start}:{found.end}\t{found.score:.2f}")
            else:
                put(f"no answer\t-\t{found.score:.2f}")


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input must be UTF-8; byte {error.start} is not. Convert it.") from None
