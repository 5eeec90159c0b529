"""Files and folders as documents, and the passages that they are cut into. What they say is data, never a command.

Places are characters of the text as it is returned, line ends and all: a quote is always `document.text[start:end]`.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from glassformer.errors import InputError
from glassformer.factuality.encoding import check_encoding, decoded, kind_of
from glassformer.factuality.passages import spans_of_passages

LARGEST = 20_000_000
"""Bytes that a file may have."""
KEPT = 32_000_000
"""Characters of texts that stay in memory; what goes beyond is read from its file again when it is wanted."""
EVERY = 500
"""Files from one line of progress to the next."""

Say = Callable[[str], None]


class Texts:
    """Texts lately used, at most `limit` characters of them in all (the latest one is kept however long it is)."""

    def __init__(self, limit: int = KEPT) -> None:
        self.limit, self.size = limit, 0
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = Lock()  # several threads may ask the same documents

    def get(self, name: str) -> str | None:
        """The text that is kept under a name."""
        with self._lock:
            if name in self._texts:
                self._texts.move_to_end(name)
            return self._texts.get(name)

    def put(self, name: str, text: str) -> None:
        """Keep a text, and let go of those not used for longest."""
        with self._lock:
            self.size += len(text) - len(self._texts.pop(name, ""))
            self._texts[name] = text
            while self.size > self.limit and len(self._texts) > 1:
                self.size -= len(self._texts.popitem(last=False)[1])


@dataclass(frozen=True, eq=False)
class Document:
    """A text by the `name` of its file. It is read again when it is wanted and no longer kept; where the file has
    changed since it was read first, that is an `InputError`, for no quote from it could be trusted."""

    name: str
    encoding: str
    _path: Path = field(repr=False)
    _digest: bytes = field(repr=False)
    _texts: Texts = field(repr=False)

    @property
    def text(self) -> str:
        """All characters as decoded, without a byte order mark."""
        text = self._texts.get(self.name)
        if text is None:
            try:
                data = self._path.read_bytes()
            except OSError as error:
                raise _unreadable(Path(self.name), error) from None
            if _digest(data) != self._digest:
                raise InputError(f"{self.name}: the file has changed since it was read; read the documents again.")
            text = decoded(data, self.name, self.encoding).text
            self._texts.put(self.name, text)
        return text


class Passage(NamedTuple):
    """Characters [start, end) of a document: a paragraph, several short ones, or some sentences of a long one."""

    document: Document
    start: int
    end: int

    @property
    def text(self) -> str:
        """The passage's characters."""
        return self.document.text[self.start : self.end]


@dataclass(frozen=True, eq=False)
class Documents(Sequence[Document]):
    """Documents in order, their `passages`, and how many files were `skipped`, by kind ("PDF": 3)."""

    items: tuple[Document, ...]
    passages: tuple[Passage, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: int) -> Document:  # type: ignore[override]
        return self.items[place]

    def __iter__(self) -> Iterator[Document]:
        return iter(self.items)

    def told_by(self, given: Sequence[str | Path]) -> Documents:
        """The same under names that tell nothing of where they lie: within the one folder of `given`, or with the name
        of the folder or file first where there are several. For what is told to others than their owner."""
        names = _names_within([one.name for one in self.items], [Path(path) for path in given])
        texts = Texts(self.items[0]._texts.limit)
        renamed = {one.name: replace(one, name=names[one.name], _texts=texts) for one in self.items}
        for one in self.items:
            if (text := one._texts.get(one.name)) is not None:
                texts.put(names[one.name], text)
        passages = tuple(one._replace(document=renamed[one.document.name]) for one in self.passages)
        return Documents(tuple(renamed.values()), passages, self.skipped)

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> Documents:
        """Documents from texts by their names, all of them kept. `InputError` where no text has a character in it."""
        kept = Texts(sum(map(len, texts.values())))
        items = []
        for name, text in texts.items():
            if text.strip():
                kept.put(name, text)
                items.append(Document(name, "utf-8", Path(), b"", kept))
        if not items:
            raise InputError(f"there is nothing to read in {len(texts)} texts: give at least one with words in it.")
        return cls(tuple(items), tuple(passage for document in items for passage in passages_of(document)))


def _names_within(names: Sequence[str], given: Sequence[Path]) -> dict[str, str]:
    """A name of its own for each, as `Documents.told_by` has it."""
    roots: dict[Path, str] = {}
    for path in given:
        name = path.resolve().name
        while name in roots.values():
            name = f"{len(roots) + 1}-{name}"
        roots.setdefault(path, name)
    found = {}
    for name in names:
        root = next(path for path in roots if Path(name).is_relative_to(path))
        within = Path(name).relative_to(root)
        found[name] = str(within if len(roots) == 1 and within.parts else Path(roots[root], within))
    return found


def passages_of(document: Document) -> list[Passage]:
    """The passages of a document; see `passages.spans_of_passages`."""
    return [Passage(document, start, end) for start, end in spans_of_passages(document.text)]


