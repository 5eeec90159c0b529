"""Attention in bands equals dense attention under the band's mask: values, gradients, any other mask, no T × T."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from glassformer.layers import banded
from glassformer.layers.attention import Attention, attention_pattern, attention_scores
from glassformer.layers.banded import banded_attention
from glassformer.layers.masks import band_mask, causal_mask, document_mask, padding_mask, recent_mask, seen_mask
from glassformer.layers.sites import edges, planned, record

EXACT = {"atol": 1e-10, "rtol": 1e-9}  # in double precision


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.double, requires_grad=True) for shape in shapes]


def oracle(query: Tensor, key: Tensor, value: Tensor, width: int, mask: Tensor | None, scale: float | None) -> Tensor:
    """The dense mask."""
    near = band_mask(query.shape[2], key.shape[2], width)
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = attention_scores(query, key, near if mask is None else near & mask, scale=scale)
    return attention_pattern(scores) @ value


def test_the_rule_by_hand() -> None:
    assert band_mask(4, 4, 2).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert band_mask(2, 4, 3).int().tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert recent_mask(torch.tensor([[2], [0]]), 4, 2)[:, 0, 0].int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]


def test_a_band_as_wide_as_the_text_is_causal() -> None:
    assert torch.equal(band_mask(5, 5, 5), causal_mask(5, 5))
    assert not torch.equal(band_mask(5, 5, 4), causal_mask(5, 5))
    positions = torch.tensor([[0, 1], [3, 4]])
    assert torch.equal(recent_mask(positions, 6, 9), seen_mask(positions, 6))


def masks(kind: str, rows: int, queries: int, keys: int, seed: int) -> Tensor | None:
    generator = torch.Generator().manual_seed(seed)
    if kind == "padding":
        return padding_mask(torch.rand(rows, keys, generator=generator) < 0.6)
    if kind == "documents":
        numbers = (torch.rand(rows, keys, generator=generator) < 0.05).cumsum(1)
        return document_mask(numbers)[:, :, keys - queries :]
    if kind == "any":
        return torch.rand(rows, 2, queries, keys, generator=generator) < 0.3
    if kind == "shared":
        return torch.rand(queries, keys, generator=generator) < 0.3
    return None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 150),
    st.integers(0, 40),
    st.integers(1, 170),
    st.sampled_from(["none", "padding", "documents", "any", "shared"]),
    st.sampled_from([None, 1.0]),
    st.integers(0, 2**16),
)
def test_equals_the_dense_mask(
    rows: int, groups: int, queries: int, before: int, width: int, kind: str, scale: float | None, seed: int
) -> None:
    """Forward and backward, one and several blocks, keys before the first query, heads that share keys."""
    keys = queries + before
    inputs = drawn(seed, (rows, 2, queries, 3), (rows, groups, keys, 3), (rows, groups, keys, 3))
    mask = masks(kind, rows, queries, keys, seed)
    ours, dense = banded_attention(*inputs, width, mask, scale), oracle(*inputs, width, mask, scale)
    torch.testing.assert_close(ours, dense, **EXACT)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    expected = torch.autograd.grad(dense, inputs, weights)
    for got, wanted in zip(torch.autograd.grad(ours, inputs, weights), expected, strict=True):
        torch.testing.assert_close(got, wanted, **EXACT)


def test_queries_that_may_look_nowhere_are_zero() -> None:
    inputs = drawn(0, *[(2, 2, 100, 4)] * 3)
    mask = torch.ones(2, 1, 1, 100, dtype=torch.bool)
    mask[0, ..., :80] = False
    mixed = banded_attention(*inputs, 9, mask)
    assert (mixed[0, :, :80] == 0).all() and (mixed[0, :, 80:] != 0).all()
    for gradient in torch.autograd.grad(mixed.sum(), inputs):
        assert torch.isfinite(gradient).all()


def test_in_bf16_as_close_as_dense_attention_is() -> None:
    exact = drawn(1, *[(1, 2, 300, 16)] * 3)
    truth = oracle(*exact, 40, None, None)
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    with torch.autocast("cpu", torch.bfloat16):
        ours = banded_attention(*rough, 40)
    dense = torch.nn.functional.scaled_dot_product_attention(*rough, attn_mask=band_mask(300, 300, 40))
    assert ours.dtype == torch.bfloat16
    assert (ours - truth).abs().max() < 2 * (dense - truth).abs().max() + 1e-3
    gradients = torch.autograd.grad(ours.float().sum(), rough)
    for got, wanted in zip(gradients, torch.autograd.grad(truth.sum(), exact), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), wanted, atol=0.05, rtol=0.05)


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


@pytest.mark.parametrize("kind", ["none", "padding"])
def test_no_tensor_grows_with_the_square_of_the_length(kind: str) -> None:
    """Inside the operators too: their Python is run as it is."""
    heads, width, d_head = 2, 16, 4
    for length in (512, 1024):
        query, key, value, gradient = (x.detach() for x in drawn(0, *[(1, heads, length, d_head)] * 4))
        mask = masks(kind, 1, length, length, 0)
        with Largest() as seen:
            banded._banded(query, key, value, width, mask, 0.5)
            banded._banded_backward(gradient, query, key, value, width, mask, 0.5)
        assert seen.numbers == max(heads * length * d_head, heads * banded.BLOCK * (banded.BLOCK + width - 1))


def test_runs_on_fake_tensors_and_counts_its_products() -> None:
    """Twice 2 products forward, 5 backward, of blocks: within a quarter of what bands would take."""
    shape, width = (1, 2, 2048, 8), 256
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        inputs = [torch.empty(shape, requires_grad=True) for _ in range(3)]
        mixed = banded_attention(*inputs, width)
        assert mixed.shape == shape
        forward = counter.get_total_flops()
        mixed.sum().backward()
    pairs = int(band_mask(2048, 2048, width).sum())
    least = 2 * 2 * pairs * 2 * 8
    assert least < forward < 1.25 * least
    assert counter.get_total_flops() == forward * 7 // 2


def layer(**settings: Any) -> Attention:
    torch.manual_seed(0)
    return Attention(16, 4, 4, band=5, **settings)


def run(module: Attention, x: Tensor, **arguments: Any) -> Tensor:
    query, seen = module.queries_keys_values(x)
    return module(query, seen, causal=True, **arguments)


def test_a_layer_says_the_same_on_every_path() -> None:
    """Fused, legible, with an edge that is no cut; and its pattern is a band."""
    module, x = layer(), torch.randn(2, 90, 16)
    plain = run(module, x)
    copy, values = record(module, ["pattern"])
    torch.testing.assert_close(run(copy, x), plain, atol=1e-5, rtol=1e-4)
    assert torch.equal(values["pattern"] > 0, band_mask(90, 90, 5).expand(2, 4, 90, 90))
    (name,) = edges(module)
    whole = planned(module, {}, {name: lambda query, keys: torch.ones(1, 1, 90, keys, dtype=torch.bool)})
    torch.testing.assert_close(run(whole, x), plain, atol=1e-5, rtol=1e-4)


def test_a_bias_or_dropout_keeps_to_the_band() -> None:
    module, x = layer(dropout=0.5), torch.randn(1, 40, 16)
    late = x.clone()
    late[:, :20] += 1.0
    for arguments in ({}, {"bias": torch.randn(1, 4, 40, 40)}):
        module.eval()
        before, after = (run(module, y, **arguments) for y in (x, late))
        torch.testing.assert_close(before[:, 24:], after[:, 24:])
        assert not torch.allclose(before[:, 23], after[:, 23])
    module.train()
    copy, values = record(module, ["scores"])
    run(copy, x)
    assert torch.equal(~torch.isneginf(values["scores"][0, 0]), band_mask(40, 40, 5))


def test_compiled_code_takes_it_whole() -> None:
    """Without a break in the graph, and for another length without compiling anew."""
    compiled = torch.compile(lambda *x: banded_attention(*x, 7) * 2, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (130, 90):
        inputs = drawn(length, *[(1, 2, length, 4)] * 3)
        whole = banded_attention(*inputs, 7) * 2
        torch.testing.assert_close(compiled(*inputs), whole, **EXACT)
        expected = torch.autograd.grad(whole.sum(), inputs)
        for got, wanted in zip(torch.autograd.grad(compiled(*inputs).sum(), inputs), expected, strict=True):
            torch.testing.assert_close(got, wanted, **EXACT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_flex_attention_equals_the_dense_mask() -> None:
    for kind in ("none", "padding", "documents"):
        inputs = [x.detach().float().cuda().requires_grad_() for x in drawn(0, *[(2, 2, 300, 16)] * 3)]
        mask = masks(kind, 2, 300, 300, 0)
        ours = banded_attention(*inputs, 40, None if mask is None else mask.cuda())
        dense = oracle(*(x.cpu() for x in inputs), 40, mask, None)
        torch.testing.assert_close(ours.cpu(), dense, atol=2e-2, rtol=2e-2)
