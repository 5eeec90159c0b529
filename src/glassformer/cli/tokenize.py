"""`glassformer tokenize`: text into token shards."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from cyclopts import Parameter

from glassformer.cli.options import JsonOption
from glassformer.cli.output import put, put_json, say
from glassformer.errors import InputError

if TYPE_CHECKING:
    from glassformer.text.shard_writing import Framed, Fresh
    from glassformer.text.shards import Header

Kinds = Literal["bpe", "word", "character"]


def tokenize(
    *text: Annotated[
        str,
        Parameter(
            help="Files: plain text, .jsonl or .tsv; or hub:NAME, hub:NAME:SPLIT, hub:NAME:CONFIG:SPLIT, a data set on "
            "the Hub of Hugging Face or a local folder of one (extra 'datasets')."
        ),
    ],
    out: Annotated[Path | None, Parameter(help="The new folder.")] = None,
    tokenizer: Annotated[
        str | None,
        Parameter(
            help="A model (its folder or name), other shards, or a tokenizer.json; or bpe, word or character, to train "
            "one on the beginning of the text."
        ),
    ] = None,
    vocab_size: Annotated[int, Parameter(help="Of a tokenizer that is trained.")] = 50257,
    sample: Annotated[
        int, Parameter(help="How many characters it is trained on; these are held in memory.")
    ] = 100_000_000,
    documents: Annotated[
        Literal["file", "line", "blank-line", "heading"], Parameter(help="Where a document of plain text ends.")
    ] = "file",
    column: Annotated[str, Parameter(help="Where the text is, in files with columns.")] = "text",
    shard_tokens: Annotated[
        int, Parameter(help="A shard ends with the document that brings it to so many.")
    ] = 100_000_000,
    verify: Annotated[
        Path | None, Parameter(help="Read the shards in this folder, and compare them with their SHA-256.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Turn text of any size into token shards, from which language models train without reading it again.

    The folder is printed on standard output: give it to data.train of a recipe. It appears whole; after a kill, the
    same command goes on behind the last whole shard. One document is in memory at a time, with those that are encoded
    beside it. Documents to validate on are made with the tokenizer of the others: --tokenizer FOLDER.
    """
    if verify is not None:
        _verify(verify, json)
        return
    if not text or out is None or tokenizer is None:
        missing = "text, such as corpus.jsonl" if not text else "--out FOLDER" if out is None else "--tokenizer"
        raise InputError(f"tokenize needs {missing}: see glassformer tokenize --help.")
    for name, value in (("--vocab-size", vocab_size), ("--sample", sample), ("--shard-tokens", shard_tokens)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    use = _new(tokenizer, vocab_size, sample) if tokenizer in get_args(Kinds) else _existing(tokenizer)
    began = time.perf_counter()
    header = _write(text, out, use, documents, column, shard_tokens)
    say(
        f"{header.tokens:,} tokens in {header.documents:,} documents, {len(header.files)} shards of {header.dtype}, "
        f"{time.perf_counter() - began:.1f} s. Next: glassformer train RECIPE --data.train {out}"
    )
    counts = {"tokens": header.tokens, "documents": header.documents, "shards": len(header.files)}
    _tell({"folder": str(out), **counts}, json)


def _write(
    text: Sequence[str], out: Path, use: Fresh | Framed, documents: Any, column: str, shard_tokens: int
) -> Header:
    from glassformer.text.document_streams import stream_documents
    from glassformer.text.shard_writing import write_shards

    def read() -> Iterator[str]:
        return itertools.chain.from_iterable(stream_documents(path, documents, column) for path in text)

    asked = {"text": [_seen(path) for path in text], "documents": documents, "column": column}
    return write_shards(read, out, use, shard_tokens=shard_tokens, asked=asked, on_progress=_Progress())


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        put_json(told)
    else:
        put(told["folder"])


def _verify(folder: Path, as_json: bool) -> None:
    from glassformer.text.shards import open_shards

    shards = open_shards(folder)
    shards.verify()
    say(f"{len(shards):,} tokens in {shards.n_documents:,} documents are as they were written.")
    _tell({"folder": str(folder), "tokens": len(shards), "documents": shards.n_documents}, as_json)


def _seen(path: str) -> list[Any]:
    """What tells whether a file is the same after a kill: its name, size and time."""
    from glassformer.text.columns import HUB

    if path.startswith(HUB) or not Path(path).is_file():
        return [path]
    found = Path(path).stat()
    return [path, found.st_size, found.st_mtime_ns]


def _new(kind: str, vocab_size: int, sample: int) -> Fresh:
    from glassformer.text.shard_writing import Fresh

    return Fresh(kind, vocab_size, sample=sample)  # type: ignore[arg-type]


def _existing(name: str) -> Framed:
    """The tokenizer that a name means, with what stands around a document of its model."""
    from glassformer.text.pretrained import read_tokenizer
    from glassformer.text.shard_writing import Framed, framed
    from glassformer.text.shards import is_shards, open_shards
    from glassformer.text.tokenizer import Tokenizer

    path = Path(name)
    if is_shards(path):
        shards = open_shards(path)
        return Framed(shards.tokenizer, shards.header.before, shards.header.after)
    if path.suffix == ".json":
        return framed(Tokenizer.load(path))
    own = (path / "glassformer.json").is_file() or (path / "checkpoints").is_dir()
    if path.is_dir() and not own and not (path / "config.json").is_file() and not list(path.glob("*.gguf")):
        return framed(read_tokenizer(path))
    from glassformer.checkpoints.opening import open_model

    held = open_model(name)
    return Framed(held.tokenizer, (held.config.bos_id,), (held.config.eos_id,))


class _Progress:
    """Says how far it is: on a terminal in one line that changes, else now and then."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._first: int | None = None

    def __call__(self, documents: int, tokens: int) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if self._first is None:
            self._first, self._began = tokens, now
        if now - self._said < (0.5 if terminal else 30):
            return
        self._said = now
        rate = (tokens - self._first) / max(now - self._began, 1e-9)
        line = f"{documents:,} documents, {tokens:,} tokens, {rate:,.0f} tokens/s"
        print(f"\r{line}\033[K" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
