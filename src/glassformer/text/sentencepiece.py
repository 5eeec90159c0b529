"""SentencePiece models (Kudo and Richardson 2018): a bounded reader of their files, and the equal tokenizer.

The file is one protobuf message, `ModelProto`. Only what decides the ids is read: the pieces with their scores and
types, the kind of model, and how text is normalised.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from glassformer.errors import InputError
from glassformer.text.roles import ROLES

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
LARGEST_FILE = 256 * 2**20
_NEVER = -1e6  # the score of a piece that text must not be cut into while others do
_KINDS = {1: "unigram", 2: "bpe"}

# Models whose ids are not those of their SentencePiece file: each moves them in a way of its own.
_MOVED = ("camembert", "mbart", "mbart50", "nllb", "m2m100", "pegasus", "xglm", "barthez", "plbart", "speech2text")


@dataclass(frozen=True)
class Pieces:
    """A vocabulary of pieces, in the order of their ids, and how text is cut into them.

    `pieces`: text, score and type (`NORMAL`...) of each. `kind`: `unigram` (the likeliest cut) or `bpe` (the highest
    score is merged first). `charsmap`: the compiled map of characters, empty for none. `prefix`: a space is put before
    the text. `tidy`: spaces around the text are dropped and runs of them become one.
    """

    pieces: tuple[tuple[str, float, int], ...]
    kind: str = "unigram"
    charsmap: bytes = b""
    prefix: bool = True
    tidy: bool = True


def read_pieces(path: str | Path) -> Pieces:
    """Read a SentencePiece model file. Raises `InputError` where it is not a whole one, or of a kind not known here."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _Broken(f"it has more than {LARGEST_FILE >> 20} MiB")
        return _model(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: the SentencePiece model cannot be read ({error.strerror}).") from None
    except (_Broken, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a whole SentencePiece model: {error}; copy it again.") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def pieces_backend(model: Pieces) -> tokenizers.Tokenizer:
    """The library's tokenizer that cuts as SentencePiece does. Control pieces are special tokens; those that the user
    defined are read wherever the text has them.

    Raises `InputError` for pieces that are empty, given twice or without a finite score, for a vocabulary without one
    unknown piece, and for a broken map of characters.
    """
    _check(model)
    texts = [text for text, _, _ in model.pieces]
    unknown = next(i for i, (_, _, type) in enumerate(model.pieces) if type == UNKNOWN)
    has_bytes = any(type == BYTE for _, _, type in model.pieces)
    if model.kind == "unigram":
        scored = [(text, _NEVER if type == UNUSED else score) for text, score, type in model.pieces]
        backend = tokenizers.Tokenizer(models.Unigram(scored, unknown, has_bytes))
    else:
        vocab = {text: i for i, text in enumerate(texts)}
        backend = tokenizers.Tokenizer(
            models.BPE(vocab, _merges(model), unk_token=texts[unknown], fuse_unk=True, byte_fallback=has_bytes)
        )
    backend.normalizer = _normalizer(model)
    if not any("▁" in text[1:] for text, _, type in model.pieces if type == NORMAL):
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=True)  # cuts never cross
    steps: list[Any] = [decoders.Replace("▁", " "), *([decoders.ByteFallback()] if has_bytes else []), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if model.prefix else [])])
    backend.add_tokens(
        [
            AddedToken(text, normalized=False, special=type != USER_DEFINED)
            for text, _, type in model.pieces
            if type in (UNKNOWN, CONTROL, USER_DEFINED)
        ]
    )
    return backend


