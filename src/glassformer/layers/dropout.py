"""Dropout (Srivastava et al. 2014) whose random numbers are cheap on a CPU and belong to whoever trains.

One 64-bit draw decides eight elements, by a byte each, so the probability is rounded to a multiple of 1/256; what is
kept is scaled by the exact inverse of the rounded probability. Side by side on two cores, [3600, 128] takes 1.3 ms and
`torch.nn.functional.dropout` 5.3: with the latter a small Transformer spends a fifth of its training step here.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

_generator: torch.Generator | None = None


@contextmanager
def dropout_generator(generator: torch.Generator) -> Iterator[None]:
    """Every `Dropout` inside draws from `generator` instead of torch's default one (one training thread a process)."""
    global _generator
    previous, _generator = _generator, generator
    try:
        yield
    finally:
        _generator = previous


def repeatable() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for something that is computed now and once more later: what the second draws is what the first does."""
    if _generator is None:
        return nullcontext(), nullcontext()
    again = torch.Generator(_generator.device)
    again.set_state(_generator.get_state())
    return nullcontext(), dropout_generator(again)


class Dropout(nn.Module):
    """In training, zero each element with probability `p` and scale the rest by 1 / (1 - p); else identity."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * 256)
        if not self.training or dropped == 0:
            return x
        return x * _keep(x, dropped) * (256 / (256 - dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _keep(x: Tensor, dropped: int) -> Tensor:
    """Boolean, shaped as `x`: True with probability 1 - dropped / 256."""
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None, generator=_generator)
    return (draws.view(torch.uint8)[: x.numel()] >= dropped).view(x.shape)
