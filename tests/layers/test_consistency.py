"""Two readings that are asked to agree, against the paper's equation written with torch's own losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from glassformer.layers.consistency import consistent_cross_entropy, divergence
from glassformer.layers.cross_entropy import linear_cross_entropy


def case(rows: int, vocab: int, seed: int = 0, width: int = 6) -> tuple[list[Tensor], Tensor]:
    """Two readings, weight and bias as leaves with gradient, and targets."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, width), (rows, width), (vocab, width), (vocab,))
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, vocab, (rows,), generator=generator)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) from logits, summed over rows, as its definition says."""
    p_log, q_log = p.log_softmax(-1), q.log_softmax(-1)
    return (p_log.exp() * (p_log - q_log)).sum()


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    vocab=st.integers(1, 30),
    alpha=st.sampled_from([0.0, 1.0, 5.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    chunk=st.sampled_from([None, 1, 7]),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_it_is_half_of_the_papers_equation_4(
    rows: int, vocab: int, alpha: float, smoothing: float, chunk: int | None, with_bias: bool, seed: int
) -> None:
    (first, second, weight, bias), target = case(rows, vocab, seed)
    given_bias = bias if with_bias else None
    p, q = (F.linear(one, weight, given_bias) for one in (first, second))
    plain = sum(F.cross_entropy(one, target, reduction="sum", label_smoothing=smoothing) for one in (p, q))
    wanted = (plain + alpha / 2 * (kl(p, q) + kl(q, p))) / 2
    loss, nll, correct = consistent_cross_entropy((first, second), weight, target, alpha, smoothing, given_bias, chunk)
    torch.testing.assert_close(loss, wanted, rtol=1e-4, atol=1e-3)
    leaves = [first, second, weight, *([bias] if with_bias else [])]
    found, expected = (torch.autograd.grad(3 * one, leaves) for one in (loss, wanted))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    each = [F.cross_entropy(one, target, reduction="sum").detach() for one in (p, q)]
    torch.testing.assert_close(nll, sum(each) / 2, rtol=1e-4, atol=1e-3)
    assert correct == sum(float((one.argmax(-1) == target).sum()) for one in (p, q)) / 2
    assert not nll.requires_grad and not correct.requires_grad


def test_without_a_weight_of_its_own_agreement_costs_nothing() -> None:
    (first, _, weight, bias), target = case(20, 12)
    alone = linear_cross_entropy(first, weight, target, 0.1, bias)
    twice = consistent_cross_entropy((first, first), weight, target, 5.0, 0.1, bias)
    torch.testing.assert_close(twice[:2], alone[:2])


def test_divergence_has_no_order_and_is_none_of_equals() -> None:
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(first, second), (kl(first, second) + kl(second, first)) / 2)
    torch.testing.assert_close(divergence(first, second), divergence(second, first))
    assert divergence(first, first + 3.0) == pytest.approx(0.0, abs=1e-5)


def test_in_bf16_sums_stay_in_fp32() -> None:
    (first, second, weight, bias), target = case(64, 40, width=32)
    exact = consistent_cross_entropy((first, second), weight, target, 2.0, 0.1, bias)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = consistent_cross_entropy((first, second), weight, target, 2.0, 0.1, bias)[0]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0.0)
    loss.backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32
