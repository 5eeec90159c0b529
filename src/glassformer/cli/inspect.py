"""`glassformer inspect`: what happens in a model, or in two, with one text, as a file that a browser opens offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from glassformer.cli.options import ModelOption, PrecisionOption
from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError

_PAGE = Path("inspect.html")
_COMPARED = (
    "Models of any two kinds can be compared, but both are given the same text and, where they stand, --target and "
    "--patch-from: leave out what one of them cannot take."
)


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
    compare: Annotated[
        str | None, Parameter(help="Another model, or another run of it: both read the text, side by side.")
    ] = None,
    documents: Annotated[
        tuple[Path, ...],
        Parameter(help="Files or folders that the answer's numbers, dates and names are looked up in.", negative=""),
    ] = (),
    risk: Annotated[
        Path | None,
        Parameter(help="A calibration of the model, as calibrate writes it: how often such answers are wrong."),
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

    How much each token surprised the model, where every head looks, its positions, what every layer would say, which
    state of another text changes the answer (--patch-from), how sure it is of what it says, and attention step by step.
    The page is one file, loads nothing, and its path is printed. Texts have up to 128 tokens.
    """
    if out is not None and out.is_dir():
        raise InputError(f"--out must be a file, {out} is a folder: name the page in it, such as {out / _PAGE}.")
    text = _given(text)
    import glassformer
    from glassformer.serving.inlining import write_page
    from glassformer.serving.views import make_views

    truth = _grounds(documents)
    found = []
    for name in [model] if compare is None else [model, compare]:
        loaded = glassformer.load(name, precision=None if precision == "fp32" else precision)  # to be looked into
        own = {"truth": truth | {"risk": risk if name == model else None}}
        try:
            found += make_views(loaded, text, target=target, patch_from=patch_from, name=name, options=own)
        except InputError as error:
            if compare is None:
                raise
            raise InputError(f"{name}: {error} {_COMPARED}") from None
    for document in found:
        if "missing" in document:
            say(f"no {document['view']}: {document['missing']}")
        if json:
            put_json(document)
    if out is not None or not json:
        path = write_page(found, out or _PAGE)
        if not json:
            put(str(path))


def _grounds(documents: tuple[Path, ...]) -> dict[str, Any]:
    """What the view "truth" looks things up in."""
    if not documents:
        return {}
    from glassformer.factuality.asking import index_of
    from glassformer.factuality.documents import read_documents

    return {"documents": index_of(read_documents(documents, say=say).told_by(documents), say)}


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
