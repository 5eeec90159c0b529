"""The kernels as operators of torch, so that eager code and code that torch compiles call the same."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.kernels import library

ROWS = 16
"""Rows of a weight in one tile; see `quantized.cpp`."""

SHIMS = {
    "quantized_linear": "AOTITorchError aoti_torch_cpu_quantized_linear"
    "(AtenTensorHandle, AtenTensorHandle, int64_t, AtenTensorHandle*)",
    "exact_linear": "AOTITorchError aoti_torch_cpu_exact_linear"
    "(AtenTensorHandle, AtenTensorHandle, int64_t, AtenTensorHandle*)",
    "dense_linear": "AOTITorchError aoti_torch_cpu_dense_linear(AtenTensorHandle, AtenTensorHandle, AtenTensorHandle*)",
    "attend_rows": "AOTITorchError aoti_torch_cpu_attend_rows"
    "(AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, AtenTensorHandle, "
    "double, AtenTensorHandle*)",
}
"""What compiled code calls in their place, without going through Python."""

_ops = torch.library.Library("glassformer", "DEF")
_ops.define("quantized_linear(Tensor x, Tensor weight, int bits) -> Tensor")
_ops.define("quantized_dense(Tensor x, Tensor weight, int bits, Tensor bias, bool gelu) -> Tensor")
_ops.define("exact_linear(Tensor x, Tensor weight, int bits) -> Tensor")
_ops.define("dense_linear(Tensor x, Tensor weight) -> Tensor")
# It writes into `keys` and `values`, which its schema does not say: told, torch would copy the whole cache each time.
# Nothing else in a step may read them.
_ops.define(
    "attend_rows(Tensor query, Tensor key, Tensor value, Tensor keys, Tensor values, Tensor positions, float scale)"
    " -> Tensor"
)

_ops.define("attend_few(Tensor query, Tensor keys, Tensor values, Tensor? mask, float scale) -> Tensor")
_ops.define("int8_linear(Tensor x, Tensor tiles, Tensor vectors, int n, float levels, float zero) -> Tensor")
_ops.define("round_rows(Tensor x, float levels, float zero) -> (Tensor, Tensor)")
_ops.define("scale_rows(Tensor(a!) y, Tensor largest, Tensor? bias) -> ()")


def quantized_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    """x Wᵀ [rows, N] for x [rows, K] in fp32 and a packed W; x is rounded to 8 bits in groups of 32."""
    return torch.ops.glassformer.quantized_linear(x.contiguous(), weight, bits)


def quantized_dense(x: Tensor, weight: Tensor, bits: int, bias: Tensor, gelu: bool) -> Tensor:
    """`quantized_linear` + bias [N], and its GELU if asked for, in one visit. For eager code: compiled code joins
    what follows a product by itself."""
    return torch.ops.glassformer.quantized_dense(x.contiguous(), weight, bits, bias, gelu)


def exact_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    """x Wᵀ [rows, N] for x [rows, K] in fp32 and a packed W, in fp32."""
    return torch.ops.glassformer.exact_linear(x.contiguous(), weight, bits)


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


def attend_few(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention [R, H, Q, d] of a few queries to keys and values [R, G, K, d], all in fp32, these dense along d; `mask`
    [R, H, Q, K] (may be expanded) is boolean, True = may attend, and a query that may look nowhere gives zeros. Keys
    that are masked are not read, so a mask costs nothing."""
    query = query if query.stride(-1) == 1 else query.contiguous()
    return torch.ops.glassformer.attend_few(query, keys, values, mask, scale)


