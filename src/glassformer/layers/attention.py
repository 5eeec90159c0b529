"""Attention: equation 1 of Vaswani et al. 2017 as a pure function, and the module that splits heads around it."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.banded import banded_attention
from glassformer.layers.dropout import Dropout
from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import attend_few
from glassformer.layers.linear import Linear, cast_once
from glassformer.layers.masks import band_mask, causal_mask, recent_mask
from glassformer.layers.positions import Rotation, rotate
from glassformer.layers.ragged import OwnText
from glassformer.layers.rows import Attending, KeysValues
from glassformer.layers.sites import Edges, Taps

FEW_QUERIES = 5
"""A step of so many new ids a row is decoding; more are a prompt."""

SHORT = 64
"""Up to so many keys, attention on a CPU is computed by plain products instead of the fused kernel; and for
`FEW_QUERIES`: forward, 4 of them and 100 keys take 14 % less, 16 take 10 % more."""

SHORT_BF16 = 256
"""Up to so many keys the same holds for training in bf16: the fused kernel's backward pass does not use the processor's
bf16 products. Forward and backward over 24 × 12 heads of 170 × 32 take it 140 ms, plain products 49."""

Mask = Bool[Tensor, "..."] | OwnText | None
"""Where attention is allowed: True, or everywhere in the same text, or everywhere."""

Remember = Callable[[KeysValues], KeysValues]
"""Takes the new keys and values of a layer, returns all that are held."""


def attention_scores(
    query: Float[Tensor, "B H Q d"],
    key: Float[Tensor, "B G K d"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    scale: float | None = None,
    bias: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """QKᵀ · scale (1 / √d unless given) + bias, minus infinity where attention is not allowed.

    Fewer heads of keys than of queries (G < H) serve H / G consecutive ones each.
    """
    scores = _product(query * _scale(query, scale), key.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    if causal:
        allowed = causal_mask(query.shape[-2], key.shape[-2], query.device)
        mask = allowed if mask is None else mask & allowed
    return scores if mask is None else scores.masked_fill(~mask, float("-inf"))


def attention_pattern(scores: Float[Tensor, "B H Q K"]) -> Float[Tensor, "B H Q K"]:
    """softmax over keys; a query that may look nowhere gets zeros, not NaN."""
    nowhere = torch.isneginf(scores).all(-1, keepdim=True)
    return scores.masked_fill(nowhere, 0.0).softmax(-1).masked_fill(nowhere, 0.0)


def attention(
    query: Float[Tensor, "B H Q d"],
    key: Float[Tensor, "B G K d"],
    value: Float[Tensor, "B G K d"],
    mask: Bool[Tensor, "..."] | None = None,
    causal: bool = False,
    scale: float | None = None,
    bias: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "B H Q d"]:
    """softmax(QKᵀ · scale + bias) V (equation 1, where scale is 1 / √d), fused: the pattern is never stored (short
    sequences on a CPU, and a bias, excepted).

    `mask` broadcasts to [B, H, Q, K], True = may attend; `causal` lets query i see keys j ≤ i, the queries being the
    last of the keys. A query that may look nowhere gives zeros. See `attention_scores` for G < H.
    """
    queries, keys = query.shape[-2], key.shape[-2]
    if bias is None and not causal and queries <= FEW_QUERIES and _few(query, key, value, mask):
        allowed = None if mask is None else mask.expand(*query.shape[:3], keys)
        return attend_few(query, key, value, allowed, _scale(query, scale))
    short = SHORT_BF16 if query.requires_grad and query.dtype == torch.bfloat16 else SHORT
    if bias is not None or (query.device.type == "cpu" and (queries <= FEW_QUERIES or keys <= short)):
        return _short_attention(query, key, value, mask, causal, scale, bias)
    if causal and (mask is not None or queries != keys):
        allowed = causal_mask(queries, keys, query.device)
        mask, causal = allowed if mask is None else mask & allowed, False
    if key.shape[1] != query.shape[1]:  # the fused kernel for CPUs wants as many heads of keys
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)


def _few(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether our kernel for a few queries is there and serves: on a CPU, in fp32, in inference mode, as text is
    written. Elsewhere what is looked into or trained is equal, to the last bit, to a plain forward pass."""
    plain = all(type(x) is Tensor for x in (query, key, value))
    if not torch.is_inference_mode_enabled() or query.device.type != "cpu" or not plain:
        return False
    dense = all(x.stride(-1) == 1 for x in (key, value, *([] if mask is None else [mask])))
    single = all(x.dtype == torch.float32 for x in (query, key, value))
    return dense and single and key.shape[-2] > 0 and library("batches") is not None


