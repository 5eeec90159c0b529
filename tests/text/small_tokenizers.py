"""Tokenizers of every kind, small and made here (GPT-2's is the real one where its files are there)."""

import os
from functools import cache
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from glassformer.text.pretrained import read_tokenizer
from glassformer.text.tokenizer import Tokenizer

TEXTS = [
    "A man in a blue shirt is riding a bike.",
    "Two dogs, one brown & one white, don't play (together)...",
    "ein mann fährt fahrrad , sagt man &apos;s t-shirt .",
    "Zwei junge Männer: „Was für ein Tag!“",
    "24. November 2026 — ٢٤ نوفمبر ٢٠٢٦ 2026年11月24日",
] * 3

SHARED = Path(os.environ.get("GLASSFORMER_SHARED") or Path(__file__).parents[2] / ".." / "shared")
GPT2 = SHARED / "data" / "gpt2_bpe"


@cache
def byte_level():
    """The real GPT-2 tokenizer where it is there, else one of single bytes: streams must work with both."""
    if GPT2.is_dir():
        return read_tokenizer(GPT2)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend)


@cache
def wordpiece():
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdef",
        *(f"##{c}" for c in "abcdef"),
        ",",
        ".",
        "'",
        "##bc",
    ]
    backend = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(words[:5])
    return Tokenizer(backend)


@cache
def fallback():
    """Unigram with byte tokens, decoded as Llama's are."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁a", -2.0), ("b", -2.0), ("</", -4.0), ("s>", -4.0)]
    pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, 0, True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(backend)


@cache
def own(kind):
    return Tokenizer.train(TEXTS, kind, vocab_size=400, min_frequency=1)


ALL = {
    "gpt2": byte_level,
    "wordpiece": wordpiece,
    "fallback": fallback,
    "bpe": lambda: own("bpe"),
    "word": lambda: own("word"),
    "character": lambda: own("character"),
}