def int8_pack(whole: Tensor) -> Tensor:
    """A weight [N, K] of int8 as `int8_linear` reads it, [N / 16, K / 4, 16, 4], both rounded up."""
    built = library("batches")
    assert built is not None
    whole = whole.contiguous()
    n, k = whole.shape
    tiles = torch.empty(-(-n // ROWS), -(-k // 4), ROWS, 4, dtype=torch.int8)
    built.glassformer_int8_pack(whole.data_ptr(), tiles.data_ptr(), k, n)
    return tiles


def int8_linear(x: Tensor, tiles: Tensor, vectors: Tensor, n: int, levels: float, zero: float) -> Tensor:
    """(q Wᵀ · scale + offset) · largest + bias [rows, n], where q and `largest` are `round_rows(x, levels, zero)`, in
    fp32. `vectors` are scale, offset and bias, one below the other, as long as all `tiles`."""
    return torch.ops.glassformer.int8_linear(x.contiguous(), tiles, vectors, n, levels, zero)


def round_rows(x: Tensor, levels: float, zero: float) -> tuple[Tensor, Tensor]:
    """x [rows, K] in fp32 as whole numbers from zero - levels to zero + levels (uint8), each row by its own largest
    magnitude, and these [rows, 1]."""
    return torch.ops.glassformer.round_rows(x.contiguous(), levels, zero)


def scale_rows(y: Tensor, largest: Tensor, bias: Tensor | None) -> Tensor:
    """y [rows, N] · largest [rows, 1] + bias [N], in place of `y`, in fp32."""
    torch.ops.glassformer.scale_rows(y, largest, bias)
    return y


def ragged_attend(
    query: Tensor, key: Tensor, value: Tensor, query_ends: Tensor, key_ends: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention [N, H, d] of queries [N, H, d] to keys and values [M, G, d], all in fp32 and dense along d, of texts
    that lie one behind the other: text b ends before `query_ends[b]` and `key_ends[b]`. And log Σ exp(score) [H, N],
    which `ragged_attend_back` wants."""
    built = library("batches")
    assert built is not None
    mixed, normalizer = query.new_empty(query.shape), query.new_empty(query.shape[1], len(query))
    tensors = (query, key, value, query_ends, key_ends, mixed, normalizer)
    built.glassformer_ragged(*_ragged(tensors, (query, key, value), causal), scale)
    return mixed, normalizer


def ragged_attend_back(grad: Tensor, tensors: Sequence[Tensor], causal: bool, scale: float) -> tuple[Tensor, ...]:
    """Gradients of query, key and value from that of what `ragged_attend` found; `tensors` are its five and its two."""
    built = library("batches")
    assert built is not None
    query, key, value = tensors[:3]
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    found = tuple(x.new_empty(x.shape) for x in (query, key, value))
    built.glassformer_ragged_back(*_ragged((*tensors, grad, *found), (query, key, value, grad), causal), scale)
    return found


def post_norm_rest(
    mixed: Tensor,
    x: Tensor,
    layers: Sequence[tuple[Tensor, Tensor, int]],
    norms: Sequence[tuple[Tensor, Tensor, float]],
) -> Tensor:
    """h = norm(x + out(mixed)), then norm(h + down(GELU(up(h)))) [N, D], for x [N, D] and `mixed` [N, K] in fp32.

    `layers` are packed weights with biases and bits, `norms` the weight, bias and ε of `LayerNorm`s; K, D and the
    number of hidden units are multiples of 32.
    """
    built = library("encoding")
    assert built is not None
    mixed, x = mixed.contiguous(), x.contiguous()
    y = torch.empty_like(x)
    given = [tensor for *both, _ in (*layers, *norms) for tensor in both]
    assert all(tensor.is_contiguous() for tensor in given)
    tensors = (mixed, x, y, *given)
    hidden = len(layers[1][0]) * ROWS
    sizes = (len(x), mixed.shape[1], x.shape[1], hidden, torch.get_num_threads(), *(bits for *_, bits in layers))
    built.glassformer_post_norm(
        (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_float * len(norms))(*(eps for *_, eps in norms)),
    )
    return y


def _ragged(tensors: Sequence[Tensor], strided: Sequence[Tensor], causal: bool) -> tuple[Any, ...]:
    """Pointers, strides and sizes as `ragged.cpp` wants them."""
    query, key, _, ends, _ = tensors[:5]
    assert all(x.stride(-1) == 1 and x.dtype == torch.float32 for x in strided)
    strides = [stride for x in strided for stride in x.stride()[:2]]
    sizes = (len(ends), query.shape[1], *key.shape[1:], len(query), int(causal))
    return (
        (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors)),
        (ctypes.c_int64 * len(strides))(*strides),
        (ctypes.c_int64 * len(sizes))(*sizes),
    )


@torch.library.impl(_ops, "quantized_linear", "CPU")
def _quantized_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    return _quantized(x, weight, bits, None, False)


@torch.library.impl(_ops, "quantized_dense", "CPU")
def _quantized_dense(x: Tensor, weight: Tensor, bits: int, bias: Tensor, gelu: bool) -> Tensor:
    assert bias.is_contiguous() and bias.dtype == torch.float32 and len(bias) == len(weight) * ROWS
    return _quantized(x, weight, bits, bias.data_ptr(), gelu)


def _quantized(x: Tensor, weight: Tensor, bits: int, bias: int | None, gelu: bool) -> Tensor:
    built = library("generation")
    assert built is not None
    y = x.new_empty(len(x), len(weight) * ROWS)
    sizes = (*x.shape, y.shape[1])
    built.glassformer_product(bits, x.data_ptr(), weight.data_ptr(), y.data_ptr(), *sizes, bias, gelu)
    return y


@torch.library.impl(_ops, "exact_linear", "CPU")
def _exact_linear(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    built = library("exact")
    assert built is not None
    y = x.new_empty(len(x), len(weight) * ROWS)
    built.glassformer_exact(bits, x.data_ptr(), weight.data_ptr(), y.data_ptr(), *x.shape, y.shape[1])
    return y


@torch.library.impl(_ops, "dense_linear", "CPU")
def _dense_linear(x: Tensor, weight: Tensor) -> Tensor:
    built = library("generation")
    assert built is not None and weight.is_contiguous()
    y = x.new_empty(len(x), len(weight))
    half = x.dtype == torch.bfloat16
    built.glassformer_dense(half, x.data_ptr(), weight.data_ptr(), y.data_ptr(), *x.shape, len(weight))
    return y


@torch.library.impl(_ops, "attend_rows", "CPU")
def _attend_rows(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    built = library("generation")
    assert built is not None and keys.is_contiguous() and values.is_contiguous()
    mixed = torch.empty_like(query)
    tensors = (query, key, value, keys, values, positions.contiguous(), mixed)
    data = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    half = query.dtype == torch.bfloat16
    built.glassformer_attend(half, data, *query.shape[:3], *keys.shape[1:], scale)
    return mixed


@torch.library.impl(_ops, "attend_few", "CPU")
def _attend_few(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    built = library("batches")
    assert built is not None
    rows, heads, queries, d = query.shape
    mixed = query.new_empty(rows, queries, heads, d)
    given = [query, keys, values] if mask is None else [query, keys, values, mask]
    assert all(tensor.stride(-1) == 1 for tensor in given)
    strides = [stride for tensor in given for stride in tensor.stride()[:3]]
    data = [tensor.data_ptr() for tensor in given] + ([None] if mask is None else []) + [mixed.data_ptr()]
    built.glassformer_attend_few(
        (ctypes.c_void_p * 5)(*data),
        (ctypes.c_int64 * 12)(*strides),
        (ctypes.c_int64 * 6)(rows, heads, queries, *keys.shape[1:3], d),
        scale,
    )
    return mixed.transpose(1, 2)


@torch.library.impl(_ops, "int8_linear", "CPU")
def _int8_linear(x: Tensor, tiles: Tensor, vectors: Tensor, n: int, levels: float, zero: float) -> Tensor:
    built = library("batches")
    assert built is not None and x.is_contiguous() and vectors.is_contiguous() and x.dtype == torch.float32
    rows, k = x.shape
    y = x.new_empty(rows, n)
    data = (x.data_ptr(), tiles.data_ptr(), vectors.data_ptr(), y.data_ptr())
    built.glassformer_int8_product(*data, rows, k, n, levels, zero)
    return y


@torch.library.impl(_ops, "round_rows", "CPU")
def _round_rows(x: Tensor, levels: float, zero: float) -> tuple[Tensor, Tensor]:
    built = library("batches")
    assert built is not None and x.is_contiguous()
    whole, largest = torch.empty_like(x, dtype=torch.uint8), x.new_empty(len(x), 1)
    built.glassformer_round_rows(x.data_ptr(), whole.data_ptr(), largest.data_ptr(), *x.shape, levels, zero)
    return whole, largest


@torch.library.impl(_ops, "scale_rows", "CPU")
def _scale_rows(y: Tensor, largest: Tensor, bias: Tensor | None) -> None:
    built = library("batches")
    assert built is not None and y.is_contiguous()
    offset = None if bias is None else bias.data_ptr()
    built.glassformer_scale_rows(y.data_ptr(), largest.data_ptr(), offset, *y.shape)


@torch.library.register_fake("glassformer::exact_linear", lib=_ops)
@torch.library.register_fake("glassformer::quantized_linear", lib=_ops)
def _(x: Tensor, weight: Tensor, bits: int) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * ROWS)


@torch.library.register_fake("glassformer::quantized_dense", lib=_ops)
def _(x: Tensor, weight: Tensor, bits: int, bias: Tensor, gelu: bool) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0] * ROWS)


@torch.library.register_fake("glassformer::dense_linear", lib=_ops)
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.register_fake("glassformer::attend_rows", lib=_ops)
def _(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.register_fake("glassformer::attend_few", lib=_ops)
def _(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return query.new_empty([query.shape[i] for i in (0, 2, 1, 3)]).transpose(1, 2)


@torch.library.register_fake("glassformer::int8_linear", lib=_ops)
def _(x: Tensor, tiles: Tensor, vectors: Tensor, n: int, levels: float, zero: float) -> Tensor:
    return x.new_empty(x.shape[0], n)


@torch.library.register_fake("glassformer::round_rows", lib=_ops)
def _(x: Tensor, levels: float, zero: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=torch.uint8), x.new_empty(x.shape[0], 1)


@torch.library.register_fake("glassformer::scale_rows", lib=_ops)
def _(y: Tensor, largest: Tensor, bias: Tensor | None) -> None:
    return None
