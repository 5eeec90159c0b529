"""Texts one behind the other: attention and its gradients as of each text alone, lengths drawn by Hypothesis."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from glassformer.layers import ragged
from glassformer.layers.attention import attention
from glassformer.layers.kernels import library
from glassformer.layers.ragged import OwnText, Packing, can_pack

lengths = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    if library("batches") is None:
        pytest.skip("there is no C++ compiler")


def packing(lengths: list[int]) -> Packing:
    return Packing.of(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def drawn(
    texts: list[tuple[int, int]], heads: int, groups: int, d: int, seed: int
) -> tuple[tuple[Tensor, ...], OwnText]:
    queries, keys = ([pair[i] for pair in texts] for i in (0, 1))
    shapes = [(heads, sum(queries)), (groups, sum(keys)), (groups, sum(keys))]
    generator = torch.Generator().manual_seed(seed)
    tensors = tuple(
        torch.randn(1, n, many * d, generator=generator).unflatten(2, (many, d)).transpose(1, 2).requires_grad_()
        for many, n in shapes
    )
    return tensors, OwnText(packing(queries), packing(keys))


def each_alone(tensors: tuple[Tensor, ...], texts: list[tuple[int, int]], causal: bool) -> Tensor:
    query, key, value = (x.split([pair[i] for pair in texts], 2) for x, i in zip(tensors, (0, 1, 1), strict=True))
    return torch.cat([attention(*each, causal=causal) for each in zip(query, key, value, strict=True)], 2)


@settings(max_examples=60, deadline=None)
@given(
    lengths, st.sampled_from([(1, 1), (4, 4), (4, 2), (3, 1)]), st.integers(1, 40), st.booleans(), st.integers(0, 99)
)
def test_it_is_attention_of_each_text_alone(
    texts: list[tuple[int, int]], heads: tuple[int, int], d: int, causal: bool, seed: int
) -> None:
    """Gradients too."""
    texts = [(queries, max(queries, keys)) for queries, keys in texts] if causal else texts
    tensors, own_text = drawn(texts, *heads, d, seed)
    got, wanted = own_text.attend(*tensors, causal, d**-0.5), each_alone(tensors, texts, causal)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed))
    for mine, theirs in zip(
        torch.autograd.grad(got, tensors, slope), torch.autograd.grad(wanted, tensors, slope), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


def test_a_query_that_may_look_nowhere_finds_zeros() -> None:
    """Of five queries the first three stand before the two keys."""
    tensors, own_text = drawn([(4, 4), (5, 2)], 2, 1, 12, 0)
    mixed = own_text.attend(*tensors, True, 1.0)
    gradients = torch.autograd.grad(mixed.sum(), tensors)
    assert not mixed[:, :, 4:7].any() and not gradients[0][:, :, 4:7].any() and mixed[:, :, 7:].all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_text_without_keys_gives_zeros_and_no_gradient() -> None:
    """A source that is all padding, beside one that is not."""
    tensors, _ = drawn([(4, 3), (2, 1)], 2, 2, 12, 0)
    queries, keys = packing([4, 2]), Packing.of(torch.tensor([[False] * 4, [True] * 4]))
    mixed = OwnText(queries, keys).attend(*tensors, False, 1.0)
    gradients = torch.autograd.grad(mixed.square().sum(), tensors)
    assert not mixed[:, :, :4].any() and not gradients[0][:, :, :4].any() and gradients[0][:, :, 4:].any()


def test_in_half_precision_sums_are_fp32() -> None:
    tensors, own_text = drawn([(5, 9), (12, 3)], 2, 2, 16, 0)
    halves = tuple(x.detach().bfloat16() for x in tensors)
    got = own_text.attend(*halves, False, 0.25)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, own_text.attend(*(x.float() for x in halves), False, 0.25).bfloat16())


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    tensors, own_text = drawn([(20 + i, 20 + i) for i in range(12)], 4, 4, 32, 0)

    def gradients() -> list[Tensor]:
        mixed = own_text.attend(*tensors, True, 0.2)
        return [mixed, *torch.autograd.grad(mixed.square().sum(), tensors)]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = gradients()
        torch.set_num_threads(2)
        assert all(torch.equal(a, b) for a, b in zip(one, gradients(), strict=True))
    finally:
        torch.set_num_threads(threads)


def test_a_row_has_the_real_places_of_a_batch_in_order() -> None:
    real = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    row = Packing.of(real)
    assert row.places.tolist() == [0, 1, 3, 6, 7, 8] and row.ends.tolist() == [2, 3, 6]
    assert row.positions.tolist() == [[0, 1, 0, 0, 1, 2]]
    assert row.pack(torch.arange(9).view(3, 3)).tolist() == [[0, 1, 3, 6, 7, 8]]


def test_without_a_compiler_nothing_is_packed() -> None:
    assert can_pack(torch.device("cpu")) and not can_pack(torch.device("meta"))
    with mock.patch.object(ragged, "library", return_value=None):
        assert not can_pack(torch.device("cpu"))
