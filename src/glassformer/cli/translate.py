"""`glassformer translate`: text in, translations out, a line for a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cyclopts import Parameter

from glassformer.cli.options import PrecisionOption
from glassformer.cli.output import put, put_json
from glassformer.cli.running import load_to_run
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.tasks.model import Generation

CHUNK_BYTES = 1 << 16
BOM = b"\xef\xbb\xbf"


def translate(
    *text: Annotated[
        str,
        Parameter(
            help="Lines to translate; without any, those of standard input. '--' goes before a line with '-' first."
        ),
    ],
    model: Annotated[
        str,
        Parameter(help="A name that 'glassformer models' lists, or the folder of a run or checkpoint."),
    ],
    beam: Annotated[int, Parameter(help="Beam width; 1 is greedy and fastest.")] = 5,
    n_best: Annotated[
        int, Parameter(help="So many translations a line, the best first, written 'LINE ||| TRANSLATION ||| SCORE'.")
    ] = 1,
    length_penalty: Annotated[float, Parameter(help="Above 1 favours longer translations, 0 is none.")] = 1.0,
    max_length: Annotated[int | None, Parameter(help="Most tokens a translation. Without it, by the source.")] = None,
    tokenized: Annotated[
        bool,
        Parameter(help="Read and write tokens between spaces, as the model knows them.", negative=""),
    ] = False,
    long: Annotated[
        Literal["error", "split"],
        Parameter(help="With a line longer than the model's positions: refuse it, or translate it in parts."),
    ] = "error",
    precision: PrecisionOption = "fp32",
    json: Annotated[
        bool, Parameter(help="A JSON object a line: source, text, score, finish_reason, alternatives.", negative="")
    ] = False,
    attention: Annotated[
        Path | None, Parameter(help="Also draw which source tokens each target token looks at, for one line (PNG).")
    ] = None,
) -> None:
    """Translate text, given here or line by line on standard input.

    Every line in is a line out, in order; an empty line stays empty. Standard input is translated as it comes.
    """
    if attention is not None and len(text) != 1:
        raise InputError(f"--attention draws the translation of one line given as an argument, got {len(text)}.")
    loaded = load_to_run(model, precision, many=True)
    chunks = iter([(1, list(text))]) if text else read_chunks(cast("BufferedReader", sys.stdin.buffer))
    for first, lines in chunks:
        results = loaded.translate(
            lines,
            beam=beam,
            n_best=n_best,
            length_penalty=length_penalty,
            max_length=max_length,
            tokenized=tokenized,
            long=long,
            first_line=first,
        )
        for number, (line, result) in enumerate(zip(lines, results, strict=True), first):
            _write(number, line, result, n_best, json)
        if attention is not None:
            from glassformer.tasks.alignment import draw_alignment

            draw_alignment(loaded, lines[0], attention, target=results[0], tokenized=tokenized)


def read_chunks(stream: BufferedReader) -> Iterator[tuple[int, list[str]]]:
    """The lines of `stream` as they arrive, in chunks, each with the number of its first line.

    Lines end at a newline and only there; the last one may lack it. A line that is not UTF-8 is an `InputError` that
    names it, after the lines before it were given out.
    """
    first, rest = 1, b""
    while True:
        data = stream.read1(CHUNK_BYTES)  # what is there now: a slow writer gets its translations at once
        *whole, rest = (rest + data).split(b"\n")
        if not data and rest:
            whole.append(rest)
        lines, error = _decoded(whole, first)
        if lines:
            yield first, lines
        if error is not None:
            raise error
        if not data:
            return
        first += len(whole)


def _decoded(raw: list[bytes], first: int) -> tuple[list[str], InputError | None]:
    """The lines up to the first one that is not UTF-8, and the error for that one."""
    lines: list[str] = []
    for number, line in enumerate(raw, first):
        try:
            lines.append(line.removeprefix(BOM if number == 1 else b"").removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            bad = line[error.start]
            return lines, InputError(
                f"standard input:{number}: the byte 0x{bad:02x} is not UTF-8 text; convert the text to UTF-8."
            )
    return lines, None


def _write(number: int, line: str, result: Generation, n_best: int, json: bool) -> None:
    best = [result, *result.alternatives][:n_best]
    if json:
        put_json(
            {"line": number, "source": line, **_record(result), "alternatives": [_record(one) for one in best[1:]]}
        )
    elif n_best == 1:
        put(_flat(result.text))
    else:
        for one in best:
            put(f"{number} ||| {_flat(one.text)} ||| {one.score:.4f}")


def _record(result: Generation) -> dict[str, object]:
    return {"text": result.text, "score": result.score, "finish_reason": result.finish_reason}


def _flat(text: str) -> str:
    """One line: a model of characters can write a newline, and the count of lines must hold."""
    return " ".join(text.splitlines())
