"""What a decoding step does below its blocks and above them, each as one function to be compiled (see `code`).

The step of a small model reads its weights in a few milliseconds, which drives all else out of the caches: then each of
the dozen operators that look up a token, or make its last state logits, takes longer than its arithmetic ever could.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.layers.block import Stack
from glassformer.layers.embedding import Embedding
from glassformer.layers.linear import Linear
from glassformer.layers.norm import Norm
from glassformer.models import assembly
from glassformer.models.config import Config
from glassformer.models.decoder import Decoder

End = Literal["first", "last"]


class First(nn.Module):
    """From the new id of one row and its position to the residual stream, and to the rotation there."""

    cos: Tensor | None
    sin: Tensor | None

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.embedding: Embedding = stack.embedding
        self.register_buffer("cos", stack.cos)
        self.register_buffer("sin", stack.sin)

    def forward(self, ids: Int[Tensor, "1 1"], positions: Int[Tensor, "1 1"]) -> tuple[Tensor, ...]:
        """x [1, 1, D], and where positions are rotary cosines and sines [1, 1, d / 2]."""
        tables = (table for table in (self.cos, self.sin) if table is not None)
        return self.embedding(ids, positions), *(table[positions] for table in tables)


class Last(nn.Module):
    """From the newest state of one row to its logits: the final norm, where there is one, and the head."""

    def __init__(self, norm: Norm | None, head: nn.Module) -> None:
        super().__init__()
        self.norm, self.head = norm, head

    def forward(self, x: Float[Tensor, "1 1 D"]) -> tuple[Float[Tensor, "1 V"]]:
        """Logits."""
        x = x[:, 0]
        return (self.head(x if self.norm is None else self.norm(x)),)


def end_of(network: Decoder, which: End) -> nn.Module:
    """One end of a network, which shares its weights."""
    return First(network.stack) if which == "first" else Last(network.stack.final_norm, network.head)


def fresh_end(config: Config, which: End) -> nn.Module:
    """An end of that kind with weights that mean nothing and, however many they are, take no memory until written."""
    with torch.device("meta"):
        token = nn.Embedding(config.vocab_size, config.d_model)
        if which == "first":
            end: nn.Module = First(assembly.stack(config, 0, token, causal=True))
        else:
            norm = assembly.norm(config) if config.norm_first else None
            end = Last(norm, Linear(config.d_model, config.vocab_size, config.head_bias))
    return end.to_empty(device="cpu")


def end_inputs(config: Config, which: End, dtype: torch.dtype) -> list[Tensor]:
    """What an end is given before its weights, to trace with."""
    if which == "first":
        return [torch.zeros(1, 1, dtype=torch.long) for _ in range(2)]
    return [torch.zeros(1, 1, config.d_model, dtype=dtype)]
