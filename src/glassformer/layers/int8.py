"""Running with 8-bit weights: a dense layer whose product is made of whole numbers, and a network of such layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.layers.attention import Attention
from glassformer.layers.block import Block
from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import ROWS, int8_linear, int8_pack, round_rows, scale_rows
from glassformer.layers.linear import Linear
from glassformer.layers.low_rank import merge_low_rank
from glassformer.layers.sites import Network, share

LEVELS = 63
"""Inputs are rounded to -63 … 63: a CPU without VNNI adds pairs of products in 16 bits, too few for 8-bit inputs."""

ZERO = LEVELS + 1
"""What stands for 0 among the inputs, which are multiplied unsigned."""


class Int8Linear(nn.Module):
    """x Wᵀ + b with W as 8-bit integers and a scale for each output; x is rounded to 127 levels as it comes.

    Every row of x has its own scale, so what a row gives does not depend on the others. The product is exact in 32-bit
    integers; on random input the rounding is an error of about 1.6 % of the output's norm. It cannot be trained.
    Several layers with one input become one, their outputs side by side.

    Raises `InputError` where torch has no such product and it is needed.
    """

    bias: Tensor | None

    def __init__(self, *linears: nn.Linear) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach().float() for linear in linears])
        self.in_features = weight.shape[1]
        biases = [linear.bias.detach().float() for linear in linears if linear.bias is not None]
        self.register_buffer("bias", torch.cat(biases) if biases else None)
        scale = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        whole = (weight / scale[:, None]).round().to(torch.int8)
        scale /= LEVELS  # the product is of x / its row's largest · LEVELS
        product = _OwnProduct if own_is_quick() else _TorchProduct
        self.product = product(whole, scale, -ZERO * whole.sum(1) * scale, self.bias)

    def forward(self, x: Float[Tensor, "*B i"]) -> Float[Tensor, "*B o"]:
        y = self.product(x.reshape(-1, self.in_features))
        return y.view(*x.shape[:-1], y.shape[-1])

    def effective_weight(self) -> Float[Tensor, "o i"]:
        """The matrix by which x is multiplied: what unit vectors give."""
        y = self(torch.eye(self.in_features))
        return (y if self.bias is None else y - self.bias).t()


def own_is_quick() -> bool:
    """Whether our kernel is there, and faster than oneDNN's on this processor (it is with AVX2 alone)."""
    built = library("batches")
    return built is not None and bool(built.glassformer_int8_is_quick())


class _OwnProduct(nn.Module):
    """(q Wᵀ · scale + offset) · largest + bias for q = x / largest · LEVELS + ZERO, by our kernel, in one visit.

    64 rows (a step of as many translations) take it six to eight tenths of oneDNN's time
    with what stands around that.
    """

    tiles: Tensor
    vectors: Tensor

    def __init__(self, whole: Tensor, scale: Tensor, offset: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.outputs = len(whole)
        self.register_buffer("tiles", int8_pack(whole))
        vectors = torch.stack((scale, offset, torch.zeros_like(scale) if bias is None else bias))
        self.register_buffer("vectors", F.pad(vectors, (0, -self.outputs % ROWS)))

    def forward(self, rows: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        return int8_linear(rows.float(), self.tiles, self.vectors, self.outputs, LEVELS, ZERO)


class _TorchProduct(nn.Module):
    """The same by oneDNN's product, with rounding before and scaling behind it."""

    scale: Tensor
    zero: Tensor
    offset: Tensor
    bias: Tensor | None

    def __init__(self, whole: Tensor, scale: Tensor, offset: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(whole), dtype=torch.int32))
        self.register_buffer("bias", bias)
        self.register_buffer("offset", offset)  # quicker than telling oneDNN the zero point of its input
        try:
            self.packed = torch.ops.onednn.qlinear_prepack(whole, None)
        except (RuntimeError, AttributeError) as error:
            raise InputError(f"int8 does not run here: torch has no such product ({error}); use fp32.") from None

    def forward(self, rows: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        quick = library("batches") is not None and rows.dtype == torch.float32
        whole, largest = round_rows(rows, LEVELS, ZERO) if quick else _round(rows)
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 0, self.packed, self.scale, self.zero, self.offset, 1.0, 0, torch.float32, "none", [], ""
        )
        if quick:
            return scale_rows(product, largest, self.bias)
        return product * largest if self.bias is None else torch.addcmul(self.bias, product, largest)


def _round(rows: Float[Tensor, "n i"]) -> tuple[Tensor, Tensor]:
    """What `round_rows` does, where there is no compiler."""
    largest = rows.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
    return (rows * (LEVELS / largest)).add_(ZERO + 0.5).to(torch.uint8), largest  # cut off, hence the half


def int8(network: Network) -> Network:
    """A copy of the network, for running only, whose dense layers have 8-bit weights; it shares everything else.

    Low-rank layers are merged. `InputError` for a network that is not on a CPU, and where torch has no such product.
    """
    if (device := next(network.parameters()).device).type != "cpu":
        raise InputError(f"int8 runs on a CPU only, the network is on '{device}'; move it or use fp32.")
    duplicate = share(network)
    merge_low_rank(duplicate)
    for block in (module for module in duplicate.modules() if isinstance(module, Block)):
        _merge(block.self_attention)
    for module in list(duplicate.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear):
                setattr(module, name, Int8Linear(child))
    return duplicate


def _merge(attention: Attention) -> None:
    """Queries, keys and values of a sequence that looks into itself: one product instead of three."""
    attention.to_all = Int8Linear(attention.to_query, attention.to_key, attention.to_value)
    del attention.to_query, attention.to_key, attention.to_value
