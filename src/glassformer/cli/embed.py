"""`glassformer embed`: one vector a line, as a NumPy array or as JSON."""

from __future__ import annotations

import io
import sys
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put_json, say
from glassformer.cli.running import load_to_run
from glassformer.cli.translate import read_chunks
from glassformer.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from glassformer.tasks.model import Model


def embed(
    *text: Annotated[
        str, Parameter(help="Texts; without any, the lines of standard input. '--' goes before one with '-' first.")
    ],
    model: ModelOption,
    out: Annotated[Path | None, Parameter(help="Write the .npy file there instead of to standard output.")] = None,
    truncate: Annotated[
        bool, Parameter(help="Read only the beginning of a text that is too long, instead of refusing it.", negative="")
    ] = False,
    precision: PrecisionOption = None,
    json: Annotated[bool, Parameter(help="A JSON array a line instead of a .npy file.", negative="")] = False,
) -> None:
    """Make a vector of every text, given here or line by line on standard input.

    Standard output gets a .npy file, float32 [n, D], a row for each line in order; numpy.load reads it. With --json
    each line gives a line, as it comes.
    """
    if json and out is not None:
        raise InputError("--json writes to standard output; leave --out away, or redirect with '>'.")
    if not json and out is None and sys.stdout.isatty():
        raise InputError("vectors are binary, and this is a terminal: redirect with '> FILE', or give --out or --json.")
    loaded = load_to_run(model, precision, many=True)
    chunks = iter([(1, list(text))]) if text else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    if json:
        for first, lines in chunks:
            for row in loaded.embed(lines, truncate=truncate, first_line=first).tolist():
                put_json(row)
        return
    lines = [line for _, chunk in chunks for line in chunk]
    data = _npy(_vectors(loaded, lines, truncate))
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        from glassformer.checkpoints.files import write_bytes

        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, data)
        say(f"{len(lines)} vectors in {out}. Next: numpy.load({str(out)!r})")


def _vectors(model: Model, lines: list[str], truncate: bool) -> np.ndarray:
    vectors: np.ndarray = model.embed(lines, truncate=truncate).numpy()
    return vectors


def _npy(vectors: np.ndarray) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(vectors, dtype="<f4"))
    return buffer.getvalue()
