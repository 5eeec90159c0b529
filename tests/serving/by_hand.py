"""A decoder computed step by step from its weights, to compare with what its taps show."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from glassformer.models.decoder import Decoder


@dataclass
class ByHand:
    """Patterns [H, T, T] and the stream [T, D] after each block (first: what enters the first), and logits [T, V]."""

    patterns: list[Tensor] = field(default_factory=list)
    stream: list[Tensor] = field(default_factory=list)
    logits: Tensor | None = None


@torch.no_grad()
def run(network: Decoder, ids: list[int], replaced: dict[tuple[int, int], Tensor] | None = None) -> ByHand:
    """Pre-norm with learned positions; `replaced`: (row of the stream, position) → the state that is put there."""
    done, stack, heads = ByHand(), network.stack, network.config.n_heads
    x = stack.embedding.token.weight[ids] * stack.embedding.scale + stack.embedding.position[: len(ids)]
    for row in range(len(stack.blocks) + 1):
        if row:
            block = stack.blocks[row - 1]
            attention, h = block.self_attention, block.norm_1(x)
            query, key, value = (
                part(h).view(len(ids), heads, -1).transpose(0, 1)
                for part in (attention.to_query, attention.to_key, attention.to_value)
            )
            scores = query @ key.mT / query.shape[-1] ** 0.5
            pattern = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf")).softmax(-1)
            x = x + attention.to_output((pattern @ value).transpose(0, 1).flatten(1))
            x = x + block.feed_forward(block.norm_2(x))
            done.patterns.append(pattern)
        for (where, place), state in (replaced or {}).items():
            if where == row:
                x = x.clone()
                x[place] = state
        done.stream.append(x)
    done.logits = network.head(stack.final_norm(x))
    return done
