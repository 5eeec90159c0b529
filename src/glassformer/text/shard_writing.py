"""From documents to token shards, in memory that does not grow with the corpus, and able to go on after a kill."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import InputError
from glassformer.text.shards import FORMAT, HEADER, STARTS, STORED, TOKENIZER, Header, tokenizer_hash, tokenizer_text
from glassformer.text.tokenizer import Kind, Tokenizer

SHARD_TOKENS = 100_000_000
"""Tokens of a shard, unless asked otherwise: 200 MB of uint16."""
_DRAFT = "draft.json"
_CHARACTERS, _TEXTS = 1_000_000, 1000  # what is encoded at once, on all cores


@dataclass(frozen=True)
class Fresh:
    """A tokenizer that is still to be trained: on documents from the beginning, until they have `sample` characters."""

    kind: Kind = "bpe"
    vocab_size: int = 50257
    min_frequency: int = 2
    sample: int = 100_000_000


@dataclass(frozen=True)
class Framed:
    """A tokenizer with the ids that stand before and after every document."""

    tokenizer: Tokenizer
    before: tuple[int, ...]
    after: tuple[int, ...]


def framed(tokenizer: Tokenizer) -> Framed:
    """The tokenizer with its end-of-text token on both sides of a document, as language models here are trained."""
    if tokenizer.eos_id is None:
        raise InputError("this tokenizer has no token that ends a text; take one that has, or train one: bpe.")
    return Framed(tokenizer, (tokenizer.eos_id,), (tokenizer.eos_id,))


def write_shards(
    documents: Callable[[], Iterable[str]],
    folder: str | Path,
    tokenizer: Fresh | Framed,
    *,
    shard_tokens: int = SHARD_TOKENS,
    asked: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] = lambda documents, tokens: None,
) -> Header:
    """Write what `documents()` gives, again from its beginning at every call, as token shards in `folder`.

    A shard ends with the document that brings it to `shard_tokens`. The folder appears whole or not at all. What was
    written before a kill lies in `.NAME.partial` beside it: the same call goes on behind its last whole shard, and ends
    with the same files. `asked` is what must be the same then, beside tokenizer and size. `on_progress` is called with
    the documents and tokens so far.

    Raises `InputError` where the folder exists, another process writes it, what is half written was begun otherwise, or
    the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists and is not overwritten; choose another folder, or remove it.")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            draft = _Draft.begun(partial, tokenizer, documents, {**(asked or {}), "shard_tokens": shard_tokens})
            header = draft.filled(documents(), shard_tokens, on_progress)
            _write(partial / HEADER, _json(header.mapping()))
            (partial / _DRAFT).unlink()
        os.rename(partial, folder)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error.strerror}. What is there stays in {partial}; the same command goes on."
        ) from None
    return header


