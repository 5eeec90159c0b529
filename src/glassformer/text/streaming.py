"""Decoding ids as they come: the new text of each, as soon as no later id can change it."""

from __future__ import annotations

import codecs
import json
from functools import cache
from typing import Any, Literal

from glassformer.text.tokenizer import Tokenizer


class TextStream:
    """Decodes ids as they come. What `push` and `finish` return, joined, is `tokenizer.decode` of all ids.

    `push` returns the new text that no later id can change: nothing of a character before all its bytes are there.
    The work per id does not grow with the length of the text. Some decoders give their text later: byte tokens
    (`<0xE2>`, of SentencePiece) wait for the first token that is none, since an invalid byte changes what its
    neighbours show; and a decoder that this class does not know gives all of its text at `finish`.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_specials: bool = True):
        self._tokenizer = tokenizer
        self._hidden = tokenizer._hidden if skip_specials else frozenset()
        self._way = _way_of_decoding(tokenizer._backend.decoder)
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._context: list[int] = []  # the last id that was given out: decoders treat a first token otherwise
        self._held: list[int] = []

    def push(self, id: int) -> str:
        """Take the next id; return the text that is final now and was not before, often `""`."""
        id = int(id)
        token = None if id < 0 or id in self._hidden else self._tokenizer._backend.id_to_token(id)
        if not token:
            return ""
        if self._way == "bytes":
            return self._bytes.decode(_token_bytes(token))
        self._held.append(id)
        waits = self._way == "whole" or (self._way == "fallback" and len(token) == 6 and token.startswith("<0x"))
        return "" if waits else self._give()

    def finish(self) -> str:
        """The text that was still held back; the stream then begins anew."""
        text = self._give() + self._bytes.decode(b"", final=True)
        self._context = []
        return text

    def _give(self) -> str:
        """The text of the ids that are held."""
        before = self._tokenizer.decode(self._context, skip_specials=False)
        text = self._tokenizer.decode(self._context + self._held, skip_specials=False)
        self._context, self._held = self._held[-1:] or self._context, []
        return text[len(before) :]


def token_bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """What one id adds to a text that goes on, in UTF-8, where it may be a part of a character: `b" dog"` for GPT-2's
    `Ġdog`. A special token is spelled out; an id without a token has none."""
    token = None if id < 0 else tokenizer._backend.id_to_token(id)
    if not token:
        return b""
    if id in tokenizer.special_ids:
        return token.encode()
    if _way_of_decoding(tokenizer._backend.decoder) == "bytes":
        return _token_bytes(token)
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    once, twice = (tokenizer.decode([id] * times, skip_specials=False) for times in (1, 2))
    return twice[len(once) :].encode()


def _way_of_decoding(decoder: Any) -> Literal["bytes", "fallback", "window", "whole"]:
    """How ids can be decoded one by one: by their bytes; each beside the one before it (`window`; `fallback`: runs of
    byte tokens at once); or only all together."""
    if decoder is None:
        return "window"
    parts = _flat(json.loads(decoder.__getstate__()))
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"]:
        return "bytes"
    fused = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    for place, part in enumerate(parts):
        alone = part["type"] in ("Metaspace", "WordPiece", "BPEDecoder", "ByteFallback", "Fuse")
        each = part["type"] in ("Replace", "Strip") and place < fused
        first = part["type"] == "Strip" and part["start"] <= 1 and part["stop"] == 0
        if not (alone or each or first):
            return "whole"
    return "fallback" if "ByteFallback" in kinds else "window"


def _flat(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [part for inner in decoder["decoders"] for part in _flat(inner)]


def _token_bytes(token: str) -> bytes:
    """The bytes that a byte-level token writes as letters; a token with other characters stands for itself."""
    letters = _byte_letters()
    try:
        return bytes(letters[letter] for letter in token)
    except KeyError:
        return token.encode()


@cache
def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet: a byte that prints is its own letter, the others follow from U+0100 on."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + n): byte for n, byte in enumerate(others)}
