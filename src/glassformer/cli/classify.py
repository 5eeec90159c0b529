"""`glassformer classify`: the label of every text."""

from __future__ import annotations

import dataclasses
import sys
from io import BufferedReader
from typing import Annotated, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put, put_json
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks


def classify(
    *text: Annotated[
        str, Parameter(help="Texts; without any, the lines of standard input. '--' goes before one with '-' first.")
    ],
    model: ModelOption,
    truncate: Annotated[
        bool, Parameter(help="Read only the beginning of a text that is too long, instead of refusing it.", negative="")
    ] = False,
    precision: PrecisionOption = None,
    json: Annotated[
        bool, Parameter(help="A JSON object a text: its label, and the probabilities of all.", negative="")
    ] = False,
) -> None:
    """Say which label a text has, given here or line by line on standard input.

    A line a text: the label, a tab, its probability.
    """
    loaded = load_to_run(model, precision, many=True)
    chunks = iter([(1, list(text))]) if text else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    for first, lines in chunks:
        for found in loaded.classify(lines, truncate=truncate, first_line=first):
            if json:
                put_json(dataclasses.asdict(found))
            else:
                put(f"{found.label}\t{found.probability:.4f}")
