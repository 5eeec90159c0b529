"""Locally banded attention (Child et al. 2019; Brown et al. 2020, section 2.1): each query sees the newest keys only.

On a CPU it is computed in bands: a block of queries against its own keys and those of one width before, forward and
backward, so that work and memory grow with the length and not with its square. On a GPU FlexAttention does the same.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from glassformer.layers.masks import band_mask, within_band

BLOCK = 64
"""So many queries are computed together. They look at BLOCK + width - 1 keys, so fewer waste less, while products of
more are quicker."""


def banded_attention(
    query: Float[Tensor, "B H Q d"],
    key: Float[Tensor, "B G K d"],
    value: Float[Tensor, "B G K d"],
    width: int,
    mask: Bool[Tensor, "..."] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "B H Q d"]:
    """Equation 1 where query i sees keys i - width + 1 … i, the queries being the last of the keys; no Q × K tensor.

    `mask` broadcasts to [B, H, Q, K], True = may attend, and joins the band. `scale` is 1 / √d unless given. A query
    that may look nowhere gives zeros. Fewer heads of keys than of queries (G < H) serve H / G consecutive ones each.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if query.device.type == "cuda" and type(query) is Tensor and (flex := _flex()) is not None:
        return flex(query, key, value, width, mask, scale)
    if key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    mixed: Tensor = torch.ops.glassformer.banded_attention(query, key, value, width, mask, scale)
    return mixed


class _Block(NamedTuple):
    """Queries and the keys that they may see, as slices of positions; `bias` is 0 where they may and -∞ elsewhere."""

    queries: slice
    keys: slice
    bias: Float[Tensor, "1 q k"]


def _blocks(queries: int, keys: int, width: int, like: Tensor) -> Iterator[_Block]:
    """All queries, a block at a time. Blocks that lie alike share their bias."""
    biases: dict[tuple[int, int], Tensor] = {}
    for begin in range(0, queries, BLOCK):
        end = min(begin + BLOCK, queries)
        last = keys - queries + end
        first = max(0, last - (end - begin) - width + 1)
        shape = (end - begin, last - first)
        if shape not in biases:
            allowed = band_mask(*shape, width, like.device)
            biases[shape] = like.new_zeros(1, *shape).masked_fill_(~allowed, float("-inf"))
        yield _Block(slice(begin, end), slice(first, last), biases[shape])


def _pattern(query: Tensor, key: Tensor, block: _Block, allowed: Tensor | None, scale: float) -> Float[Tensor, "H q k"]:
    """softmax over the keys of a block, of one row; zeros where `allowed` leaves a query nothing."""
    query, key = query[:, block.queries], key[:, block.keys]
    if allowed is None:
        return torch.baddbmm(block.bias, query, key.mT, alpha=scale).softmax(-1)
    seen = allowed[..., block.queries if allowed.shape[-2] > 1 else slice(None), :]
    seen = (seen[..., block.keys] if allowed.shape[-1] > 1 else seen) & (block.bias == 0)
    # a sum of two of the lowest numbers would be minus infinity, and a row of these NaN
    scores = torch.baddbmm(block.bias.new_zeros(()), query, key.mT, alpha=scale)
    scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).mul_(seen.any(-1, keepdim=True))


def _rows(mask: Tensor | None, rows: int) -> list[Tensor | None]:
    """The part of a mask that is about each row, [H or 1, Q or 1, K or 1]."""
    if mask is None:
        return [None] * rows
    mask = mask[(None,) * (4 - mask.ndim)]
    return [mask[row if len(mask) > 1 else 0] for row in range(rows)]