def _short_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
    bias: Tensor | None,
) -> Tensor:
    """The same as plain products. PyTorch's fused kernel for CPUs gains nothing from a second core when sequences are
    short: forward and backward over 280 × 4 heads of 13 × 32 take it 11 ms, and this 4."""
    scores = _product(query * _scale(query, scale), key.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    allowed = mask
    if causal:
        allowed = causal_mask(query.shape[-2], key.shape[-2], query.device)
        allowed = allowed if mask is None else mask & allowed
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    mixed = _product(scores.softmax(-1), value)
    return mixed if mask is None or allowed is None else mixed * allowed.any(-1, keepdim=True)


def _scale(query: Tensor, scale: float | None) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def _product(left: Float[Tensor, "B H Q i"], right: Float[Tensor, "B G i j"]) -> Float[Tensor, "B H Q j"]:
    """left @ right, where a matrix on the right serves H / G heads: they become rows of one product."""
    heads, kinds = left.shape[1], right.shape[1]
    if heads == kinds:
        return left @ right
    together = left.unflatten(1, (kinds, heads // kinds)).flatten(2, 3) @ right
    return together.unflatten(2, (heads // kinds, -1)).flatten(1, 2)


class Attention(nn.Module):
    """Multi-head attention (section 3.2.2): project to H heads of width d, attend in each, join, project back.

    `n_kv_heads` < H heads of keys and values are shared (Ainslie et al. 2023). Scores are divided by √d unless
    `scale_scores` is off. Fused unless a plan names the scores or the pattern, or dropout acts on the pattern.

    With a `band`, a query sees the newest so many keys at most, its own the last of them (locally banded attention,
    Brown et al. 2020, section 2.1); this is for sequences that look back at themselves.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        dropout: float = 0.0,
        n_kv_heads: int | None = None,
        bias: bool = True,
        scale_scores: bool = True,
        band: int | None = None,
    ) -> None:
        super().__init__()
        self.band = band
        self.n_heads, self.d_head, self.n_kv_heads = n_heads, d_head, n_kv_heads or n_heads
        self.scale = None if scale_scores else 1.0
        self.to_query = Linear(d_model, n_heads * d_head, bias)
        self.to_key = Linear(d_model, self.n_kv_heads * d_head, bias)
        self.to_value = Linear(d_model, self.n_kv_heads * d_head, bias)
        self.to_output = Linear(n_heads * d_head, d_model, bias)
        self.to_all: nn.Module | None = None  # queries, keys and values in one product, in a copy made for running
        self.dropout = Dropout(dropout)
        self.taps = Taps("query", "key", "value", "scores", "pattern", "mixed", "head_output", "output")
        self.edges = Edges()

    def keys_values(self, context: Float[Tensor, "B K D"]) -> KeysValues:
        """What the context offers to be looked up: keys and values of every head."""
        context = cast_once(context)
        key, value = self._split(self.to_key(context)), self._split(self.to_value(context))
        return self.taps.key(key), self.taps.value(value)

    def queries(self, x: Float[Tensor, "B Q D"]) -> Float[Tensor, "B H Q d"]:
        """What each position of `x` looks for, in every head."""
        return self.taps.query(self._split(self.to_query(x)))

    def queries_keys_values(
        self, x: Float[Tensor, "B T D"], rotation: Rotation | None = None
    ) -> tuple[Float[Tensor, "B H T d"], KeysValues]:
        """`queries` and `keys_values` of one sequence that looks into itself, queries and keys turned by `rotation`."""
        x = cast_once(x)
        if self.to_all is None:
            query, key, value = (self._split(project(x)) for project in (self.to_query, self.to_key, self.to_value))
        else:
            sizes = [heads * self.d_head for heads in (self.n_heads, self.n_kv_heads, self.n_kv_heads)]
            query, key, value = (self._split(part) for part in self.to_all(x).split(sizes, -1))
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        return self.taps.query(query), (self.taps.key(key), self.taps.value(value))

    def forward(
        self,
        query: Float[Tensor, "B H Q d"],
        keys_values: KeysValues,
        mask: Mask = None,
        causal: bool = False,
        bias: Float[Tensor, "..."] | None = None,
        remember: Remember | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """What each of the `queries` finds in the context that gave `keys_values`; `bias` is added to the scores.

        `remember` keeps new keys and values, and gives all that may be seen: what was kept of earlier steps as well.

        The context may have fewer rows than the queries: each then serves B / rows consecutive ones, side by side, and
        a mask that depends on the query is [rows, 1, B / rows · Q, K].
        """
        if isinstance(mask, OwnText):
            return self._output(self.mixed(query, keys_values, mask, causal))
        allowed: Tensor | None = mask
        legible = self.taps.scores.active or self.taps.pattern.active or (self.training and self.dropout.p > 0)
        if isinstance(remember, Attending):
            able = self.band is None or remember.banded
            if able and not (legible or self.edges.active) and remember.attends(query, bias):
                return self._output(remember.attend(query, keys_values, _scale(query, self.scale), bias))
            allowed = remember.mask
        key, value = keys_values if remember is None else remember(keys_values)
        if self.band is not None and not (isinstance(remember, Attending) and remember.banded):
            if causal and not (legible or self.edges.active) and bias is None and key.shape[2] > self.band:
                return self._output(banded_attention(query, key, value, self.band, allowed, self.scale))
            allowed = self._within_band(allowed, query, key, remember)
        rows, query = query.shape[0], gather_rows(query, key.shape[0])
        allowed = self.edges(allowed, query, key.shape[2])
        if legible:
            scores = self.taps.scores(attention_scores(query, key, allowed, causal, self.scale, bias))
            mixed = _product(self.dropout(self.taps.pattern(attention_pattern(scores))), value)
        else:
            mixed = attention(query, key, value, allowed, causal, self.scale, bias)
        return self._output(scatter_rows(mixed, rows))

    def mixed(
        self, query: Float[Tensor, "1 H N d"], keys_values: KeysValues, texts: OwnText, causal: bool = False
    ) -> Float[Tensor, "1 H N d"]:
        """What every head finds in texts that lie one behind the other."""
        return texts.attend(query, *keys_values, causal, _scale(query, self.scale))

    def _within_band(self, mask: Tensor | None, query: Tensor, key: Tensor, remember: Remember | None) -> Tensor | None:
        """The mask, and of it what the band leaves."""
        assert self.band is not None and len(query) == len(key), "banded attention looks back at its own sequence"
        if key.shape[2] <= self.band:
            return mask
        positions = remember.positions if isinstance(remember, Attending) else None
        if positions is None:
            near = band_mask(query.shape[2], key.shape[2], self.band, query.device)
        else:
            near = recent_mask(positions, key.shape[2], self.band)
        return near if mask is None else mask & near

    def _output(self, mixed: Float[Tensor, "B H Q d"]) -> Float[Tensor, "B Q D"]:
        return self.taps.output(self._join(self.taps.mixed(mixed)))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

    def _join(self, mixed: Float[Tensor, "B H Q d"]) -> Float[Tensor, "B Q D"]:
        if not self.taps.head_output.active:
            return self.to_output(mixed.transpose(1, 2).flatten(2))
        weight = self.to_output.effective_weight().unflatten(1, (self.n_heads, self.d_head))
        heads = torch.einsum("bhqd,mhd->bhqm", mixed, weight)
        edited = self.taps.head_output(heads)
        if edited is heads:  # only read: what flows on stays the same to the last bit
            return self.to_output(mixed.transpose(1, 2).flatten(2))
        heads = edited
        return heads.sum(1) if self.to_output.bias is None else heads.sum(1) + self.to_output.bias


def gather_rows(query: Float[Tensor, "B H Q d"], rows: int) -> Float[Tensor, "R H n d"]:
    """Lay the queries of B / R consecutive rows side by side, so that they look into one context together."""
    if query.shape[0] == rows:
        return query
    return query.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2, 3)


def scatter_rows(mixed: Float[Tensor, "R H n d"], rows: int) -> Float[Tensor, "B H Q d"]:
    """The inverse of `gather_rows`."""
    if mixed.shape[0] == rows:
        return mixed
    return mixed.unflatten(2, (rows // len(mixed), -1)).transpose(1, 2).flatten(0, 1)
