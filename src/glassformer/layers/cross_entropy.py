"""Cross-entropy against a wide vocabulary without ever holding all the logits.

The logits of a training batch are by far the largest tensor of a small Transformer (4,000 tokens × 10,000 words are
160 MB, several times over with their softmax and gradient). Here they exist some rows at a time, and gradients are
formed in the same visit, so nothing is computed twice.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.layers.linear import cast_once

CHUNK_BYTES = 32 * 2**20
"""How much of the logits exists at once. Measured on two AVX2 cores with 9,700 words: a training step is 1.07 to 1.18
times as fast as with 4 MiB, whose products of 100 rows are slower than its softmax in the cache is quicker."""

GPU_CHUNK_BYTES = 256 * 2**20
"""The same on a GPU, whose caches are no place for logits: so much that products are limited by computing and the sum
of the weight's gradients, which each chunk reads and writes once, weighs little. Chosen by `glassformer plan`, not
measured."""


def rows_at_once(words: int, device: str) -> int:
    """How many rows' logits exist at once, of so many words, on a device of that type ("cpu", "cuda")."""
    return max(16, (CHUNK_BYTES if device == "cpu" else GPU_CHUNK_BYTES) // (4 * words))


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, "N"],
    label_smoothing: float = 0.0,
    bias: Float[Tensor, "V"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""]]:
    """Summed over rows: (loss, negative log-likelihood, number of rows whose target is the most likely).

    loss = (1 - ε) · -log p(target) + ε / V · Σ_v -log p(v), with p = softmax(hidden · weightᵀ + bias) (label smoothing:
    Szegedy et al. 2016, section 7). Only the loss has a gradient. Under autocast the three products with the vocabulary
    are formed in its type, everything else in fp32. `chunk` rows are visited at a time, by default as the device likes.
    """
    hidden = cast_once(hidden)
    if not torch.is_grad_enabled():  # a parameter would be given its gradient all the same
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    return _LinearCrossEntropy.apply(hidden, weight, target, label_smoothing, bias, chunk)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        label_smoothing: float,
        bias: Tensor | None,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[4])
        sums = _Sums(hidden, weight, target, label_smoothing, bias, wanted, chunk)
        for start in range(0, len(hidden), sums.chunk):
            sums.add(slice(start, start + sums.chunk))
        loss, nll, correct = sums.totals()
        if any(wanted):
            ctx.save_for_backward(*sums.gradients())
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        for_weight, for_bias = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * grad_loss,
            None if grad_weight is None else (grad_weight * grad_loss).to(for_weight),
            None,
            None,
            None if grad_bias is None else (grad_bias * grad_loss).to(for_bias),
            None,
        )


class _Sums:
    """Running sums over chunks of rows, and the gradients of the summed loss: of hidden, weight and bias as `wanted`.

    d loss / d logits = p - (1 - ε) onehot(target) - ε / V: the last two terms are added as products of their own,
    so that the chunk of probabilities is written once and never edited.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        label_smoothing: float,
        bias: Tensor | None,
        wanted: tuple[bool, bool, bool],
        chunk: int | None,
    ) -> None:
        self.hidden, self.weight, self.target, self.bias = hidden, weight, target, bias
        self.epsilon = label_smoothing
        self.chunk = chunk or rows_at_once(len(weight), hidden.device.type)
        self.product = hidden.new_empty(min(self.chunk, len(hidden)), len(weight))
        self.logits = self.product.float()  # the same memory in fp32
        self.probability = torch.empty_like(self.logits)
        self.log_normalizer = hidden.new_empty(len(hidden), dtype=torch.float32)
        self.target_logit = torch.empty_like(self.log_normalizer)
        self.correct = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        self.grad_hidden = torch.empty_like(hidden) if wanted[0] else None
        self.grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        self.grad_bias = None if bias is None or not wanted[2] else torch.zeros_like(bias, dtype=torch.float32)

    def add(self, rows: slice) -> None:
        hidden, target = self.hidden[rows], self.target[rows, None]
        product, logits, probability = (x[: len(hidden)] for x in (self.product, self.logits, self.probability))
        if self.bias is None:
            torch.mm(hidden, self.weight.T, out=product)
        else:
            torch.addmm(self.bias, hidden, self.weight.T, out=product)
        if product.dtype != logits.dtype:
            logits.copy_(product)
        highest = logits.amax(-1)
        target_logit = logits.gather(1, target).squeeze(1)
        self.target_logit[rows] = target_logit
        self.correct[rows] = target_logit >= highest
        torch.softmax(logits, -1, out=probability)
        # softmax at the highest logit is 1 / Σ exp(logit - highest), which cannot underflow
        self.log_normalizer[rows] = highest - probability.amax(-1).log()
        if self.grad_bias is not None:
            self.grad_bias += probability.sum(0)
        if product.dtype != logits.dtype:
            probability = product.copy_(probability)
        if self.grad_hidden is not None:
            torch.mm(probability, self.weight, out=self.grad_hidden[rows])
        if self.grad_weight is not None:
            _accumulate(self.grad_weight, probability.T, hidden)

    def totals(self) -> tuple[Tensor, Tensor, Tensor]:
        nll = (self.log_normalizer - self.target_logit).sum()
        logit_sum = (self.hidden.float().sum(0) * self.weight.float().sum(0)).sum()
        if self.bias is not None:
            logit_sum = logit_sum + self.bias.float().sum() * len(self.hidden)
        spread = self.log_normalizer.sum() - logit_sum / len(self.weight)
        return (1 - self.epsilon) * nll + self.epsilon * spread, nll, self.correct.sum()

    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        share, certain = self.epsilon / len(self.weight), 1 - self.epsilon
        if self.grad_hidden is not None:
            self.grad_hidden.add_(self.weight[self.target], alpha=-certain)
            if share:
                self.grad_hidden.sub_(self.weight.sum(0), alpha=share)
        if self.grad_weight is not None:
            self.grad_weight.index_add_(0, self.target, self.hidden.float(), alpha=-certain)
            if share:
                self.grad_weight.sub_(self.hidden.float().sum(0), alpha=share)
        if self.grad_bias is not None:
            ones = torch.ones(len(self.target), device=self.target.device)
            self.grad_bias.index_add_(0, self.target, ones, alpha=-certain).sub_(share * len(self.target))
        return self.grad_hidden, self.grad_weight, self.grad_bias


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, with the sum kept in float32 whatever the factors are."""
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
