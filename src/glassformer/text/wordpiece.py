"""BERT's tokenizer (Devlin et al. 2019), trained on one's own text: words cut into the longest known pieces."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from glassformer.errors import InputError
from glassformer.text.tokenizer import Tokenizer

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(
    texts: Iterable[str], vocab_size: int = 8000, min_frequency: int = 2, lowercase: bool = False
) -> Tokenizer:
    """Learn a vocabulary of at most `vocab_size` tokens from `texts`; the same texts give the same tokenizer.

    Text is cleaned and, with `lowercase`, lowercased with accents stripped; words and marks are cut into pieces, of
    which all but the first of a word begin with `##`. Framed text is `[CLS] text [SEP]`. Raises `InputError` where
    `vocab_size` leaves no room beside the special tokens.
    """
    if vocab_size <= len(SPECIALS):
        raise InputError(f"'vocab_size' must be more than the {len(SPECIALS)} special tokens, got {vocab_size}.")
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIALS),
        limit_alphabet=max(1, (vocab_size - len(SPECIALS)) // 4),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    if backend.get_vocab_size() == len(SPECIALS):
        raise InputError("a tokenizer cannot be trained on texts without any token; check the training files.")
    return Tokenizer(backend)
