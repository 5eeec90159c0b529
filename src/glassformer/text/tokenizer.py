"""Tokenizers: words, characters or byte-pair encoding (Sennrich 2016), around the library `tokenizers`.

The first four ids are the same in all of them: padding, beginning, end, unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from glassformer.errors import InputError, did_you_mean

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
KINDS = ("bpe", "word", "character")
Kind = Literal["bpe", "word", "character"]

# Punctuation stands alone, with the space before it if there is one, so that "Yes, sir." and its Moses-tokenised form
# "Yes , sir ." cost equally many tokens. Moses' escapes (&apos;) are one symbol, a run of the same mark is one ("..."),
# and marks inside a word (t-shirt, don't, u.s) stay with it: there the merges decide.
_PUNCTUATION = r"▁?&(?:amp|apos|quot|lt|gt|#\d+);|▁?(?!(?<=[\p{L}\p{N}])[-'’.](?=[\p{L}\p{N}]))(\p{P})\1*"


class Tokenizer:
    """Text to ids and back. Made by `Tokenizer.train` or `Tokenizer.load`.

    No method adds the beginning or the end of a sentence; batches do. Text that happens to spell a special token
    (`"</s>"`) is never read as one.
    """

    def __init__(self, backend: tokenizers.Tokenizer):
        for wanted, name in enumerate(SPECIALS):
            if backend.token_to_id(name) != wanted:
                raise InputError(
                    f"the tokenizer must have {name} as id {wanted}, it has {backend.token_to_id(name)}; "
                    "train one with glassformer."
                )
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend

    @classmethod
    def train(
        cls, texts: Iterable[str], kind: Kind = "bpe", vocab_size: int = 8000, min_frequency: int = 2
    ) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens from `texts`: the same texts give the same tokenizer.

        `bpe`: the space before a word is part of it, written ▁; text with single spaces comes back as it was.
        `word`: what stands between white space. `character`: every character, spaces too.
        Merges, words and characters that occur less than `min_frequency` times are left out (BPE keeps all characters
        that fit into the vocabulary, the most frequent first); what has no token becomes `<unk>`.
        """
        if kind not in KINDS:
            raise InputError(f"'tokenizer' must be one of {', '.join(KINDS)}, got '{kind}'.{did_you_mean(kind, KINDS)}")
        if vocab_size <= len(SPECIALS):
            raise InputError(f"'vocab_size' must be more than the {len(SPECIALS)} special tokens, got {vocab_size}.")
        backend, trainer = _parts(kind, vocab_size, min_frequency)
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() == len(SPECIALS):
            raise InputError("a tokenizer cannot be trained on texts without any token; check the training files.")
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without specials (`<unk>` excepted)."""
        return _plain(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once, in parallel."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [_plain(encoding.ids) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: padding, beginning and end are skipped, an unknown token shows as `<unk>`."""
        return str(self._backend.decode([int(i) for i in ids if i > EOS], skip_special_tokens=False))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Each id's token as the vocabulary writes it, specials too: for pictures and alignments."""
        names = [self._backend.id_to_token(int(i)) for i in ids]
        if None in names:
            raise InputError(f"ids must lie in [0, {self.vocab_size}), the size of this vocabulary.")
        return cast("list[str]", names)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, specials included: ids lie in [0, vocab_size)."""
        return int(self._backend.get_vocab_size())

    @property
    def kind(self) -> Kind:
        """`bpe`, `word` or `character`."""
        if isinstance(self._backend.model, models.BPE):
            return "bpe"
        return "word" if isinstance(self._backend.pre_tokenizer, pre_tokenizers.WhitespaceSplit) else "character"

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, the format of Hugging Face `tokenizers`."""
        Path(path).write_text(self._backend.to_str(pretty=True), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read what `save` wrote. Raises `InputError` if the file is missing, broken, or has other special tokens."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such tokenizer file.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not a tokenizer file: it is not UTF-8 text ({error.reason}).") from None
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for any broken file
            raise InputError(f"{path}: not a whole tokenizer file ({error}); copy or train it again.") from None
        try:
            return cls(backend)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._backend.to_str() == other._backend.to_str()

    def __hash__(self) -> int:
        return hash(self._backend.to_str())

    def __repr__(self) -> str:
        return f"Tokenizer({self.kind}, {self.vocab_size} tokens)"


def _plain(ids: list[int]) -> list[int]:
    """Text never gives a special id: a word spelled `</s>` is unknown, not the end."""
    return [i if i > EOS else UNK for i in ids]


def _parts(kind: Kind, vocab_size: int, min_frequency: int) -> tuple[tokenizers.Tokenizer, Any]:
    """An untrained tokenizer of this kind and the trainer for it."""
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "special_tokens": list(SPECIALS),
        "show_progress": False,
    }
    if kind == "bpe":
        backend = tokenizers.Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
                pre_tokenizers.Split(Regex(_PUNCTUATION), behavior="isolated"),
            ]
        )
        backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        return backend, trainers.BpeTrainer(limit_alphabet=vocab_size - len(SPECIALS), **common)
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIALS[UNK]))
    if kind == "word":
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        backend.decoder = decoders.Fuse()
    return backend, trainers.WordLevelTrainer(**common)
