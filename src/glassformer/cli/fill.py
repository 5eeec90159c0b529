"""`glassformer fill`: the words that a masked language model puts for a mask."""

from __future__ import annotations

import dataclasses
import sys
from io import BufferedReader
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put, put_json
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks

if TYPE_CHECKING:
    from glassformer.tasks.fill import Fill


def fill(
    *text: Annotated[
        str, Parameter(help="Texts with a mask, such as [MASK]; without any, the lines of standard input.")
    ],
    model: ModelOption,
    top: Annotated[int, Parameter(help="So many words for each mask, the most probable first.")] = 5,
    precision: PrecisionOption = None,
    json: Annotated[
        bool, Parameter(help="A JSON object a text: for each mask its words with their probabilities.", negative="")
    ] = False,
) -> None:
    """Say which words are most probable for a mask in a text.

    A line a word: its probability, the token, the text with it in place, between tabs. Several masks are filled each by
    itself, in order, their words apart by an empty line; so are several texts.
    """
    loaded = load_to_run(model, precision, many=True)
    chunks = iter([(1, list(text))]) if text else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    written = False
    for _, lines in chunks:
        for line in lines:
            masks = _masks(loaded.fill(line, top=top))
            if json:
                put_json({"text": line, "masks": [[dataclasses.asdict(one) for one in words] for words in masks]})
                continue
            for words in masks:
                if written:
                    put("")
                written = True
                for one in words:
                    put(f"{one.probability:.4f}\t{one.token}\t{one.text}")


def _masks(found: list[Fill] | list[list[Fill]]) -> list[list[Fill]]:
    """A list for each mask, of a single one too."""
    return found if isinstance(found[0], list) else [found]  # type: ignore[return-value, list-item]
