"""A network with its objective, as one process trains it together with others, or alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glassformer.training.gradients import Backwards, Objective, gradient_norm


@dataclass(frozen=True)
class Learner:
    """A network with its objective, as this process trains them; by default alone.

    `network` is what the optimizer changes: all of the network, shares of its tensors, or a part of its modules, always
    under the names that these have in the `whole`. That is the same object where this process has everything, else a
    `skeleton`: no process holds all numbers. Backward passes run in `joined(last)`, where `last` says that gradients
    are complete after this one; or `backwards` runs those of a whole step. Gradients are means over `shares` processes,
    and `norm` gives their norm over all of the network.
    """

    network: nn.Module
    objective: Objective
    whole: nn.Module
    shares: int = 1
    joined: Callable[[bool], AbstractContextManager[object]] = lambda last: nullcontext()
    backwards: Backwards | None = None
    norm: Callable[[nn.Module], float] = gradient_norm

    @property
    def divided(self) -> bool:
        """Whether this process has a part only of the network, or of its tensors."""
        return self.network is not self.whole


def alone(network: nn.Module, objective: Objective) -> Learner:
    """A network that one process trains."""
    return Learner(network, objective, network)


def skeleton(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode whose parameters are on the meta device: names and shapes, no numbers."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    return copy.deepcopy(network, empty).eval()


def share_of(full: Tensor, part: Tensor) -> Tensor:
    """What a process has of `full`, a tensor that is whole everywhere, where it has of another as `part` is."""
    mesh = getattr(part, "device_mesh", None)
    if mesh is None or full.shape != part.shape:  # a plain parameter, or a counter of the optimizer
        return full
    from torch.distributed.tensor import distribute_tensor

    placements = part.placements  # type: ignore[attr-defined]
    return distribute_tensor(full.to(mesh.device_type), mesh, placements, src_data_rank=None)
