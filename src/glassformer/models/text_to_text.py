"""What networks that turn one text into another share, whatever they are made of."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.models.config import TextToTextConfig


def embeddings(config: TextToTextConfig) -> tuple[nn.Embedding, nn.Embedding]:
    """Token vectors of the source and of the target: one and the same unless the source has a vocabulary of its own."""
    target = nn.Embedding(config.vocab_size, config.d_model)
    rows = config.source_vocab_size
    return (target if rows is None else nn.Embedding(rows, config.d_model)), target


def last_of(hidden: Float[Tensor, "B T D"], lengths: Int[Tensor, B] | None) -> Float[Tensor, "B D"]:
    """The state at each row's last new id: position `lengths[b]` - 1, or the last one."""
    return hidden[:, -1] if lengths is None else hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def check_length(length: int, config: Any) -> None:
    """`InputError` for more positions than the network was made for."""
    if length > config.max_length:
        raise InputError(
            f"a sequence may have at most {config.max_length} positions, got {length}: "
            "shorten or split it, or use a model with a larger 'max_length'."
        )
