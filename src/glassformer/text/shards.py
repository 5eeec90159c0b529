"""Token shards: a corpus as files of token ids, looked up in place and never read as a whole.

A folder of them holds, in format 1:

- `shards.json`: the format, the tokenizer's hash, ids around each document, and of each shard counts and SHA-256
- `tokenizer.json`: the tokenizer, as Hugging Face stores it
- `00000.ids`, `00001.ids` …: the framed documents one after another, little-endian uint16 or uint32
- `00000.starts` …: where each document of that shard begins, in tokens, little-endian int64

Documents lie in their order, and none is in two shards. `shard_writing.py` writes such folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from glassformer.errors import InputError
from glassformer.text.batches import Rows
from glassformer.text.documents import between
from glassformer.text.tokenizer import Tokenizer

HEADER, TOKENIZER, FORMAT = "shards.json", "tokenizer.json", 1
STORED: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
STARTS = np.dtype("<i8")
_AGAIN = "Copy the folder again, or write it anew with glassformer tokenize."


@dataclass(frozen=True)
class Header:
    """What `shards.json` says. `files` has of each shard its `name`, `tokens`, `documents` and the SHA-256 of its two
    files; `before` and `after` are the ids around every document; `specials` are tokens with a role of the tokenizer.
    """

    dtype: Literal["uint16", "uint32"]
    before: tuple[int, ...]
    after: tuple[int, ...]
    tokenizer: str
    specials: dict[str, str]
    files: tuple[dict[str, Any], ...]

    @property
    def tokens(self) -> int:
        """How many there are in all shards, frames included."""
        return sum(file["tokens"] for file in self.files)

    @property
    def documents(self) -> int:
        """How many there are in all shards."""
        return sum(file["documents"] for file in self.files)

    def mapping(self) -> dict[str, Any]:
        """As it is written."""
        counts = {"documents": self.documents, "tokens": self.tokens}
        kept = {name: getattr(self, name) for name in ("dtype", "before", "after", "tokenizer", "specials", "files")}
        return {"format": FORMAT, **counts, **kept}


@dataclass(frozen=True)
class Piece:
    """The tokens [begin, end) of one shard: `documents` whole ones, of the shard's own from the number `first` on. Its
    files are mapped when something is looked up."""

    path: Path
    dtype: str
    begin: int
    end: int
    first: int
    documents: int

    @cached_property
    def ids(self) -> Any:
        """All tokens of the shard."""
        return np.memmap(self.path.with_suffix(".ids"), STORED[self.dtype], "r")

    @cached_property
    def starts(self) -> Any:
        """Where its documents begin."""
        return np.memmap(self.path.with_suffix(".starts"), STARTS, "r")


class TokenShards:
    """The documents of a folder of shards, or of a share of it: `Packed` for windows. Made by `open_shards`.

    `fingerprint` tells what is in it, `tokenizer` is what its ids mean; `where` is its folder, for messages.
    """

    def __init__(self, where: str, header: Header, pieces: Sequence[Piece], fingerprint: str) -> None:
        self.where, self.header, self.pieces, self.fingerprint = where, header, tuple(pieces), fingerprint
        self._ends = np.cumsum([piece.end - piece.begin for piece in self.pieces], dtype=np.int64)
        self._documents = np.cumsum([piece.documents for piece in self.pieces], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def n_documents(self) -> int:
        """How many documents there are."""
        return int(self._documents[-1])

    @property
    def several(self) -> bool:
        """See `Packed.several`."""
        return self.n_documents > 1

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer whose ids these are. `InputError` where its file is not the one that they were made with."""
        path = self.pieces[0].path.with_name(TOKENIZER)
        found = Tokenizer.load(path, specials=self.header.specials)
        if tokenizer_hash(found) != self.header.tokenizer:
            raise InputError(f"{path} is not the tokenizer that these shards were made with. {_AGAIN}")
        return found

    def ids(self, places: Rows) -> Rows:
        """See `Packed.ids`."""
        found = np.empty(places.shape, dtype=np.int64)
        for number, inside in self._by_piece(places):
            found[inside] = self.pieces[number].ids[places[inside] + self._shift(number)]
        return found

    def documents(self, places: Rows) -> Rows:
        """See `Packed.documents`."""
        found = np.empty(places.shape, dtype=np.int64)
        for number, inside in self._by_piece(places):
            piece = self.pieces[number]
            local = np.searchsorted(piece.starts, places[inside] + self._shift(number), side="right")
            found[inside] = local - 1 - piece.first + self._before(number)
        return found

    def beginnings(self, count: int, length: int) -> list[list[int]]:
        """The first tokens, at most `length`, of documents at equal distances, without what stands before them."""
        frame = (len(self.header.before), len(self.header.after))
        found = []
        for wanted in sorted({number * self.n_documents // count for number in range(count)}):
            number = int(np.searchsorted(self._documents, wanted, side="right"))
            piece = self.pieces[number]
            place = piece.first + wanted - self._before(number)
            start = int(piece.starts[place]) + frame[0]
            end = int(piece.starts[place + 1]) if place + 1 < len(piece.starts) else len(piece.ids)
            found.append(piece.ids[start : min(end - frame[1], start + length)].tolist())
        return found

    def _by_piece(self, places: Rows) -> Iterator[tuple[int, Any]]:
        """The pieces that hold some of the places, each with which of these it holds."""
        which = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(which).tolist():
            yield number, which == number

    def _shift(self, number: int) -> int:
        piece = self.pieces[number]
        return piece.end - int(self._ends[number])

    def _before(self, number: int) -> int:
        """Documents before a piece."""
        return int(self._documents[number]) - self.pieces[number].documents

    def verify(self) -> None:
        """Read all of it. `InputError` that names the first file whose SHA-256 is not the one in the header."""
        kept = {file["name"]: file for file in self.header.files}
        for piece in self.pieces:
            for kind in ("ids", "starts"):
                path = piece.path.with_suffix(f".{kind}")
                with open(path, "rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != kept[piece.path.name][kind]:
                    raise InputError(f"{path} is damaged: its SHA-256 is not the one in {HEADER}. {_AGAIN}")


def is_shards(path: str | Path) -> bool:
    """Whether there is a folder of token shards at `path`."""
    return (Path(path) / HEADER).is_file()


def open_shards(folder: str | Path, part: tuple[float, float] | None = None) -> TokenShards:
    """The shards in a folder, or a share of their documents.

    Only the header is read, and the sizes of the files are looked at: opening takes as long for any corpus. Raises
    `InputError` where there are none, files are missing or cut short, or the share holds no document.
    """
    folder = Path(folder)
    header = read_header(folder)
    for file in header.files:
        _check_sizes(folder, file, header)
    pieces = [
        Piece(folder / file["name"], header.dtype, 0, file["tokens"], 0, file["documents"]) for file in header.files
    ]
    if part is not None:
        wanted = between(part, header.documents)
        pieces = list(_cut(pieces, wanted.start, wanted.stop))
    if not pieces:
        raise InputError(f"{folder}: the share {part} of {header.documents} documents holds none.")
    told = json.dumps([header.mapping(), part], sort_keys=True)
    return TokenShards(str(folder), header, pieces, hashlib.blake2b(told.encode(), digest_size=12).hexdigest())


def joined(shards: Sequence[TokenShards]) -> TokenShards:
    """Several as one, in this order. `InputError` where they have other tokenizers, or other ids around documents."""
    first = shards[0]
    for other in shards[1:]:
        for what in ("tokenizer", "before", "after"):
            if getattr(other.header, what) != getattr(first.header, what):
                raise InputError(
                    f"{first.where} and {other.where} were made with different tokenizers: make one of them anew, with "
                    f"glassformer tokenize --tokenizer {first.where}."
                )
    told = hashlib.blake2b("".join(one.fingerprint for one in shards).encode(), digest_size=12).hexdigest()
    pieces = [piece for one in shards for piece in one.pieces]
    return first if len(shards) == 1 else TokenShards(first.where, first.header, pieces, told)


def tokenizer_text(tokenizer: Tokenizer) -> str:
    """What `tokenizer.json` holds."""
    return str(tokenizer._backend.to_str(pretty=True))


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """A hash of a tokenizer: equal for those that make the same ids."""
    content = json.loads(tokenizer_text(tokenizer))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_header(folder: Path) -> Header:
    """The header of a folder of shards. `InputError` where it is missing, broken, or of a format that is not known."""
    path = folder / HEADER
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{folder} holds no token shards: {path} cannot be read; see glassformer tokenize.") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). {_AGAIN}") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise InputError(f"{path} must have 'format' {FORMAT}, got {version!r}: it may be of a newer Glassformer.")
    if not _sound(content):
        raise InputError(f"{path} is damaged: it lacks what a header of shards has. {_AGAIN}")
    frame = {name: tuple(content[name]) for name in ("before", "after", "files")}
    return Header(content["dtype"], tokenizer=content["tokenizer"], specials=content["specials"], **frame)


def _sound(content: Mapping[str, Any]) -> TypeGuard[dict[str, Any]]:
    """Whether a header has everything, of the right kind."""
    kinds = {"dtype": str, "before": list, "after": list, "tokenizer": str, "specials": dict, "files": list}
    if any(not isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return False
    wanted = {"name": str, "tokens": int, "documents": int, "ids": str, "starts": str}
    files = content["files"]
    if not files or any(not isinstance(file, dict) for file in files):
        return False
    plain = all(isinstance(file.get(name), kind) for file in files for name, kind in wanted.items())
    return plain and content["dtype"] in STORED and all(Path(file["name"]).name == file["name"] for file in files)


def _check_sizes(folder: Path, file: Mapping[str, Any], header: Header) -> None:
    wanted = {"ids": file["tokens"] * STORED[header.dtype].itemsize, "starts": file["documents"] * STARTS.itemsize}
    for kind, size in wanted.items():
        path = folder / f"{file['name']}.{kind}"
        try:
            found = path.stat().st_size
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. {_AGAIN}") from None
        if found != size:
            raise InputError(f"{path} must have {size} bytes and has {found}: it was cut short. {_AGAIN}")


def _cut(pieces: Sequence[Piece], first: int, last: int) -> Iterator[Piece]:
    """What holds the documents [first, last) of whole shards."""
    passed = 0
    for piece in pieces:
        begin, end = max(first - passed, 0), min(last - passed, piece.documents)
        passed += piece.documents
        if begin < end:
            stop = int(piece.starts[end]) if end < piece.documents else piece.end
            yield Piece(piece.path, piece.dtype, int(piece.starts[begin]), stop, begin, end - begin)
