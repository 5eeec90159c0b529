"""`glassformer inspect`: attention, lens and patching for one text, in one file that a browser opens without a net."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError

_PAGE = Path("inspect.html")


def inspect(
    text: Annotated[
        str, Parameter(help="The text to look at; '-' reads it from standard input.", allow_leading_hyphen=True)
    ],
    *,
    model: ModelOption,
    patch_from: Annotated[
        str | None,
        Parameter(help="Another text of as many tokens: what of it must be put into the text to change the answer?"),
    ] = None,
    target: Annotated[
        str | None, Parameter(help="What an encoder-decoder is to write. Without it, what it does write.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help=f"The page to write. With --json none is written without it. [default: {_PAGE}]")
    ] = None,
    precision: PrecisionOption = None,
    json: Annotated[
        bool, Parameter(help="A JSON object a line: the document of each view, as the page holds it.", negative="")
    ] = False,
) -> None:
    """Look into a model while it reads one text: a page to open in a browser.

    Where every head looks, what every layer would say, and, with --patch-from, which state of another text changes the
    answer. The page is one file, loads nothing, and its path is printed. Texts have up to 128 tokens.
    """
    if out is not None and out.is_dir():
        raise InputError(f"--out must be a file, {out} is a folder: name the page in it, such as {out / _PAGE}.")
    text = _given(text)
    import glassformer
    from glassformer.serving.documents import documents
    from glassformer.serving.inlining import write_page

    loaded = glassformer.load(model, precision=precision)
    found = documents(loaded, text, target=target, source_text=patch_from, name=model)
    for document in found:
        if "missing" in document:
            say(f"no {document['view']}: {document['missing']}")
        if json:
            put_json(document)
    if out is not None or not json:
        path = write_page(found, out or _PAGE)
        if not json:
            put(str(path))


def _given(text: str) -> str:
    """The text itself, or that of standard input without the newline that ends it."""
    if text != "-":
        return text
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        bad = raw[error.start]
        raise InputError(
            f"standard input: the byte 0x{bad:02x} is not UTF-8 text; convert the text to UTF-8."
        ) from None
