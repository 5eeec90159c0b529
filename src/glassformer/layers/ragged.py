"""Texts of several lengths one behind the other in a single row, so that nothing is computed on padding.

Dense layers, norms and dropout do not mind which text a position is of. Attention does: `OwnText` stands in the place
of a mask, and a kernel of ours (`kernels/ragged.cpp`) takes one text after the other. B is the number of texts in a
padded batch, T its width, N the number of real positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import ragged_attend, ragged_attend_back


@dataclass(frozen=True)
class Packing:
    """The real positions of a padded batch as one row: `places` [N] in the flattened batch, `positions` [1, N] in their
    text, and `ends` [B], where in the row each text ends."""

    places: Int[Tensor, N]
    positions: Int[Tensor, "1 N"]
    ends: Int[Tensor, B]

    @classmethod
    def of(cls, real: Bool[Tensor, "B T"]) -> Packing:
        """Of the positions that are `real`, the first ones of each row."""
        places = real.flatten().nonzero().squeeze(1)
        return cls(places, (places % real.shape[1])[None], real.sum(1).cumsum(0))

    def pack(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "1 N"]:
        """What stands at these positions."""
        return ids.flatten()[self.places][None]


@dataclass(frozen=True)
class OwnText:
    """In the place of a mask: each query sees keys of its own text alone."""

    queries: Packing
    keys: Packing

    def attend(
        self,
        query: Float[Tensor, "1 H N d"],
        key: Float[Tensor, "1 G M d"],
        value: Float[Tensor, "1 G M d"],
        causal: bool,
        scale: float,
    ) -> Float[Tensor, "1 H N d"]:
        """Equation 1 of Vaswani et al. 2017 in every text (see `layers.attention.attention`), summed in fp32."""
        rows = (x[0].transpose(0, 1).float() for x in (query, key, value))
        rows = (x if x.stride(-1) == 1 else x.contiguous() for x in rows)  # products of a few rows lie turned
        mixed: Tensor = _RaggedAttention.apply(*rows, self.queries.ends, self.keys.ends, causal, scale)
        return mixed.transpose(0, 1)[None].to(query.dtype)


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_ends: Tensor,
        key_ends: Tensor,
        causal: bool,
        scale: float,
    ) -> Tensor:
        mixed, normalizer = ragged_attend(query, key, value, query_ends, key_ends, causal, scale)
        ctx.save_for_backward(query, key, value, query_ends, key_ends, mixed, normalizer)
        ctx.causal, ctx.scale = causal, scale
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *ragged_attend_back(grad, ctx.saved_tensors, ctx.causal, ctx.scale), None, None, None, None


def can_pack(device: torch.device) -> bool:
    """Whether texts may lie behind each other here: on a CPU for which our kernels could be built, and not while torch
    compiles, which would trace every number of tokens anew."""
    return device.type == "cpu" and not torch.compiler.is_compiling() and library("batches") is not None
