"""Data parallelism: every process has the whole network (Li et al. 2020, PyTorch Distributed)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from glassformer.training.gradients import Objective
from glassformer.training.parallel.layouts import joined_mesh
from glassformer.training.parallel.learner import Learner
from glassformer.training.parallel.step import Step, objective_of


def replicated(network: nn.Module, objective: Objective, mesh: Any) -> Learner:
    """The network as each process of the mesh's `data` × `context` trains it on its own rows and positions."""
    from torch.nn.parallel import DistributedDataParallel

    shares = joined_mesh(mesh, ("data", "shard", "context"))
    copies = DistributedDataParallel(
        Step(network, objective),
        process_group=shares.get_group(),
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )

    def joined(last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else copies.no_sync()

    return Learner(network, objective_of(copies), network, shares.size(), joined)
