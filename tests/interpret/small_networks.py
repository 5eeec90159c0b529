"""Small Transformers with random weights, biases and norms drawn too, for tests of what is read off them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import contracts
import torch
from torch import Tensor

from glassformer.models.config import Config, Learned, MaskedLM, Relative, Rotary
from glassformer.models.families import network_class

GPT = Config(
    vocab_size=40,
    d_model=32,
    n_heads=4,
    d_ff=48,
    n_encoder_layers=0,
    n_decoder_layers=3,
    positions=Learned(),
    max_length=64,
    norm_first=True,
    dropout=0.0,
    init_std=0.3,
)
CONFIGS = {
    "GPT": GPT,
    "Llama": replace(
        GPT, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False, tie_head=False
    ),
    "biased": replace(GPT, embedding_norm=True, head_bias=True, n_segments=2),
    "paper's decoder": replace(GPT, norm_first=False, head_bias=True),
    "pre-norm": replace(GPT, n_encoder_layers=2, n_kv_heads=2),
    "paper": replace(GPT, n_encoder_layers=2, norm_first=False),
    "T5": replace(
        GPT, n_encoder_layers=2, positions=Relative(8, 16), norm="rms", bias=False, scale_head=True, scale_scores=False
    ),
    "BERT": replace(GPT, n_encoder_layers=3, n_decoder_layers=0, norm_first=False, head=MaskedLM(), head_bias=True),
}
DECODING = [name for name in CONFIGS if name != "BERT"]


@cache
def network_of(name: str) -> Any:
    torch.manual_seed(0)
    config = CONFIGS[name]
    return contracts.drawn(network_class(config)(config)).eval()


def both(name: str) -> bool:
    """Whether the network reads two texts."""
    return bool(CONFIGS[name].n_encoder_layers and CONFIGS[name].n_decoder_layers)


def ids_of(name: str) -> tuple[list[list[int]], list[list[int]] | None]:
    """Texts of different lengths, and targets where the network wants them."""
    rows = [contracts.random_ids(1, length, 40, seed=length)[0].tolist() for length in (5, 7, 3)]
    targets = [contracts.random_ids(1, length, 40, seed=50 + length)[0].tolist() for length in (4, 2, 6)]
    return rows, targets if both(name) else None


def last_logits(name: str) -> Tensor:
    """What the network itself says at the end of each text, one text at a time."""
    network, (rows, targets) = network_of(name), ids_of(name)
    with torch.no_grad():
        texts = [[row] for row in rows] if targets is None else [list(pair) for pair in zip(rows, targets, strict=True)]
        return torch.stack([network(*(torch.tensor([ids]) for ids in text)).logits[0, -1] for text in texts])
