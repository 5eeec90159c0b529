"""Attention between words: the labelled sentences, and patterns over tokens put together to patterns over words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.layers.sites import record, sites
from glassformer.models.encoder import Encoder
from glassformer.text.tokenizer import Tokenizer

RELATIONS = ("determiner-noun", "subject-verb", "verb-object", "pronoun-antecedent")
"""Pairs of English words, the first of which should look at the second."""

TRANSLATION = "word-translation"
"""A German word and the English one that it stands for."""

_FILE = Path(__file__).parent / "relations.jsonl"


@dataclass(frozen=True)
class Labelled:
    """A sentence, perhaps its German translation, and for each relation pairs of places of words, from 0."""

    english: tuple[str, ...]
    german: tuple[str, ...]
    pairs: dict[str, tuple[tuple[int, int], ...]]


def read_labelled() -> list[Labelled]:
    """The sentences that come with the package: made up and labelled by hand, words and marks separated by spaces."""
    found = []
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        content = json.loads(line)
        names = [name for name in (*RELATIONS, TRANSLATION) if name in content]
        pairs = {name: tuple((int(first), int(second)) for first, second in content[name]) for name in names}
        found.append(Labelled(tuple(content["english"].split()), tuple(content.get("german", "").split()), pairs))
    return found


@dataclass(frozen=True)
class Side:
    """A sentence as a network reads it: ids, for each the place of its word (-1: of none), and how many words."""

    ids: list[int]
    word_of: list[int]
    words: int


def side(tokenizer: Tokenizer, words: Sequence[str], before: Sequence[int], after: Sequence[int]) -> Side:
    """The ids of a sentence as people write it (no space before a mark), between ids that belong to no word."""
    text, ends = "", []
    for word in words:
        text += word if word in ",." or not text else f" {word}"
        ends.append(len(text))
    ids, ranges = tokenizer.encode_spans(text)
    word_of = [next(place for place, end in enumerate(ends) if start < end) for start, _ in ranges]
    return Side([*before, *ids, *after], [-1] * len(before) + word_of + [-1] * len(after), len(words))


def over_words(pattern: Tensor, queries: Side, keys: Side) -> Tensor:
    """A pattern [H, Q, K] over tokens as one over words [H, W, V]: from a word the mean of its tokens, to a word the
    sum over its tokens (Clark et al. 2019, section 4.1). Tokens of no word are left out."""
    rows = _belongs(queries, pattern)
    rows = rows / rows.sum(1, keepdim=True).clamp_min(1)
    return rows @ pattern @ _belongs(keys, pattern).T


def _belongs(side: Side, like: Tensor) -> Tensor:
    """[words, tokens]: 1 where a token is part of a word."""
    word_of = torch.tensor(side.word_of)
    return (word_of == torch.arange(side.words)[:, None]).to(like.dtype)


@dataclass(frozen=True)
class Seen:
    """Patterns [L, H, Q, K] of all layers and heads of one kind of attention, and who looks at whom."""

    pattern: Tensor
    queries: Side
    keys: Side
    causal: bool = False


KINDS = {
    "encoder": "encoder.self_attention.pattern",
    "decoder": "decoder.self_attention.pattern",
    "cross-attention": "decoder.cross_attention.pattern",
    "sentence encoder": "self_attention.pattern",
}
"""Every kind of attention that is looked at, and what its sites begin with."""


class Watched:
    """A translator or an encoder whose patterns are kept as it reads labelled sentences."""

    def __init__(self, network: nn.Module, tokenizer: Tokenizer) -> None:
        names = [name for name in sites(network) if "attention.pattern" in name]
        self.names = {kind: [name for name in names if name.startswith(begin)] for kind, begin in KINDS.items()}
        self.network, self.values = record(network.eval(), names)
        self.tokenizer = tokenizer
        self.config: Any = network.config

    @torch.no_grad()
    def read(self, sentence: Labelled) -> dict[str, Seen]:
        """The patterns of each kind of attention; those of a decoder only where there is a translation to write.

        A row of cross-attention belongs to the word that is written there, one of the decoder's self-attention to the
        one that is read.
        """
        network: Any = self.network
        if isinstance(network, Encoder):
            framed = self.tokenizer.frame([-1])
            place = framed.index(-1)
            english = side(self.tokenizer, sentence.english, framed[:place], framed[place + 1 :])
            network.hidden(torch.tensor([english.ids]))
            return {"sentence encoder": self._seen("sentence encoder", english, english)}
        bos, eos = self.config.bos_id, self.config.eos_id
        english = side(self.tokenizer, sentence.english, [], [eos])
        source = torch.tensor([english.ids])
        if not sentence.german:
            network.encode(source)
            return {"encoder": self._seen("encoder", english, english)}
        read = side(self.tokenizer, sentence.german, [bos], [])
        written = side(self.tokenizer, sentence.german, [], [eos])
        network(source, torch.tensor([read.ids]))
        return {
            "encoder": self._seen("encoder", english, english),
            "decoder": self._seen("decoder", read, read, causal=True),
            "cross-attention": self._seen("cross-attention", written, english),
        }

    def _seen(self, kind: str, queries: Side, keys: Side, causal: bool = False) -> Seen:
        return Seen(torch.stack([self.values[name][0] for name in self.names[kind]]), queries, keys, causal)
