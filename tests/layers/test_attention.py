"""Attention: equation 1 by hand, both paths alike, shapes and masks drawn by Hypothesis."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.layers.attention import Attention, attention, attention_pattern, attention_scores
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
