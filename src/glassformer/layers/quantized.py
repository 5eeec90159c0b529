"""Weights of 4 or 8 bits in groups of 32 that share a scale: read as they are, multiplied in whole numbers or in fp32.

The numbers are those of GGUF's Q4_0, Q4_1 and Q8_0 blocks, so what such a file stores is kept exactly, in as many bits:
5 and 8.5 a weight. The layout is described in `kernels/packed.h`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.layers.block import Block
from glassformer.layers.embedding import Embedding
from glassformer.layers.kernels import begin, library, pending
from glassformer.layers.kernels.ops import ROWS, exact_linear, quantized_dense, quantized_linear
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import merge_low_rank
from glassformer.layers.norm import LayerNorm
from glassformer.layers.sites import Network, share

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


def as_blocks(kind: str, blocks: UInt8[Tensor, "N G b"]) -> Blocks:
    """Blocks of a GGUF file as ours: Q4_1 and Q8_0 as they are, Q4_0, d (q - 8), as d q + m with m = -8 d, exactly."""
    if kind != "Q4_0":
        return blocks
    scale = blocks[..., :2].contiguous().view(torch.float16)
    return torch.cat((blocks[..., :2], (scale * -8).view(torch.uint8), blocks[..., 2:]), -1)


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
    to 8 bits in groups of 32; or, where x is not `rounded`, in fp32, which is nearly as quick for one row, as it reads
    as little, and slower for many. Without a compiler, or while it is at work (`kernels.pending`), the same is computed
    in fp32, from a weight that is made fp32 each time. Several parts with one input are one layer, their outputs side
    by side.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, parts: Sequence[Blocks], biases: Sequence[Tensor | None] = (), *, rounded: bool = True) -> None:
        super().__init__()
        self.rounded = rounded
        blocks = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        self.in_features, self.out_features = blocks.shape[1] * GROUP, blocks.shape[0]
        self.bits = 4 if blocks.shape[-1] == BLOCK_BYTES[4] else 8
        extra = -len(blocks) % ROWS
        if extra:
            blocks = torch.cat((blocks, blocks.new_zeros(extra, *blocks.shape[1:])))
        self.register_buffer("weight", blocks.detach(), persistent=False)  # of our own: others may hold the blocks
        if not self._waits():
            self.pack()
        given = [bias for bias in biases if bias is not None]
        assert len(given) in (0, len(parts)), "either all parts have a bias or none"
        self.register_buffer("bias", torch.cat([bias.detach().float() for bias in given]) if given else None)

    @property
    def packed(self) -> bool:
        """Whether the weight lies in tiles, as the kernels read it, or in blocks."""
        return self.weight.shape[-1] == ROWS * BLOCK_BYTES[self.bits]

    def pack(self) -> None:
        """Lay the weight out in tiles, where there are kernels; a compiler that is at work is waited for."""
        if not self.packed and library("generation") is not None and (self.rounded or library("exact") is not None):
            self.weight.data = _pack(self.weight, self.bits)  # the same tensor, for those who hold it

    def _waits(self) -> bool:
        return pending("generation") or (not self.rounded and pending("exact"))

    def forward(self, x: Float[Tensor, "*B i"], gelu: bool = False) -> Float[Tensor, "*B o"]:
        """With `gelu`, GELU of it, to 4e-7 of its input."""
        if not self.packed and not torch.compiler.is_compiling() and not self._waits():
            self.pack()
        packed = self.packed
        rows = x.reshape(-1, self.in_features).float()
        if packed and self.rounded and self._finishes():
            assert self.bias is not None
            y = quantized_dense(rows, self.weight, self.bits, self.bias, gelu)
            return y.reshape(*x.shape[:-1], self.out_features)
        if packed:
            y = (quantized_linear if self.rounded else exact_linear)(rows, self.weight, self.bits)
        else:
            y = F.linear(_rounded(rows) if self.rounded else rows, dequantize(self.weight))
        y = y[:, : self.out_features] if y.shape[1] != self.out_features else y
        y = y if self.bias is None else y + self.bias
        y = F.gelu(y) if gelu else y
        return y.reshape(*x.shape[:-1], self.out_features)

    def _finishes(self) -> bool:
        """Whether the product does what follows it as well; torch's compiler joins it by itself."""
        return self.bias is not None and self.out_features % ROWS == 0 and not torch.compiler.is_compiling()

    def effective_weight(self) -> Float[Tensor, "o i"]:
        """The matrix by which x is multiplied: what unit vectors give."""
        y = self(torch.eye(self.in_features, device=self.weight.device))
        return (y if self.bias is None else y - self.bias).t()


