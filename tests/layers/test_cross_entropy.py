"""The cross-entropy of a head with a bias, its gradients where they are wanted, and what it never holds.

That without a bias it is torch's is in `test_parts.py`.
"""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from glassformer.layers import cross_entropy
from glassformer.layers.cross_entropy import linear_cross_entropy

WANTED = list(itertools.product((True, False), repeat=3))


def case(rows: int, vocab: int, seed: int = 0, width: int = 6) -> tuple[list[Tensor], Tensor]:
    """Hidden states, weight and bias as leaves with gradient, and targets."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, width), (vocab, width), (vocab,))
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, vocab, (rows,), generator=generator)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    """Of three times the loss: a factor that is not 1 has to arrive."""
    for leaf in leaves:
        leaf.grad = None
    (3 * loss).backward()
    return [leaf.grad for leaf in leaves]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 70),
    vocab=st.integers(1, 50),
    smoothing=st.sampled_from([0.0, 0.1, 0.4]),
    chunk_bytes=st.sampled_from([1, 4096, 2**22]),
    seed=st.integers(0, 2**16),
)
def test_with_a_bias_it_is_torchs(rows: int, vocab: int, smoothing: float, chunk_bytes: int, seed: int) -> None:
    leaves, target = case(rows, vocab, seed)
    hidden, weight, bias = leaves
    logits = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    with mock.patch.object(cross_entropy, "CHUNK_BYTES", chunk_bytes):
        loss, nll, correct = linear_cross_entropy(hidden, weight, target, smoothing, bias)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nll, F.cross_entropy(logits, target, reduction="sum").detach(), rtol=1e-4, atol=1e-3)
    assert correct == (logits.argmax(-1) == target).sum()
    wanted, got = gradients(expected, leaves), gradients(loss, leaves)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_gradients_are_given_where_they_are_wanted_and_are_the_same(wanted: tuple[bool, ...], smoothing: float) -> None:
    leaves, target = case(40, 30)
    whole = gradients(linear_cross_entropy(*leaves[:2], target, smoothing, leaves[2])[0], leaves)
    for leaf, want in zip(leaves, wanted, strict=True):
        leaf.requires_grad_(want)
    loss, nll, correct = linear_cross_entropy(*leaves[:2], target, smoothing, leaves[2])
    assert loss.requires_grad == any(wanted) and not nll.requires_grad and not correct.requires_grad
    if not any(wanted):
        return
    for leaf, found, want, expected in zip(leaves, gradients(loss, leaves), wanted, whole, strict=True):
        if want:
            torch.testing.assert_close(found, expected)
        else:
            assert found is None, f"a gradient of shape {tuple(leaf.shape)} that nobody asked for"


@pytest.mark.parametrize("enabled", [True, False])
def test_no_gradient_of_a_weight_is_formed_for_nothing(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a frozen head, and none at all in evaluation, whatever the parameters say."""
    formed: list[Any] = []
    monkeypatch.setattr(cross_entropy, "_accumulate", lambda *factors: formed.append(factors))
    leaves, target = case(20, 10)
    leaves[1].requires_grad_(not enabled)
    with torch.set_grad_enabled(enabled):
        loss, *_ = linear_cross_entropy(*leaves[:2], target, 0.1, leaves[2])
    assert not formed and loss.requires_grad == enabled


def test_the_logits_are_never_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 rows of 300 words in chunks of 16 rows: no tensor is as large as the logits, forward or backward."""

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else [result]:
                if isinstance(value, Tensor):
                    self.numbers = max(self.numbers, value.numel())
            return result

    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 16 * 300 * 4)
    leaves, target = case(200, 300)
    with Largest() as largest:
        linear_cross_entropy(*leaves[:2], target, 0.1, leaves[2])[0].backward()
    assert largest.numbers == 16 * 300


@pytest.mark.parametrize("half", [False, True], ids=["weights in fp32", "weights in bf16"])
def test_in_bfloat16_gradients_have_their_parameters_type(half: bool) -> None:
    leaves, target = case(60, 30)
    exact = linear_cross_entropy(*leaves[:2], target, 0.1, leaves[2])[0]
    expected = gradients(exact, leaves)
    hidden = leaves[0].detach().bfloat16().requires_grad_()
    weight, bias = (leaf.detach().to(torch.bfloat16 if half else torch.float32).requires_grad_() for leaf in leaves[1:])
    loss, *_ = linear_cross_entropy(hidden, weight, target, 0.1, bias)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.01, atol=0)
    for leaf, found, wanted in zip(
        (hidden, weight, bias), gradients(loss, [hidden, weight, bias]), expected, strict=True
    ):
        assert found is not None and wanted is not None and found.dtype == leaf.dtype
        assert (found.float() - wanted).norm() < 0.02 * wanted.norm()


def test_a_bias_that_makes_certain_does_not_make_infinite() -> None:
    bias = torch.tensor([500.0, 0.0, -500.0])
    loss, nll, correct = linear_cross_entropy(torch.zeros(2, 4), torch.zeros(3, 4), torch.tensor([0, 2]), 0.0, bias)
    torch.testing.assert_close(nll, torch.tensor(1000.0))
    torch.testing.assert_close(loss, nll)
    assert correct == 1


def test_no_rows_cost_nothing() -> None:
    leaves, target = case(0, 10)
    loss, nll, correct = linear_cross_entropy(*leaves[:2], target, 0.1, leaves[2])
    assert (loss, nll, correct) == (0, 0, 0)
    for found in gradients(loss, leaves):
        assert found is not None and not found.any()


def test_under_autocast_its_products_are_those_of_autocast_and_its_sums_are_not() -> None:
    """As torch does it: a dense layer in bf16, then the loss of its logits in fp32."""
    leaves, target = case(90, 40, width=16)
    hidden, weight, bias = leaves
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(F.linear(hidden, weight, bias).float(), target, reduction="sum")
        loss, nll, _ = linear_cross_entropy(hidden, weight, target, 0.0, bias)
    exact = F.cross_entropy(F.linear(hidden, weight, bias), target, reduction="sum")
    assert loss.dtype == nll.dtype == torch.float32
    assert abs(loss - expected) < 1e-5 * expected < abs(loss - exact)
    for found, wanted in zip(gradients(loss, leaves), gradients(expected, leaves), strict=True):
        assert found is not None and wanted is not None and found.dtype == torch.float32
        assert (found - wanted).norm() < 0.01 * wanted.norm()
