"""Weights of 4 or 8 bits in groups of 32 that share a scale: read as they are, multiplied in whole numbers.

The numbers are those of GGUF's Q4_0, Q4_1 and Q8_0 blocks, so what such a file stores is kept exactly, in as many bits:
5 and 8.5 a weight. The layout is described in `kernels/quantized.cpp`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import ROWS, quantized_linear

GROUP = 32
Bits = Literal[4, 8]
BLOCK_BYTES = {4: 20, 8: 34}
"""Bytes of a block of 32 weights: fp16 d, with 4 bits fp16 m, then the whole numbers, as in GGUF's Q4_1 and Q8_0."""

Blocks = UInt8[Tensor, "N G b"]


def quantize(weight: Float[Tensor, "N K"], bits: Bits) -> Blocks:
    """Round a weight: d q + m with q in 0 … 15, or d q with q in -127 … 127; K is a multiple of 32.

    With 4 bits d and m are then fitted to the rounded numbers by least squares, which takes a tenth off the error.
    """
    groups = weight.detach().float().unflatten(1, (-1, GROUP))
    if bits == 8:
        scale = (groups.abs().amax(-1, keepdim=True) / 127).half()
        whole = (groups / scale.float().clamp_min(1e-10)).round().clamp(-127, 127).to(torch.int8)
        return torch.cat((scale.view(torch.uint8), whole.view(torch.uint8)), -1)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale, least = (high - low) / 15, low
    for _ in range(3):
        whole = ((groups - least) / scale.clamp_min(1e-10)).round().clamp(0, 15)
        mean_q, mean_w = whole.mean(-1, keepdim=True), groups.mean(-1, keepdim=True)
        spread = (whole - mean_q).square().sum(-1, keepdim=True)
        slope = ((whole - mean_q) * (groups - mean_w)).sum(-1, keepdim=True) / spread.clamp_min(1e-10)
        scale = torch.where(spread > 0, slope, scale).half().float()
        least = (mean_w - scale * mean_q).half().float()
    whole = ((groups - least) / scale.clamp_min(1e-10)).round().clamp(0, 15).to(torch.uint8)
    halves = whole[..., :16] | whole[..., 16:] << 4
    return torch.cat((scale.half().view(torch.uint8), least.half().view(torch.uint8), halves), -1)


def dequantize(blocks: Blocks) -> Float[Tensor, "N K"]:
    """The weight that blocks stand for, exactly."""
    bits = 4 if blocks.shape[-1] == BLOCK_BYTES[4] else 8
    scale = blocks[..., :2].contiguous().view(torch.float16).float()
    if bits == 8:
        return (blocks[..., 2:].view(torch.int8).float() * scale).flatten(1)
    least = blocks[..., 2:4].contiguous().view(torch.float16).float()
    halves = blocks[..., 4:]
    return (torch.cat((halves & 15, halves >> 4), -1).float() * scale + least).flatten(1)


class QuantizedLinear(nn.Module):
    """x Wᵀ + b with a weight of 4 or 8 bits, for running only.

    A row's result depends on that row alone. With a C++ compiler the product is made of whole numbers, x being rounded
    to 8 bits in groups of 32; without one, the weight is made fp32 each time. Several parts with one input are one
    layer, their outputs side by side.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, parts: Sequence[Blocks], biases: Sequence[Tensor | None] = ()) -> None:
        super().__init__()
        blocks = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        self.in_features, self.out_features = blocks.shape[1] * GROUP, blocks.shape[0]
        self.bits = 4 if blocks.shape[-1] == BLOCK_BYTES[4] else 8
        extra = -len(blocks) % ROWS
        if extra:
            blocks = torch.cat((blocks, blocks.new_zeros(extra, *blocks.shape[1:])))
        self.packed = library() is not None
        self.register_buffer("weight", _pack(blocks, self.bits) if self.packed else blocks, persistent=False)
        given = [bias for bias in biases if bias is not None]
        assert len(given) in (0, len(parts)), "either all parts have a bias or none"
        self.register_buffer("bias", torch.cat([bias.detach().float() for bias in given]) if given else None)

    def forward(self, x: Float[Tensor, "*B i"]) -> Float[Tensor, "*B o"]:
        rows = x.reshape(-1, self.in_features)
        if self.packed:
            y = quantized_linear(rows.float(), self.weight, self.bits)
        else:
            y = F.linear(rows.float(), dequantize(self.weight))
        y = y[:, : self.out_features] if y.shape[1] != self.out_features else y
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


def _pack(blocks: Blocks, bits: int) -> Tensor:
    """Blocks row by row → tiles of 8 rows, [N / 8, G, 8 · bytes], as the kernel reads them."""
    built = library()
    assert built is not None
    blocks = blocks.contiguous()
    packed = blocks.new_empty(len(blocks) // ROWS, blocks.shape[1], ROWS * blocks.shape[2])
    built.glassformer_pack(bits, blocks.data_ptr(), packed.data_ptr(), blocks.shape[1] * GROUP, len(blocks))
    return packed