def read_documents(
    paths: str | Path | Sequence[str | Path],
    *,
    encoding: str | None = None,
    say: Say | None = None,
    largest: int = LARGEST,
    kept: int = KEPT,
) -> Documents:
    """Read files, and all files of folders and their subfolders, sorted by name; each file once.

    A text is UTF-8, or what its byte order mark says (UTF-8, UTF-16, UTF-32); other bytes are taken for Windows-1252
    (Latin-1 where that has no such character), with one `UserWarning` that names files. `encoding` says what all are
    instead.

    In folders, hidden files, links back to where one came from and all that is no text are passed over: PDFs, images,
    archives, sound, other binary files, empty ones, those that may not be read, and those of more than `largest` bytes.
    `say` gets a line of progress every 500 files and at the end a line that counts these. Named by itself, such a file
    is an `InputError`, but for binary ones among several files: these are passed over with a warning.

    At most `kept` characters of text stay in memory, and a passage is three numbers: see `Document`.

    Raises `InputError` for paths that are not there, an encoding that does not exist or does not fit, and where nothing
    readable is found.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise InputError("no documents: give files or folders.")
    if encoding is not None:
        check_encoding(encoding)
    reading = _Reading(encoding, say or (lambda line: None), largest, Texts(kept))
    files = list(_files(given))
    for number, (path, named) in enumerate(files, 1):
        reading.read(path, named, alone=len(files) == 1)
        if number % EVERY == 0:
            reading.say(f"read {number:,} of {len(files):,} files")
    return reading.finished(given)


class _Reading:
    """Documents, passages and what was passed over so far."""

    def __init__(self, encoding: str | None, say: Say, largest: int, texts: Texts) -> None:
        self.encoding, self.say, self.largest, self.texts = encoding, say, largest, texts
        self.items: list[Document] = []
        self.passages: list[Passage] = []
        self.skipped: Counter[str] = Counter()
        self.guessed: list[str] = []

    def read(self, path: Path, named: bool, alone: bool) -> None:
        """One file: a document, or a reason to pass over it."""
        try:
            if (size := path.stat().st_size) > self.largest:
                self._refuse(path, f"{size:,} bytes, more than the {self.largest:,} that a document may have", named)
                return
            data = path.read_bytes()
        except OSError as error:
            if named:
                raise _unreadable(path, error) from None
            self.skipped["unreadable"] += 1
            return
        if kind := kind_of(data, self.encoding):
            self._pass_over(path, kind, named, alone)
            return
        found = decoded(data, str(path), self.encoding)
        if found.guessed:
            self.guessed.append(str(path))
        if not found.text.strip():
            self._pass_over(path, "empty", named, alone=True)
            return
        self.texts.put(str(path), found.text)
        document = Document(str(path), found.encoding, path.absolute(), _digest(data), self.texts)
        self.items.append(document)
        self.passages += passages_of(document)

    def _refuse(self, path: Path, reason: str, named: bool) -> None:
        message = f"{path} has {reason}."
        if named:
            raise InputError(message)
        self.say(f"skipped: {message}")
        self.skipped["too large"] += 1

    def _pass_over(self, path: Path, kind: str, named: bool, alone: bool) -> None:
        hint = "it must hold text." if kind == "empty" else "only text can be read; convert it first."
        message = f"{path}: the file is {kind if kind in ('binary', 'empty') else f'no text ({kind})'}: {hint}"
        if named and alone:
            raise InputError(message)
        if named:
            warnings.warn(f"{message} It is passed over.", stacklevel=4)
        self.skipped[kind] += 1

    def finished(self, given: Sequence[str | Path]) -> Documents:
        """All that was read, with the words that are to be said of it. `InputError` where it is nothing."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.skipped.items()))
        if not self.items:
            where = ", ".join(map(str, given[:3])) + (", …" if len(given) > 3 else "")
            raise InputError(f"{where}: there is no text to read" + (f" (skipped: {counts})." if counts else "."))
        if self.guessed:
            named = ", ".join(self.guessed[:3]) + (", …" if len(self.guessed) > 3 else "")
            warnings.warn(
                f"{named}: {len(self.guessed):,} of {len(self.items):,} files are not UTF-8 and were read as "
                "Windows-1252; say what they are with 'encoding', or convert them.",
                stacklevel=3,
            )
        self.say(
            f"{len(self.items):,} documents, {len(self.passages):,} passages" + (f"; skipped: {counts}" * bool(counts))
        )
        return Documents(tuple(self.items), tuple(self.passages), dict(self.skipped))


def _files(paths: Sequence[str | Path]) -> Iterator[tuple[Path, bool]]:
    """Each regular file once, and whether it was named itself. `InputError` for what is neither file nor folder."""
    seen: set[tuple[int, int]] = set()
    for given in paths:
        path = Path(given)
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(f"{path}: there are no documents there ({reason.lower()}).") from None
        if stat.S_ISDIR(status.st_mode):
            yield from ((file, False) for file in _walk(path, seen))
        elif not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} must be a file or a folder: a document is read more than once.")
        elif _is_new(status, seen):
            yield path, True


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The files of a folder, then those of its subfolders; links are followed, but no folder or file comes twice."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            if not _is_new(current.stat(), seen):
                continue
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            if current == folder:
                raise InputError(f"{folder}: the folder cannot be read ({error.strerror}).") from None
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                status = (current / entry.name).stat()
            except OSError:  # a link to nowhere, or to itself
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(current / entry.name)
            elif stat.S_ISREG(status.st_mode) and _is_new(status, seen):
                yield current / entry.name
        waiting += reversed(folders)


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read: {error.strerror}.")


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()
