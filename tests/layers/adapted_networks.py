"""Small networks of every family, with low-rank layers or without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import contracts
import pytest
import torch
from torch import Tensor

from glassformer.layers.low_rank import LowRank, add_low_rank
from glassformer.models.config import Classification, Config, Learned, Rotary
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder

SHAPE: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "max_length": 32,
    "dropout": 0.0,
    "init_std": 0.3,
}
GPT = Config(n_encoder_layers=0, n_decoder_layers=2, positions=Learned(), norm_first=True, **SHAPE)
LLAMA = replace(GPT, positions=Rotary(), n_kv_heads=2, norm="rms", gated=True, activation="silu", bias=False)
BERT = Config(n_encoder_layers=2, n_decoder_layers=0, positions=Learned(), head_bias=True, **SHAPE)
LABELS = replace(BERT, head=Classification(("good", "bad")), pooler=True)
PAPER = Config(n_encoder_layers=1, n_decoder_layers=2, **SHAPE)
FAMILIES: dict[str, tuple[type, Config]] = {
    "GPT": (Decoder, GPT),
    "Llama": (Decoder, LLAMA),
    "BERT": (Encoder, BERT),
    "labels": (Encoder, LABELS),
    "encoder and decoder": (EncoderDecoder, PAPER),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def network_of(family: str) -> Any:
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    return contracts.drawn(kind(config))


def batch_of(family: str) -> tuple[Tensor, ...]:
    ids = contracts.random_ids(3, 6, 40)
    return (ids, contracts.random_ids(3, 6, 40, seed=1)) if FAMILIES[family][0] is EncoderDecoder else (ids,)


def filled(network: Any) -> Any:
    """Both thin matrices drawn: B is zeros at first, and hides mistakes."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("lora_a", "lora_b")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


def adapted(family: str, rank: int = 3, alpha: float = 5.0, **choices: Any) -> Any:
    network = network_of(family)
    add_low_rank(network, LowRank(rank, alpha, **choices))
    return filled(network)