class _Draft:
    """A folder of shards that is not complete: its whole shards are in `files`."""

    def __init__(self, folder: Path, asked: Mapping[str, Any], files: Sequence[dict[str, Any]], use: Framed) -> None:
        self.folder, self.asked, self.files, self.use = folder, dict(asked), list(files), use
        self.dtype = "uint16" if use.tokenizer.vocab_size <= 2**16 else "uint32"

    @classmethod
    def begun(
        cls, folder: Path, wanted: Fresh | Framed, documents: Callable[[], Iterable[str]], asked: Mapping[str, Any]
    ) -> _Draft:
        """What lies in the folder, or a new one with its tokenizer."""
        if isinstance(wanted, Fresh):
            asked = {**asked, "tokenizer": [wanted.kind, wanted.vocab_size, wanted.min_frequency, wanted.sample]}
        else:
            asked = {**asked, "tokenizer": tokenizer_hash(wanted.tokenizer), "frame": [wanted.before, wanted.after]}
        asked = json.loads(json.dumps({"format": FORMAT, **asked}))
        try:
            kept = json.loads((folder / _DRAFT).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            kept = None
        if kept is not None and kept["asked"] != asked:
            other = [name for name in kept["asked"] if kept["asked"][name] != asked.get(name)] or ["setting"]
            raise InputError(f"{folder} was begun with another '{other[0]}': give the same as then, or remove it.")
        if kept is not None:
            use = framed(Tokenizer.load(folder / TOKENIZER)) if isinstance(wanted, Fresh) else wanted
            return cls(folder, asked, kept["files"], use)
        use = framed(_trained(wanted, documents())) if isinstance(wanted, Fresh) else wanted
        _write(folder / TOKENIZER, tokenizer_text(use.tokenizer).encode())
        made = cls(folder, asked, [], use)
        made._keep()
        return made

    def filled(self, documents: Iterable[str], shard_tokens: int, on_progress: Callable[[int, int], None]) -> Header:
        """All shards written; the header that tells of them."""
        done = sum(file["documents"] for file in self.files)
        texts = itertools.islice(documents, done, None)
        encoded = _encoded(texts, self.use.tokenizer)
        for first in encoded:
            file = self._shard(itertools.chain([first], encoded), shard_tokens, on_progress)
            self.files.append(file)
            self._keep()
        use, roles = self.use, self.use.tokenizer.specials
        return Header(
            dtype=self.dtype,  # type: ignore[arg-type]
            before=use.before,
            after=use.after,
            tokenizer=tokenizer_hash(use.tokenizer),
            specials={role: token for role, token in roles.items() if use.tokenizer.id_of(token) is not None},
            files=tuple(self.files),
        )

    def _shard(
        self, encoded: Iterator[list[int]], shard_tokens: int, on_progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """One shard, of the next documents."""
        name = f"{len(self.files):05d}"
        before = {what: sum(file[what] for file in self.files) for what in ("documents", "tokens")}
        starts, tokens, digest = array("q"), 0, hashlib.sha256()
        path = self.folder / f"{name}.ids"
        with open(path, "wb") as stream:
            for ids in encoded:
                data = np.array([*self.use.before, *ids, *self.use.after], dtype=STORED[self.dtype])
                stream.write(data.tobytes())
                digest.update(data.tobytes())
                starts.append(tokens)
                tokens += len(data)
                if len(starts) % _TEXTS == 0 or tokens >= shard_tokens:
                    on_progress(before["documents"] + len(starts), before["tokens"] + tokens)
                if tokens >= shard_tokens:
                    break
            stream.flush()
            os.fsync(stream.fileno())
        listed = np.array(starts, dtype=STARTS).tobytes()
        _write(path.with_suffix(".starts"), listed)
        hashes = {"ids": digest.hexdigest(), "starts": hashlib.sha256(listed).hexdigest()}
        return {"name": name, "tokens": tokens, "documents": len(starts), **hashes}

    def _keep(self) -> None:
        _write(self.folder / _DRAFT, _json({"asked": self.asked, "files": self.files}))


def _encoded(texts: Iterator[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """The ids of each text; many are encoded at once, which uses all cores."""
    held, characters = [], 0
    for text in texts:
        held.append(text)
        characters += len(text)
        if characters >= _CHARACTERS or len(held) >= _TEXTS:
            yield from tokenizer.encode_all(held)
            held, characters = [], 0
    if held:
        yield from tokenizer.encode_all(held)


def _trained(wanted: Fresh, documents: Iterable[str]) -> Tokenizer:
    """A tokenizer of the first documents."""

    def sample() -> Iterator[str]:
        left = wanted.sample
        for text in documents:
            yield text
            left -= len(text)
            if left <= 0:
                return

    return Tokenizer.train(sample(), wanted.kind, wanted.vocab_size, wanted.min_frequency)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """`InputError` where another process writes there meanwhile."""
    if os.name == "nt":
        yield
        return
    import fcntl

    path = folder.with_name(f"{folder.name}.lock")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder} is being written by another process; wait for it, or stop it first.") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f"{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