def _empty(like: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T d"]:
    """As heads are laid out where they come from a projection and go to another."""
    rows, heads, length, width = like.shape
    return like.new_empty(rows, length, heads, width).transpose(1, 2)


# Operators of torch, and not a Function: compiled code and a run on fake tensors take them whole, whatever the length.
_ops = torch.library.Library("glassformer", "FRAGMENT")
_INPUTS = "Tensor query, Tensor key, Tensor value, int width, Tensor? mask, float scale"
_ops.define(f"banded_attention({_INPUTS}) -> Tensor")
_ops.define(f"banded_attention_backward(Tensor gradient, {_INPUTS}) -> (Tensor, Tensor, Tensor)")


@torch.library.impl(_ops, "banded_attention", "CompositeExplicitAutograd")
def _banded(query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float) -> Tensor:
    mixed = _empty(query)
    with torch.autocast(query.device.type, enabled=False):
        for row, allowed in enumerate(_rows(mask, len(query))):
            for block in _blocks(query.shape[2], key.shape[2], width, query):
                pattern = _pattern(query[row], key[row], block, allowed, scale)
                mixed[row, :, block.queries] = pattern @ value[row, :, block.keys]
    return mixed


@torch.library.impl(_ops, "banded_attention_backward", "CompositeExplicitAutograd")
def _banded_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values. The pattern is computed again, so that none is kept."""
    to_query, to_key, to_value = _empty(query), _empty(key).zero_(), _empty(value).zero_()
    with torch.autocast(query.device.type, enabled=False):
        for row, allowed in enumerate(_rows(mask, len(query))):
            for block in _blocks(query.shape[2], key.shape[2], width, query):
                pattern = _pattern(query[row], key[row], block, allowed, scale)
                given = gradient[row, :, block.queries]
                to_value[row, :, block.keys] += pattern.mT @ given
                to_pattern = given @ value[row, :, block.keys].mT
                to_scores = torch._softmax_backward_data(to_pattern, pattern, -1, pattern.dtype)
                torch.mul(to_scores @ key[row, :, block.keys], scale, out=to_query[row, :, block.queries])
                to_key[row, :, block.keys].add_(to_scores.mT @ query[row, :, block.queries], alpha=scale)
    return to_query, to_key, to_value


@torch.library.register_fake("glassformer::banded_attention", lib=_ops)
def _(query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float) -> Tensor:
    return _empty(query)


@torch.library.register_fake("glassformer::banded_attention_backward", lib=_ops)
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(query), _empty(key), _empty(value)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, key, value, ctx.width, mask, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, mask)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, mask = ctx.saved_tensors
    backward = torch.ops.glassformer.banded_attention_backward
    return *backward(gradient, query, key, value, ctx.width, mask, ctx.scale), None, None, None


torch.library.register_autograd("glassformer::banded_attention", _gradients, setup_context=_remember, lib=_ops)


def _products(number: int, query: Any, keys: int, width: int) -> int:
    """FLOPs of so many products of queries and keys, as they are computed: whole blocks."""
    rows, heads, queries, d_head = query
    pairs = 0
    for begin in range(0, queries, BLOCK):
        count, last = min(BLOCK, queries - begin), keys - queries + min(begin + BLOCK, queries)
        pairs += count * min(last, count + width - 1)
    return 2 * number * rows * heads * d_head * pairs


@register_flop_formula(torch.ops.glassformer.banded_attention)
def _flops(query: Any, key: Any, value: Any, width: int, *_: Any, **__: Any) -> int:
    return _products(2, query, key[2], width)


@register_flop_formula(torch.ops.glassformer.banded_attention_backward)
def _backward_flops(gradient: Any, query: Any, key: Any, value: Any, width: int, *_: Any, **__: Any) -> int:
    return _products(5, query, key[2], width)


@cache
def _flex() -> Callable[..., Tensor] | None:
    """The same by FlexAttention, compiled; None where this torch has none, or no Triton to compile it with."""
    try:
        import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        return None
    fused = torch.compile(flex_attention, dynamic=False)

    def attend(query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float) -> Tensor:
        (rows, heads, queries, _), keys = query.shape, key.shape[2]
        everything = None if mask is None else mask.expand(rows, *mask.shape[1:]).expand(rows, -1, queries, keys)
        per_head = everything is not None and everything.shape[1] > 1

        def seen(row: Tensor, head: Tensor, place: Tensor, other: Tensor) -> Tensor:
            near = within_band(place + keys - queries, other, width)
            return near if everything is None else near & everything[row, head if per_head else 0, place, other]

        shape = (None if mask is None else rows, heads if per_head else None, queries, keys)
        blocks = create_block_mask(seen, *shape, device=query.device)
        grouped = key.shape[1] != heads
        return fused(query, key, value, block_mask=blocks, scale=scale, enable_gqa=grouped)  # type: ignore[no-any-return]

    return attend
