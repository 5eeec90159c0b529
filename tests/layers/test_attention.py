"""Attention: equation 1 by hand, both paths alike, shapes and masks drawn by Hypothesis."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.layers.attention import Attention, _product, attention, attention_pattern, attention_scores
from glassformer.layers.kernels import library
from glassformer.layers.kernels.ops import attend_few
from glassformer.layers.masks import causal_mask, padding_mask, seen_mask, slots_mask


def by_hand(query: list[float], keys: list[list[float]], values: list[list[float]]) -> list[float]:
    scores = [sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query)) for key in keys]
    weights = [math.exp(score) for score in scores]
    total = sum(weights)
    return [sum(w / total * v[i] for w, v in zip(weights, values, strict=True)) for i in range(len(values[0]))]


def test_equation_1_by_hand() -> None:
    query, keys, values = [1.0, 2.0], [[0.5, -1.0], [2.0, 0.25]], [[1.0, 0.0], [0.0, 4.0]]
    got = attention(*(torch.tensor(x).view(1, 1, -1, 2) for x in ([query], keys, values)))
    torch.testing.assert_close(got.flatten(), torch.tensor(by_hand(query, keys, values)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(0, 5), st.booleans(), st.integers(0, 2**16))
def test_fused_equals_legible(rows: int, heads: int, queries: int, extra: int, causal: bool, seed: int) -> None:
    """With any mask, rows that may look nowhere included."""
    generator = torch.Generator().manual_seed(seed)
    keys = queries + (0 if causal else extra)
    query = torch.randn(rows, heads, queries, 4, generator=generator)
    key, value = torch.randn(2, rows, heads, keys, 4, generator=generator)
    mask = torch.rand(rows, 1, queries, keys, generator=generator) < 0.5
    legible = attention_pattern(attention_scores(query, key, mask, causal)) @ value
    torch.testing.assert_close(attention(query, key, value, mask, causal), legible, atol=1e-5, rtol=1e-4)
    blind = ~(mask & causal_mask(queries, keys) if causal else mask).any(-1)
    assert (legible[blind.expand(rows, heads, queries)] == 0).all()


def test_pattern_sums_to_one() -> None:
    pattern = attention_pattern(attention_scores(torch.randn(2, 2, 5, 3), torch.randn(2, 2, 5, 3), causal=True))
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 2, 5))
    assert (pattern.triu(1) == 0).all()


def test_one_context_serves_several_rows() -> None:
    """The rows of a beam share their source's keys: the same as repeating them."""
    torch.manual_seed(0)
    layer = Attention(d_model=8, n_heads=2, d_head=4)
    x, context = torch.randn(6, 2, 8), torch.randn(3, 5, 8)
    mask = padding_mask(torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0]]) != 0)
    query = layer.queries(x)
    shared = layer(query, layer.keys_values(context), mask)
    repeated = layer(query, layer.keys_values(context.repeat_interleave(2, 0)), mask.repeat_interleave(2, 0))
    torch.testing.assert_close(shared, repeated)


def test_masks() -> None:
    assert padding_mask(torch.tensor([[5, 0]]) != 0).tolist() == [[[[True, False]]]]
    assert causal_mask(2, 3).tolist() == [[True, True, False], [True, True, True]]
    slots = slots_mask(torch.tensor([[[0, 1], [0, 0]]]))  # both read slot 0 first; then each one another
    assert slots.tolist() == [[[[True, False, False, True], [True, False, True, False]]]]
    assert seen_mask(torch.tensor([[0, 2]]), 3).tolist() == [[[[True, False, False], [True, True, True]]]]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 3),
    groups=st.integers(1, 3),
    shared=st.integers(1, 3),
    queries=st.integers(1, 5),
    keys=st.integers(1, 40),
    d=st.sampled_from([1, 4, 8, 24, 64, 72]),
    masked=st.sampled_from(["not", "alike", "by query", "by head"]),
    seed=st.integers(0, 2**16),
)
def test_the_kernel_for_a_few_queries_is_equation_1(
    rows: int, groups: int, shared: int, queries: int, keys: int, d: int, masked: str, seed: int
) -> None:
    """Wherever queries, keys and values lie in memory, under any mask, for shared heads of keys."""
    if library("batches") is None:
        pytest.skip("there is no C++ compiler")
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, queries, groups * shared, d, generator=generator).transpose(1, 2)
    key, value = torch.randn(2, rows, groups, keys + 2, d, generator=generator)[..., 1:-1, :]
    shape = {
        "alike": (rows, 1, 1, keys),
        "by query": (rows, 1, queries, keys),
        "by head": (1, groups * shared, 1, keys),
    }
    mask = torch.rand(shape[masked], generator=generator) < 0.5 if masked != "not" else None
    wanted = _product(attention_pattern(attention_scores(query, key, mask)), value)
    with torch.inference_mode():
        allowed = None if mask is None else mask.expand(rows, groups * shared, queries, keys)
        found = attend_few(query, key, value, allowed, d**-0.5)
        torch.testing.assert_close(attention(query, key, value, mask), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_kernel_serves_where_text_is_written_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    if library("batches") is None:
        pytest.skip("there is no C++ compiler")
    called: list[torch.Size] = []
    monkeypatch.setattr(
        "glassformer.layers.attention.attend_few", lambda query, *_: called.append(query.shape) or query
    )
    parts = torch.randn(3, 1, 2, 4, 8)
    with torch.no_grad():
        attention(*parts)
    assert not called
    with torch.inference_mode():
        attention(*parts)
    assert called == [(1, 2, 4, 8)]


@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_what_is_no_number_stays_none(where: str) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = {name: torch.randn(1, 2, 3, 8, generator=generator) for name in ("query", "key", "value")}
    parts[where][0, 0, 0] = float("nan")
    with torch.inference_mode():
        mixed = attention(**parts)
    assert mixed[0, 0, 0].isnan().any() and not mixed[0, 1].isnan().any()


def test_gradients_are_not_lost_to_the_kernel() -> None:
    query, key, value = (torch.randn(1, 2, 3, 8, requires_grad=True) for _ in range(3))
    attention(query, key, value).sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (query, value))