def file_backend(
    path: Path, family: str, flag: Callable[[str, bool], bool], specials: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """The tokenizer of one SentencePiece file in a model's folder, with its frame.

    `family`: the model's type without marks ("xlmroberta"). `flag(name, default)`: what the folder says. `specials`:
    tokens by role. Without a word from them, `tokenizer.model` (Llama) begins a text, other files (T5) end it.
    """
    if family in _MOVED:
        raise InputError(f"{path}: the ids of '{family}' are not those of its file; convert it to tokenizer.json.")
    model = read_pieces(path)
    names = {text for text, _, _ in model.pieces}
    if family == "xlmroberta":
        return xlm_roberta_backend(model)
    if {"[CLS]", "[SEP]"} <= names:
        return albert_backend(model, flag("do_lower_case", True), flag("keep_accents", False))
    told = [(specials.get(role, ""), *ROLES[role]) for role in ("bos", "eos")]
    bos, eos = (next((token for token in spellings if token in names), None) for spellings in told)
    llama = path.name == "tokenizer.model"
    begins, ends = flag("add_bos_token", llama), flag("add_eos_token", not llama)
    return around(pieces_backend(model), bos if begins else None, eos if ends else None)


def pieces_from_gguf(data: Mapping[str, Any], tokens: list[str], scores: list[float], unknown: str | None) -> Pieces:
    """The pieces that a GGUF file's metadata describes (its keys without `tokenizer.ggml.`); `unknown` names the
    unknown piece where the types do not."""
    if len(scores) != len(tokens):
        raise InputError("a GGUF file must have as many scores as tokens; get the file again.")
    types = list(data["token_type"])
    if UNKNOWN not in types and unknown is not None:
        types[tokens.index(unknown)] = UNKNOWN
    return Pieces(
        pieces=tuple(zip(tokens, scores, types, strict=True)),
        kind="unigram" if data["model"] == "t5" else "bpe",
        charsmap=bytes(int(byte) & 255 for byte in data.get("precompiled_charsmap", ())),
        prefix=bool(data.get("add_space_prefix", True)),
        tidy=bool(data.get("remove_extra_whitespaces", False)),
    )


def xlm_roberta_backend(model: Pieces) -> tokenizers.Tokenizer:
    """XLM-R's: its own first four ids instead of the file's first three, and a mask at the end."""
    first = [(text, 0.0, CONTROL) for text in ("<s>", "<pad>", "</s>")] + [("<unk>", 0.0, UNKNOWN)]
    backend = pieces_backend(replace(model, pieces=(*first, *model.pieces[3:], ("<mask>", 0.0, CONTROL))))
    return frame(backend, ["<s>", "$A", "</s>"], ["<s>", "$A", "</s>", "</s>", "$B", "</s>"])


def albert_backend(model: Pieces, lower: bool, accents: bool) -> tokenizers.Tokenizer:
    """ALBERT's: quotes made alike, accents dropped unless `accents`, lowercased if `lower`; [CLS] and [SEP] around."""
    backend = pieces_backend(model)
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [] if accents else [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if lower else []
    backend.normalizer = normalizers.Sequence([*steps, backend.normalizer])
    return frame(backend, ["[CLS]", "$A", "[SEP]"], ["[CLS]", "$A", "[SEP]", "$B:1", "[SEP]:1"])


def marian_backend(source: Path, vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """Marian's: ids from `vocab`, pieces from the file of the source language. Pieces of the target alone have ids, but
    text is not cut into them as long as other pieces do. `>>xx<<` names a language."""
    if sorted(vocab.values()) != list(range(len(vocab))) or not {"<unk>", "</s>"} <= vocab.keys():
        raise InputError("vocab.json must give the ids from 0 on, <unk> and </s> among them; copy it again.")
    model = read_pieces(source)
    scores = {text: score for text, score, type in model.pieces if type == NORMAL}
    types = {"<unk>": UNKNOWN, "</s>": CONTROL, "<pad>": CONTROL}
    types |= {token: USER_DEFINED for token in vocab if token.startswith(">>") and token.endswith("<<")}
    pieces = tuple(
        (text, scores.get(text, 0.0), types.get(text, NORMAL if text in scores else UNUSED))
        for text in sorted(vocab, key=vocab.__getitem__)
    )
    return frame(pieces_backend(replace(model, pieces=pieces)), ["$A", "</s>"], ["$A", "$B", "</s>"])


def around(backend: tokenizers.Tokenizer, before: str | None, after: str | None) -> tokenizers.Tokenizer:
    """`frame` with these tokens before and after each of one or two texts; None for nothing."""
    first, last = [before] if before is not None else [], [after] if after is not None else []
    if not first and not last:
        return backend
    second = [f"{part}:1" for part in (*first, "$B", *last)]
    return frame(backend, [*first, "$A", *last], [*first, "$A", *last, *second])


def frame(backend: tokenizers.Tokenizer, single: list[str], pair: list[str]) -> tokenizers.Tokenizer:
    """Give `backend` what stands around one text `$A` and around two, `$A` and `$B`; `:1` marks the second segment."""
    specials = {part.removesuffix(":1") for part in (*single, *pair) if not part.startswith("$")}
    known = [(token, backend.token_to_id(token)) for token in sorted(specials)]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=known)
    return backend


def _check(model: Pieces) -> None:
    texts = {text for text, _, _ in model.pieces}
    if len(texts) != len(model.pieces) or "" in texts:
        raise InputError("the pieces of a vocabulary must differ and not be empty; copy the file again.")
    if not all(math.isfinite(score) for _, score, _ in model.pieces):
        raise InputError("the scores of the pieces must be finite numbers; copy the file again.")
    if sum(type == UNKNOWN for _, _, type in model.pieces) != 1:
        raise InputError("a vocabulary of pieces must have one unknown piece (type 2); copy the file again.")


def _normalizer(model: Pieces) -> Any:
    steps: list[Any] = []
    if model.charsmap:
        _check_charsmap(model.charsmap)
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.tidy:
        steps.append(normalizers.Replace(Regex(r"\A +|[ ▁]+\z| +(?= )"), ""))
    if model.prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def _merges(model: Pieces) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the highest score first: what SentencePiece's BPE does, as a list."""
    known = {text for text, _, type in model.pieces if type in (NORMAL, USER_DEFINED)}
    ranked = sorted((-score, i, text) for i, (text, score, _) in enumerate(model.pieces) if text in known)
    return [
        (text[:cut], text[cut:])
        for _, _, text in ranked
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]


def _check_charsmap(charsmap: bytes) -> None:
    """The map is a double-array trie whose values are places in a text of replacements. Every step and every value must
    stay inside: the library that walks it does not look."""
    wrong = InputError("the map of characters of the SentencePiece model is broken; copy the file again.")
    size = int.from_bytes(charsmap[:4], "little")
    if len(charsmap) < 8 or size % 4 or size == 0 or size > len(charsmap) - 4:
        raise wrong
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    texts = charsmap[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        raise wrong from None
    inner = units < 2**31
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    reached = np.arange(len(units)) ^ offsets
    values = reached[inner & ((units >> 8) & 1 == 1)]
    if (reached[inner] | 0xFF).max(initial=0) >= len(units) or values.max(initial=0) >= len(units):
        raise wrong
    places = units[values] & (2**31 - 1)
    starts = np.append((np.frombuffer(texts, np.uint8) & 0xC0) != 0x80, True)  # not inside a character
    if places.max(initial=0) >= len(starts) or not starts[places].all():
        raise wrong


# --- The file -------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """The bytes are not a message of the expected form."""


def _model(data: bytes) -> Pieces:
    pieces = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_bytes(value)))
        elif number == 2:
            trainer = dict(_fields(_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_bytes(value)))
    if not pieces:
        raise _Broken("it has no pieces")
    kind = trainer.get(3, 1)
    if kind not in _KINDS or trainer.get(24, 0) or not normalizer.get(5, 1):
        raise InputError(
            "the SentencePiece model must be 'unigram' or 'bpe' with escaped white space before the words; "
            f"this one is of type {kind}. Convert it to tokenizer.json with the library that it was made for."
        )
    return Pieces(
        pieces=tuple(pieces),
        kind=_KINDS[kind],
        charsmap=_bytes(normalizer.get(2, b"")),
        prefix=bool(normalizer.get(3, 1)),
        tidy=bool(normalizer.get(4, 1)),
    )


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, type = b"", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _bytes(value)
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            type = value
    return text.decode("utf-8"), score, type


def _bytes(value: int | float | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Broken("a field has another type than it must")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of one protobuf message: number and value (a varint, bytes, or four bytes read as a float)."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at)
        if size is None or size > end - at:
            raise _Broken(f"a field at byte {at} does not fit")
        part = data[at : at + size]
        at += size
        yield key >> 3, struct.unpack("<f", part)[0] if wire == 5 else part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _Broken(f"a number at byte {at} does not end")
