"""A tiny network of every family with random weights, texts of unequal lengths for it, and how its values are read
without the package's own tracing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import contracts
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glassformer.layers.sites import planned, sites
from glassformer.models.config import (
    AnyConfig,
    Classification,
    Config,
    ConvolutionalConfig,
    Learned,
    MaskedLM,
    RecurrentConfig,
    Relative,
    Rotary,
    Sentence,
    Tagging,
)
from glassformer.models.families import TEXT_TO_TEXT, network_class

WORDS = 40
GPT = Config(
    WORDS,
    d_model=16,
    n_heads=4,
    d_ff=24,
    n_encoder_layers=0,
    n_decoder_layers=3,
    positions=Learned(),
    max_length=160,
    norm_first=True,
    dropout=0.0,
    init_std=0.35,
)
BERT = replace(GPT, n_encoder_layers=2, n_decoder_layers=0, norm_first=False, head=MaskedLM())
LSTM = RecurrentConfig(WORDS, d_model=16, n_encoder_layers=2, n_decoder_layers=2, max_length=64, dropout=0.0)
CONFIGS: dict[str, AnyConfig] = {
    "learned positions": GPT,
    "rotary, shared keys": replace(
        GPT, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False, tie_head=False
    ),
    "relative positions": replace(GPT, positions=Relative(8, 16), scale_scores=False),
    "post-norm": replace(GPT, norm_first=False, head_bias=True),
    "word head": BERT,
    "classifier": replace(BERT, head=Classification(("a", "b", "c")), pooler=True),
    "tagger": replace(BERT, head=Tagging(("a", "b", "c"))),
    "sentence": replace(BERT, head=Sentence()),
    "encoder-decoder": replace(GPT, n_encoder_layers=2, n_decoder_layers=2, norm_first=False),
    "T5": replace(GPT, n_encoder_layers=2, n_decoder_layers=2, positions=Relative(8, 16), norm="rms", scale_head=True),
    "two vocabularies": replace(GPT, n_encoder_layers=2, n_decoder_layers=2, source_vocab_size=50, n_kv_heads=2),
    "LSTM": LSTM,
    "input feeding": replace(LSTM, input_feeding=True, attention="additive"),
    "without attention": replace(LSTM, attention="none"),
    "convolutional": ConvolutionalConfig(
        WORDS, d_model=16, n_encoder_layers=2, n_decoder_layers=2, max_length=64, dropout=0.0
    ),
}
DECODERS = ["learned positions", "rotary, shared keys", "relative positions", "post-norm"]


@dataclass(frozen=True)
class Case:
    """A network with texts, and targets where it reads two."""

    network: Any
    rows: list[list[int]]
    targets: list[list[int]] | None

    @property
    def given(self) -> dict[str, Any]:
        """What `trace` and its like are called with."""
        return {"given": self.rows, "target": self.targets}

    @property
    def batch(self) -> tuple[Tensor, ...]:
        """All texts as one padded batch."""
        sides = [self.rows] if self.targets is None else [self.rows, self.targets]
        return tuple(padded(side) for side in sides)

    @property
    def text_lengths(self) -> list[int]:
        """The lengths of what is written, or read where there is one text."""
        return [len(row) for row in (self.targets or self.rows)]

    @property
    def lengths(self) -> list[int]:
        """The lengths of what is read."""
        return [len(row) for row in self.rows]


@cache
def case(name: str, lengths: tuple[int, ...] = (5, 7, 3, 7), target_lengths: tuple[int, ...] = (4, 2, 6, 6)) -> Case:
    torch.manual_seed(0)
    config = CONFIGS[name]
    network = contracts.drawn(network_class(config)(config)).eval()
    with torch.no_grad():
        if not isinstance(config, Config):  # fresh states are small, and hide what changes them
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2)
    both = isinstance(network, TEXT_TO_TEXT)
    rows = [contracts.random_ids(1, length, WORDS, seed=i)[0].tolist() for i, length in enumerate(lengths)]
    targets = [contracts.random_ids(1, n, WORDS, seed=50 + i)[0].tolist() for i, n in enumerate(target_lengths)]
    return Case(network, rows, targets if both else None)


def padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def real(lengths: list[int]) -> Tensor:
    """[n, T], where there are tokens."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def recorded(network: Any, batch: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], Tensor]:
    """The value of every site in a run of the batch, each firing behind the one before; and the logits."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[Tensor], Tensor]:
        def function(value: Tensor) -> Tensor:
            found.setdefault(name, []).append(value.detach().clone())
            return value

        return function

    with torch.no_grad():
        logits = planned(network, {name: keep(name) for name in sites(network)})(*batch).logits
    values = {
        name: parts[0] if len(parts) == 1 else torch.cat(parts, parts[0].ndim - 2) for name, parts in found.items()
    }
    return values, logits


def expressions(network: Any) -> dict[str, list[str]]:
    """Every site as an expression of all its layers, with the names of its sites."""
    found: dict[str, list[str]] = {}
    for name in sites(network):
        base, bracket, _ = name.partition("[")
        found.setdefault(f"{base}[*]" if bracket else base, []).append(name)
    return found


def sides(name: str, this: Case) -> tuple[list[int], list[int]]:
    """The lengths of the texts in which a site's positions, and its keys, count."""
    if name.startswith("encoder."):
        return this.lengths, this.lengths
    if "cross_attention" in name:
        source = name.partition("[")[0].endswith((".key", ".value"))
        return (this.lengths if source else this.text_lengths), this.lengths
    return this.text_lengths, this.text_lengths
