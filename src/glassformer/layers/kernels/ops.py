"""The kernels as operators of torch, so that eager code and code that torch compiles call the same."""

import ctypes

import torch
from torch import Tensor

from glassformer.layers.kernels import library

ROWS = 16
"""Rows of a weight in one tile; see `quantized.cpp`."""

SHIMS = {
    "quantized_linear": "AOTITorchError aoti_torch_cpu_quantized_linear"
    "(AtenTensorHandle, AtenTensorHandle, int64_t, AtenTensorHandle*)",
    "dense_linear": "AOTITorchError aoti_torch_cpu_dense_linear(AtenTensorHandle, AtenTensorHandle, AtenTensorHandle*)",
    "attend_rows": "AOTITorchError aoti_torch_cpu_attend_rows"
    "(AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, "
    "double, AtenTensorHandle*)",
}
"""What compiled code calls in their place, without going through Python."""

_ops = torch.library.Library("glassformer", "DEF")
_ops.define("quantized_linear(Tensor x, Tensor weight, int bits) -> Tensor")
_ops.define("dense_linear(Tensor x, Tensor weight) -> Tensor")
# It writes into `keys` and `values`, which its schema does not say: told, torch would copy the whole cache each time.
# Nothing else in a step may read them.
_ops.define(
    "attend_rows(Tensor query, Tensor key, Tensor value, Tensor keys, Tensor values, Tensor positions, float scale)"
    " -> Tensor"
)


def quantized_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    """x Wᵀ [rows, N] for x [rows, K] in fp32 and a packed W; x is rounded to 8 bits in groups of 32."""
    return torch.ops.glassformer.quantized_linear(x.contiguous(), weight, bits)


def dense_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ [rows, N] for x [rows, K], both in fp32 or both in bf16 (sums are fp32), for a few rows."""
    return torch.ops.glassformer.dense_linear(x.contiguous(), weight)


def attend_rows(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    """Write `key` and `value` [B, G, T, d] into the caches [B, G, C, d] at `positions` [B, T]; then attention
    [B, H, T, d] of each query to all up to its own position. All in fp32 or all in bf16, the caches contiguous; the
    positions of a row go up by 1."""
    new = (tensor.contiguous() for tensor in (query, key, value))
    return torch.ops.glassformer.attend_rows(*new, keys, values, positions, scale)


@torch.library.impl(_ops, "quantized_linear", "CPU")
def _quantized_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    built = library()
    assert built is not None
    y = x.new_empty(len(x), len(weight) * ROWS)
    built.glassformer_product(bits, x.data_ptr(), weight.data_ptr(), y.data_ptr(), *x.shape, y.shape[1])
    return y


@torch.library.impl(_ops, "dense_linear", "CPU")
def _dense_linear(x: Tensor, weight: Tensor) -> Tensor:
    built = library()
    assert built is not None and weight.is_contiguous()
    y = x.new_empty(len(x), len(weight))
    half = x.dtype == torch.bfloat16
    built.glassformer_dense(half, x.data_ptr(), weight.data_ptr(), y.data_ptr(), *x.shape, len(weight))
    return y


@torch.library.impl(_ops, "attend_rows", "CPU")
def _attend_rows(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    built = library()
    assert built is not None and keys.is_contiguous() and values.is_contiguous()
    mixed = torch.empty_like(query)
    tensors = (query, key, value, keys, values, positions.contiguous(), mixed)
    data = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    half = query.dtype == torch.bfloat16
    built.glassformer_attend(half, data, *query.shape[:3], *keys.shape[1:], scale)
    return mixed


@torch.library.register_fake("glassformer::quantized_linear", lib=_ops)
def _(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * ROWS)


@torch.library.register_fake("glassformer::dense_linear", lib=_ops)
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.register_fake("glassformer::attend_rows", lib=_ops)
def _(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    return query.new_empty(query.shape)
