"""Network and objective as one module, for what acts on a forward pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from glassformer.tasks.objectives import Loss
from glassformer.training.gradients import Objective
from glassformer.training.parallel.dealing import Borrowed


class Step(nn.Module):
    """Network and objective as one module whose forward pass is the loss: torch's wrappers act on a forward pass."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, batch: Any) -> tuple[Tensor, int, dict[str, Tensor]]:
        if not isinstance(batch, Borrowed):
            loss = self.objective(self.network, batch)
            return loss.total, loss.count, loss.parts
        loss = self.objective(self.network, batch.batch)
        return loss.total * 0.0, 0, {name: value * 0 for name, value in loss.parts.items()}


def objective_of(step: nn.Module) -> Objective:
    """A wrapped step in the place of an objective. The network is the one that it was made of."""
    return lambda network, batch: Loss(*step(batch))
