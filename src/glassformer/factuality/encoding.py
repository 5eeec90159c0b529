"""What the bytes of a file are: a text in some encoding, or no text at all."""

from __future__ import annotations

import codecs
import encodings.aliases
from typing import NamedTuple

from glassformer.errors import InputError, did_you_mean

# The longer marks first: that of UTF-32 begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BEGINNINGS = (
    (b"%PDF-", "PDF"),
    (b"\x89PNG\r\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"PK\x03\x04", "archive"),  # and what word processors write
    (b"\x1f\x8b", "archive"),
    (b"BZh", "archive"),
    (b"\xfd7zXZ\x00", "archive"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"ID3", "sound"),
    (b"OggS", "sound"),
)
_INNER = ((b"WEBP", "image"), (b"WAVE", "sound"), (b"AVI ", "film"))  # after RIFF and four bytes of length
_CONTROLS = bytes(code for code in range(32) if chr(code) not in "\t\n\v\f\r\x1b\b")


class Decoded(NamedTuple):
    """A text without its byte order mark, in what it was written, and whether that was only guessed."""

    text: str
    encoding: str
    guessed: bool = False


def kind_of(data: bytes, encoding: str | None = None) -> str | None:
    """One word for bytes that are no text ("PDF", "image", "archive", "sound", "film", "binary"); None for text.

    Binary is what has a byte 0, unless an encoding or a byte order mark says that a character has more than one byte;
    or what is not UTF-8 and has more than one control character in 100.
    """
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data.startswith(b"RIFF"):
        return next((kind for mark, kind in _INNER if data[8:12] == mark), "binary")
    if encoding is not None or mark_of(data):
        return None
    if b"\0" in data:
        return "binary"
    if not _is_utf8(data) and len(data) - len(data.translate(None, _CONTROLS)) > len(data) / 100:
        return "binary"
    return None


def mark_of(data: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning stands for."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), None)


def check_encoding(name: str) -> None:
    """`InputError` for a name that is no encoding of text."""
    try:
        " ".encode(name).decode(name)
    except (LookupError, ValueError):
        hint = did_you_mean(name.lower().replace("-", "_"), {*encodings.aliases.aliases.values()})
        raise InputError(f"there is no encoding '{name}'; such are utf-8, utf-16, latin-1, cp1252.{hint}") from None


def decoded(data: bytes, where: str, encoding: str | None = None) -> Decoded:
    """Bytes as text. Without `encoding`: what a byte order mark says, else UTF-8, else Windows-1252 (Latin-1 where it
    has no such character). `InputError` at `where` for bytes that are not what the mark or `encoding` says."""
    marked = mark_of(data)
    name = encoding or marked
    if name is not None:
        return Decoded(_strict(data, name, where).removeprefix("\ufeff"), name)
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return Decoded(data.decode("cp1252"), "cp1252", guessed=True)
    except UnicodeDecodeError:
        return Decoded(data.decode("latin-1"), "latin-1", guessed=True)


def _strict(data: bytes, encoding: str, where: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start:,} is not {encoding} ({error.reason}); convert the file or give 'encoding'."
        ) from None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
