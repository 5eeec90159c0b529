"""Data parallelism: every process has the whole network (Li et al. 2020, PyTorch Distributed)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from glassformer.training.gradients import Objective
from glassformer.training.parallel.learner import Learner
from glassformer.training.parallel.step import Step, objective_of


def replicated(network: nn.Module, objective: Objective, mesh: Any) -> Learner:
    """The network as each process of the mesh's `data` trains it on its own rows."""
    from torch.nn.parallel import DistributedDataParallel

    copies = DistributedDataParallel(
        Step(network, objective),
        process_group=mesh["data"].get_group(),
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )

    def joined(last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else copies.no_sync()

    return Learner(network, objective_of(copies), network, mesh["data"].size(), joined)