def _rounded(x: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """x as the kernels see it: whole numbers from -127 to 127, times the 127th part of the largest of 32."""
    groups = x.unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    whole = (groups * torch.where(largest > 0, 127 / largest, 0)).round()
    return (whole * (largest / 127)).flatten(-2)


def _pack(blocks: Blocks, bits: int) -> Tensor:
    """Blocks row by row → tiles of 16 rows, [N / 16, G, 16 · bytes], as the kernel reads them."""
    built = library("generation")
    assert built is not None
    blocks = blocks.contiguous()
    packed = blocks.new_empty(len(blocks) // ROWS, blocks.shape[1], ROWS * blocks.shape[2])
    built.glassformer_pack(bits, blocks.data_ptr(), packed.data_ptr(), blocks.shape[1] * GROUP, len(blocks))
    return packed


class QuantizedEmbedding(nn.Module):
    """Token vectors stored as blocks: those that are looked up become fp32."""

    weight: Tensor

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.embedding_dim = blocks.shape[1] * GROUP
        self.register_buffer("weight", blocks, persistent=False)

    def forward(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        return dequantize(self.weight[ids.reshape(-1)]).reshape(*ids.shape, self.embedding_dim)


def quantized(network: Network, bits: Bits | None, stored: Mapping[str, Blocks] | None = None) -> Network:
    """A copy of the network, for running only, whose dense layers have weights of so many bits; the rest is shared.

    `stored` holds blocks to be used as they are, by the name of the weight; such weights of the network are not looked
    at. Others stay as they are where `bits` is None. Else they are rounded here: those of blocks to `bits`, the head to
    8, as it sees what all of them have left. A layer whose input is no multiple of 32 stays as it is. Low-rank layers
    are merged.
    """
    stored = _with_ties(network, stored or {})
    duplicate = share(network)
    merge_low_rank(duplicate)
    for path, module in list(duplicate.named_modules()):
        if isinstance(module, Block):
            _quantize_block(module, bits, stored, f"{path}.")
    for path, module in list(duplicate.named_modules()):
        for name, child in module.named_children():
            where = f"{path}.{name}".removeprefix(".")
            blocks = _blocks(child, f"{where}.weight", None if bits is None else 8, stored)
            if blocks is not None:
                setattr(module, name, QuantizedLinear([blocks], [child.bias]))
        if isinstance(module, Embedding) and (name := f"{path}.token.weight") in stored:
            module.add_module("token", QuantizedEmbedding(stored[name]))
    return duplicate


def unrounded(network: Network) -> Network:
    """The network, whose quantised layers take their inputs as they are from now on: its products are those of fp32.

    `InputError` where weights lie in tiles already and the kernel for it cannot be built.
    """
    layers = [module for module in network.modules() if isinstance(module, QuantizedLinear)]
    if layers:
        begin("exact")
    if any(layer.packed for layer in layers) and library("exact") is None:
        raise InputError(
            "the C++ kernel for fp32 with weights of few bits could not be built: load without a precision."
        )
    for layer in layers:
        layer.rounded = False
    for block in network.modules():
        if isinstance(block, Block):
            block.joins_rest = False
    return network


def _with_ties(network: nn.Module, stored: Mapping[str, Blocks]) -> dict[str, Blocks]:
    """`stored` under every name of a tied weight, such as the token vectors that are the head as well."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    known = {other: stored[name] for tied in names.values() for name in tied if name in stored for other in tied}
    return {**known, **stored}


def _quantize_block(block: Block, bits: Bits | None, stored: Mapping[str, Blocks], path: str) -> None:
    """A block's layers; queries, keys and values become one product, and gate and up."""
    attention, feed_forward = block.self_attention, block.feed_forward
    together: list[tuple[str, nn.Module, tuple[str, ...], str]] = []
    if attention.to_all is None:
        together.append(("to_all", attention, ("to_query", "to_key", "to_value"), "self_attention."))
    if feed_forward.to_both is None and feed_forward.gate is not None:
        together.append(("to_both", feed_forward, ("gate", "up"), "feed_forward."))
    for whole, module, names, place in together:
        layers = [getattr(module, name) for name in names]
        made = (
            _blocks(layer, f"{path}{place}{name}.weight", bits, stored)
            for layer, name in zip(layers, names, strict=True)
        )
        parts = [part for part in made if part is not None]
        if len(parts) == len(names) and len({part.shape[1:] for part in parts}) == 1:
            setattr(module, whole, QuantizedLinear(parts, [layer.bias for layer in layers]))
            for name in names:
                delattr(module, name)
    for name, module in list(block.named_modules()):
        for own, child in module.named_children():
            where = f"{path}{name}.{own}.weight".replace("..", ".")
            if (blocks := _blocks(child, where, bits, stored)) is not None:
                setattr(module, own, QuantizedLinear([blocks], [child.bias]))
    plain = feed_forward.to_both is None and feed_forward.gate is None
    gelu = plain and feed_forward.activation is F.gelu
    feed_forward.up_has_gelu = gelu and isinstance(feed_forward.up, QuantizedLinear)
    block.joins_rest = _joins_rest(block)


def _joins_rest(block: Block) -> bool:
    """Whether `kernels/post_norm.cpp` can do all that follows the block's attention."""
    feed_forward = block.feed_forward
    if block.norm_first or block.cross_attention is not None or not feed_forward.up_has_gelu:
        return False
    layers = [block.self_attention.to_output, feed_forward.up, feed_forward.down]
    for layer in layers:
        if isinstance(layer, QuantizedLinear):
            layer.pack()
    fit = all(
        isinstance(layer, QuantizedLinear)
        and layer.packed
        and layer.rounded
        and layer.bias is not None
        and layer.out_features % GROUP == 0
        for layer in layers
    )
    norms = isinstance(block.norm_1, LayerNorm) and isinstance(block.norm_2, LayerNorm)
    return fit and norms and library("encoding") is not None


def _blocks(layer: nn.Module, name: str, bits: Bits | None, stored: Mapping[str, Blocks]) -> Blocks | None:
    """The weight of a dense layer as blocks: the stored ones, or made here; None where there are none to be had."""
    if not isinstance(layer, Linear):
        return None
    if name in stored:
        return stored[name]
    return None if bits is None or layer.in_features % GROUP else quantize(layer.weight, bits)
