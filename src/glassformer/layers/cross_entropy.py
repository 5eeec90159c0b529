"""Cross-entropy against a wide vocabulary without ever holding all the logits.

The logits of a training batch are by far the largest tensor of a small Transformer (4,000 tokens × 10,000 words are
160 MB, several times over with their softmax and gradient). Here they exist a few rows at a time, in the cache of the
processor; gradients are formed in the same visit, so nothing is computed twice.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_BYTES = 4 * 2**20
"""How much of the logits exists at once. Measured on two AVX2 cores: products of 100 rows run as fast as any larger
ones, and their softmax still finds them in the cache."""


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, "N"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""]]:
    """Summed over rows: (loss, negative log-likelihood, number of rows whose target is the most likely).

    loss = (1 - ε) · -log p(target) + ε / V · Σ_v -log p(v), with p = softmax(hidden · weightᵀ) (label smoothing:
    Szegedy et al. 2016, section 7). Only the loss has a gradient.
    """
    return _LinearCrossEntropy.apply(hidden, weight, target, label_smoothing)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.weight_dtype, weight = weight.dtype, weight.to(hidden.dtype)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        sums = _Sums(hidden, weight, target, label_smoothing, needs_grad)
        for start in range(0, len(hidden), sums.chunk):
            sums.add(slice(start, start + sums.chunk))
        loss, nll, correct = sums.totals()
        if needs_grad:
            ctx.save_for_backward(*sums.gradients())
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_loss, (grad_weight * grad_loss).to(ctx.weight_dtype), None, None


class _Sums:
    """Running sums over chunks of rows, and the gradient of the summed loss where wanted.

    d loss / d logits = p - (1 - ε) onehot(target) - ε / V: the last two terms are added as products of their own,
    so that the chunk of probabilities is written once and never edited.
    """

    def __init__(
        self, hidden: Tensor, weight: Tensor, target: Tensor, label_smoothing: float, needs_grad: bool
    ) -> None:
        self.hidden, self.weight, self.target, self.epsilon = hidden, weight, target, label_smoothing
        self.needs_grad = needs_grad
        self.chunk = max(16, CHUNK_BYTES // (4 * len(weight)))
        self.logits = hidden.new_empty(min(self.chunk, len(hidden)), len(weight))
        self.probability = torch.empty_like(self.logits)
        self.log_normalizer = hidden.new_empty(len(hidden), dtype=torch.float32)
        self.target_logit = torch.empty_like(self.log_normalizer)
        self.correct = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        if needs_grad:
            self.grad_hidden = torch.empty_like(hidden)
            self.grad_weight = torch.zeros_like(weight, dtype=torch.float32)

    def add(self, rows: slice) -> None:
        hidden, target = self.hidden[rows], self.target[rows, None]
        logits, probability = self.logits[: len(hidden)], self.probability[: len(hidden)]
        torch.mm(hidden, self.weight.T, out=logits)
        highest = logits.amax(-1)
        target_logit = logits.gather(1, target).squeeze(1)
        self.target_logit[rows] = target_logit
        self.correct[rows] = target_logit >= highest
        torch.softmax(logits, -1, out=probability)
        # softmax at the highest logit is 1 / Σ exp(logit - highest), which cannot underflow
        self.log_normalizer[rows] = highest - probability.amax(-1).log()
        if self.needs_grad:
            torch.mm(probability, self.weight, out=self.grad_hidden[rows])
            _accumulate(self.grad_weight, probability.T, hidden)

    def totals(self) -> tuple[Tensor, Tensor, Tensor]:
        nll = (self.log_normalizer - self.target_logit).sum()
        logit_sum = (self.hidden.float().sum(0) * self.weight.float().sum(0)).sum()
        spread = self.log_normalizer.sum() - logit_sum / len(self.weight)
        return (1 - self.epsilon) * nll + self.epsilon * spread, nll, self.correct.sum()

    def gradients(self) -> tuple[Tensor, Tensor]:
        share, certain = self.epsilon / len(self.weight), 1 - self.epsilon
        self.grad_hidden.add_(self.weight[self.target], alpha=-certain)
        self.grad_weight.index_add_(0, self.target, self.hidden.float(), alpha=-certain)
        if share:
            self.grad_hidden.sub_(self.weight.sum(0), alpha=share)
            self.grad_weight.sub_(self.hidden.float().sum(0), alpha=share)
        return self.grad_hidden, self.grad_weight


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, with the sum kept in float32 whatever the factors are."""
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
