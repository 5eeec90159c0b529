"""BERT's tokenizer (Devlin et al. 2019), trained on one's own text: words cut into the longest known pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from glassformer.errors import InputError
from glassformer.text.tokenizer import Tokenizer

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


PREFIX = "##"
"""What a piece begins with that goes on with a word."""


def train_wordpiece(
    texts: Iterable[str], vocab_size: int = 8000, min_frequency: int = 2, lowercase: bool = False
) -> Tokenizer:
    """Learn a vocabulary of at most `vocab_size` tokens from `texts`; the same texts give the same tokenizer.

    Text is cleaned and, with `lowercase`, lowercased with accents stripped; words and marks are cut into pieces, of
    which all but the first of a word begin with `##`. At most a quarter of the vocabulary are letters, the most
    frequent; a word with another is `[UNK]`. Framed text is `[CLS] text [SEP]`. Raises `InputError` where `vocab_size`
    leaves no room beside the special tokens, and for texts without any letter.
    """
    if vocab_size < len(SPECIALS) + 2:  # a letter, at the beginning of a word and within it
        raise InputError(
            f"'vocab_size' must be at least {len(SPECIALS) + 2}, with {len(SPECIALS)} special tokens; got {vocab_size}."
        )
    texts = list(texts)
    backend = _backend({}, lowercase)
    first, inner = _letters(backend, texts, max(1, (vocab_size - len(SPECIALS)) // 4))
    if not first:
        raise InputError("a tokenizer cannot be trained on texts without any token; check the training files.")
    # The trainer numbers letters in the random order of its hash tables and breaks ties by these numbers, so it is
    # given all of them in an order of ours: as special tokens, the only ones that it takes as they come.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[*SPECIALS, *first, *(PREFIX + letter for letter in inner)],
        initial_alphabet=first,
        limit_alphabet=len(first),
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(_framed(_backend(backend.get_vocab(), lowercase)))


def _backend(vocabulary: dict[str, int], lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's way of cutting text into words, with this vocabulary of pieces."""
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=PREFIX)  # type: ignore[call-arg]
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=PREFIX)
    return backend


def _framed(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    backend.add_special_tokens(list(SPECIALS))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return backend


def _letters(backend: tokenizers.Tokenizer, texts: list[str], most: int) -> tuple[list[str], list[str]]:
    """The `most` frequent letters of the words of texts, and those of them that stand within words, both in order."""
    spaced = Counter(word for text in texts for word in backend.normalizer.normalize_str(text).split())
    counts: Counter[str] = Counter()
    inner: set[str] = set()
    for word, count in spaced.items():
        for part, _ in backend.pre_tokenizer.pre_tokenize_str(word):
            inner.update(part[1:])
            for letter in part:
                counts[letter] += count
    kept = sorted(sorted(counts), key=counts.__getitem__, reverse=True)[:most]
    return sorted(kept), sorted(inner.intersection(kept))
