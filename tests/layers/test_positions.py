"""Positions against independent implementations: buckets of distances, rotations, sines and cosines."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassformer.layers.positions import RelativeBias, relative_buckets, rotary, rotate, sinusoidal

examples = settings(deadline=None, max_examples=60)


@examples
@given(
    st.integers(4, 64).flatmap(lambda buckets: st.tuples(st.just(buckets), st.integers(buckets // 2 + 1, 1000))),
    st.booleans(),
)
@example((16, 9), True)  # distance 6 is the end of a range
def test_buckets_are_those_of_t5(sizes: tuple[int, int], both_ways: bool) -> None:
    """All distances up to well beyond the farthest, the ends of ranges among them."""
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    (buckets, farthest), distance = sizes, torch.arange(-1100, 1101)
    expected = t5.T5Attention._relative_position_bucket(distance, both_ways, buckets, farthest)
    found = relative_buckets(distance, buckets, farthest, both_ways)
    assert found.tolist() == expected.tolist()
    assert int(found.min()) == 0 and int(found.max()) < buckets


@pytest.mark.parametrize("both_ways", [True, False])
def test_published_buckets(both_ways: bool) -> None:
    """32 buckets up to 128, where 16, 32 and 64 are exactly the ends of ranges when looking both ways."""
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(-600, 601)
    expected = t5.T5Attention._relative_position_bucket(distance, both_ways, 32, 128)
    assert relative_buckets(distance, 32, 128, both_ways).tolist() == expected.tolist()


@examples
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.booleans())
def test_a_bias_depends_on_the_distance_alone(queries: list[int], both_ways: bool) -> None:
    """Any rows of the whole matrix are what these queries get, as when a cache holds what came before."""
    relative = RelativeBias(3, 8, 6, both_ways)
    torch.nn.init.normal_(relative.weight, generator=torch.Generator().manual_seed(0))
    whole = relative(torch.arange(10)[None], 10)[0]
    assert torch.equal(relative(torch.tensor([queries]), 10)[0], whole[:, queries])
    assert torch.equal(whole[:, 1:, 1:], whole[:, :-1, :-1])
    assert torch.equal(whole[:, 2, 3:].std(-1) > 0, torch.full((3,), both_ways))  # else what comes later is all one


@examples
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([100.0, 10000.0, 500000.0]), st.integers(0, 50))
def test_rotations_are_llamas(heads: int, pairs: int, base: float, first: int) -> None:
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    generator = torch.Generator().manual_seed(first)
    x = torch.randn(2, heads, 5, 2 * pairs, generator=generator)
    positions = torch.arange(first, first + 5)
    config = llama.LlamaConfig(
        hidden_size=2 * pairs * heads,
        num_attention_heads=heads,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    cos, sin = llama.LlamaRotaryEmbedding(config)(x, positions[None])
    expected, _ = llama.apply_rotary_pos_emb(x, x, cos, sin)
    found = rotate(x, tuple(table[positions] for table in rotary(64, 2 * pairs, base)))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)  # its angles are products of fp32
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))


def test_scores_of_rotated_vectors_depend_on_the_distance() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    table = rotary(50, 8, 10000.0)

    def score(of_query: int, of_key: int) -> torch.Tensor:
        turned = [rotate(x, tuple(part[[at]] for part in table)) for x, at in ((query, of_query), (key, of_key))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(46, 42), atol=1e-5, rtol=1e-4)
    assert not torch.isclose(score(7, 3), score(7, 4), atol=1e-4)


@examples
@given(st.integers(1, 80), st.integers(2, 33))
def test_halves_are_marians(length: int, d_model: int) -> None:
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    expected = marian.MarianSinusoidalPositionalEmbedding(length, d_model).create_weight()
    found = sinusoidal(length, d_model, halves=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    paper = sinusoidal(length, d_model)
    assert torch.equal(paper[:, 0::2], found[:, : (d_model + 1) // 2])
    assert torch.equal(paper[:, 1::2], found[:, (d_model + 1) // 2 :])
