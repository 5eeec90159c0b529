"""Muon: momentum whose matrices are made orthogonal before they are added (Jordan et al. 2024)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic whose iteration pulls singular values towards 1; steep at 0, and not exact at 1 (Jordan et al.)."""


class Muon(torch.optim.Optimizer):
    """Muon on the groups of `matrices`, AdamW (`fused`, `betas`, `eps`) on those of `others`.

    M ← βM + (1 - β) G;  W ← W - η (0.2 √max(m, n) · orthogonal((1 - β) G + βM) + λW), with β = 0.95 (Nesterov's form).
    The factor 0.2 √max(m, n) gives an update the size that AdamW's has (Liu et al. 2025), so that both can share one
    learning rate η. A group may have a rate `lr` and a decoupled `weight_decay` λ of its own.

    The iteration runs in `dtype`, on all matrices of one shape together. In bfloat16, as Jordan et al. have it, it
    takes a fifth of the time of float32 on a CPU that multiplies it in hardware, and several times as long on others.
    Which it is, is fixed here, for all steps.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        fused: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        ours = [{"weight_decay": weight_decay, "momentum": momentum, **group} for group in matrices]
        self._adam = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=fused) if others else None
        super().__init__([*ours, *others], {"lr": lr})
        self._n_ours = len(ours)
        if self._adam is not None:
            self._adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        if self._adam is not None:
            for group, seen in zip(self._adam.param_groups, self.param_groups[self._n_ours :], strict=True):
                group["lr"] = seen["lr"]
            self._adam.step()
        for group in self.param_groups[: self._n_ours]:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for shape, parameters in by_shape.items():
            directions = torch.stack([self._direction(parameter, group["momentum"]) for parameter in parameters])
            rate = group["lr"] * 0.2 * math.sqrt(max(shape))
            for parameter, update in zip(parameters, orthogonal(directions, dtype=self.dtype), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return gradient.lerp(state["momentum"].lerp_(gradient, 1 - momentum), momentum)


def orthogonal(
    matrices: Float[Tensor, "K m n"], steps: int = 5, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "K m n"]:
    """About U Vᵀ of each matrix's U S Vᵀ, its singular values moved into 0.7 … 1.2, by Newton–Schulz iteration.

    The matrices are brought to norm 1 in float32, then iterated in `dtype`.
    """
    a, b, c = COEFFICIENTS
    x = matrices.float()
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype).contiguous()
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
