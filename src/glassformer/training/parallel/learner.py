"""A network with its objective, as one process trains it together with others, or alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.training.gradients import Backwards, Objective, gradient_norm


@dataclass(frozen=True)
class Learner:
    """A network with its objective, as this process trains them; by default alone.

    `network` is what the optimizer changes and `whole` the same network as everybody knows it, which is another object
    only where `network` is sharded. Backward passes run in `joined(last)`, where `last` says that gradients are
    complete after this one; or `backwards` runs those of a whole step. Gradients are means over `shares` processes, and
    `norm` gives their norm over all of the network.
    """

    network: nn.Module
    objective: Objective
    whole: nn.Module
    shares: int = 1
    joined: Callable[[bool], AbstractContextManager[object]] = lambda last: nullcontext()
    backwards: Backwards | None = None
    norm: Callable[[nn.Module], float] = gradient_norm

    @torch.no_grad()
    def collect(self) -> None:
        """Bring `whole` up to date with what was trained. All processes must call it, as `spread` and `gathered`."""
        for part, full in self._pairs():
            full.copy_(part.full_tensor())

    @torch.no_grad()
    def spread(self) -> None:
        """Bring what is trained up to date with `whole`."""
        for part, full in self._pairs():
            part.copy_(share_of(full, part))

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of which each process may have a share, whole and on the CPU."""
        if self.network is self.whole:
            return dict(tensors)
        return {name: getattr(x, "full_tensor", lambda x=x: x)().cpu() for name, x in tensors.items()}

    def _pairs(self) -> Iterator[tuple[Any, Tensor]]:
        if self.network is not self.whole:
            yield from zip(self.network.parameters(), self.whole.parameters(), strict=True)


def alone(network: nn.Module, objective: Objective) -> Learner:
    """A network that one process trains."""
    return Learner(network, objective, network)


def share_of(full: Tensor, part: Tensor) -> Tensor:
    """What a process has of `full`, a tensor that is whole everywhere, where it has of another as `part` is."""
    mesh = getattr(part, "device_mesh", None)
    if mesh is None or full.shape != part.shape:  # a plain parameter, or a counter of the optimizer
        return full
    from torch.distributed.tensor import distribute_tensor

    placements = part.placements  # type: ignore[attr-defined]
    return distribute_tensor(full.to(mesh.device_type), mesh, placements, src_data_rank=None)
