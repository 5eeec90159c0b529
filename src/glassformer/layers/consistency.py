"""Two readings of one batch, each with its own dropout, that are asked to agree: R-Drop (Wu et al. 2021).

What a network says with some of its units dropped is one of many opinions. Cross-entropy teaches each of them alone;
the divergence between two teaches them to say the same, which is what a network without dropout does afterwards. It
costs a second forward and backward pass, and is for networks that are large for their data.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from glassformer.layers.cross_entropy import rows_at_once
from glassformer.layers.linear import cast_once


def divergence(first: Float[Tensor, "B C"], second: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    """½ (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)) of the distributions that two tensors of logits stand for, summed over rows."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return 0.5 * (F.kl_div(q, p, reduction="sum", log_target=True) + F.kl_div(p, q, reduction="sum", log_target=True))


def consistent_cross_entropy(
    hidden: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, "N"],
    consistency: float,
    label_smoothing: float = 0.0,
    bias: Float[Tensor, "V"] | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Summed over rows: (loss, negative log-likelihood, number of rows whose target is the most likely); the last two
    are means of both readings and have no gradient.

    loss = ½ (CE₁ + CE₂) + α/4 · (KL(p₁ ‖ p₂) + KL(p₂ ‖ p₁)), with α = `consistency` and CE as in
    `linear_cross_entropy`: half of equation 4 of Wu et al. 2021, so that with α = 0 it is the mean of two plain losses.
    Some rows of logits exist at a time, as there.
    """
    first, second = (cast_once(one) for one in hidden)
    return _Consistent.apply(first, second, weight, target, consistency, label_smoothing, bias, chunk)


class _Consistent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        weight: Tensor,
        target: Tensor,
        consistency: float,
        label_smoothing: float,
        bias: Tensor | None,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        matrix = weight.to(first.dtype)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        grads = torch.empty_like(first), torch.empty_like(second)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = torch.zeros(len(weight), device=weight.device)
        sums = torch.zeros(3, device=weight.device)
        step = chunk or rows_at_once(len(weight), first.device.type)
        for start in range(0, len(first), step):
            rows = slice(start, start + step)
            both = first[rows], second[rows]
            logits = [(one @ matrix.T).float() if bias is None else (one @ matrix.T + bias).float() for one in both]
            found, slopes = _visit(logits, target[rows], consistency, label_smoothing)
            sums += found
            for one, slope, grad in zip(both, slopes, grads, strict=True):
                grad_bias += slope.sum(0)
                slope = slope.to(one.dtype)
                grad[rows] = slope @ matrix
                grad_weight += slope.T @ one
        ctx.save_for_backward(*grads, grad_weight, None if bias is None else grad_bias)
        loss, nll, correct = sums.unbind()
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        first, second, weight, bias = ctx.saved_tensors
        for_weight, for_bias = ctx.dtypes
        return (
            first * grad_loss,
            second * grad_loss,
            (weight * grad_loss).to(for_weight),
            None,
            None,
            None,
            None if bias is None else (bias * grad_loss).to(for_bias),
            None,
        )


def _visit(
    logits: list[Float[Tensor, "n V"]], target: Int[Tensor, "n"], consistency: float, label_smoothing: float
) -> tuple[Float[Tensor, "3"], list[Float[Tensor, "n V"]]]:
    """The three sums of some rows, and d loss / d logits of either reading.

    d KL(p ‖ q) / d logits of p = p (log p/q - KL(p ‖ q)), and d KL(q ‖ p) / d logits of p = p - q.
    """
    words, column = logits[0].shape[-1], target[:, None]
    logs = [one.log_softmax(-1) for one in logits]
    p, q = (one.exp() for one in logs)
    ratio = logs[0] - logs[1]
    forth, back = (p * ratio).sum(-1, keepdim=True), -(q * ratio).sum(-1, keepdim=True)
    nll = -(logs[0].gather(1, column) + logs[1].gather(1, column)).sum() / 2
    spread = -(logs[0].sum() + logs[1].sum()) / (2 * words)
    loss = (1 - label_smoothing) * nll + label_smoothing * spread + consistency / 4 * (forth.sum() + back.sum())
    right = [one.gather(1, column) >= one.amax(-1, keepdim=True) for one in logs]
    apart = (consistency / 4) * (p - q)
    slopes = [
        (p * (0.5 + (consistency / 4) * (ratio - forth))).add_(apart),
        (q * (0.5 - (consistency / 4) * (ratio + back))).sub_(apart),
    ]
    for slope in slopes:
        slope.sub_(label_smoothing / (2 * words))
        slope.scatter_add_(1, column, slope.new_full(column.shape, -(1 - label_smoothing) / 2))
    return torch.stack([loss, nll, torch.cat(right).sum() / 2]), slopes
