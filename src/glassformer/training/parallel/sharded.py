"""Sharding: every process has a share of each parameter, gradient and moment (FSDP2; Rajbhandari et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from glassformer.layers.block import Block
from glassformer.tasks.objectives import Loss
from glassformer.training.gradients import Objective
from glassformer.training.parallel.layouts import joined_mesh
from glassformer.training.parallel.learner import Learner, skeleton
from glassformer.training.parallel.step import Step, objective_of
from glassformer.training.parallel.tensor import tensor_parallel


def mixed(precision: str, cast_inputs: bool = False) -> Any:
    """FSDP's policy for "fp32" or "bf16"; with `cast_inputs` what goes into a module is cast as its parameters are."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if precision != "bf16":
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=cast_inputs)


def sharded(network: nn.Module, objective: Objective, mesh: Any, precision: str = "fp32") -> Learner:
    """Each block is gathered when it runs, and let go after; all else (embedding, norms, head) once a pass.

    Blocks with cross-attention count as such else: their keys and values of the source are made before they run. What
    tensor parallelism has cut is sharded further, and the processes of a context group share as those of `shard` do.
    In bf16 parameters are cast before they are gathered, once for all that use them; gradients are summed in fp32, and
    the shares that the optimizer changes are fp32.
    """
    from torch.distributed.fsdp import fully_shard

    policy = mixed(precision)
    whole = skeleton(network)
    step = Step(network, objective)
    if mesh["tensor"].size() > 1:
        tensor_parallel(network, mesh["tensor"])
    inner = joined_mesh(mesh, ("shard", "context"))
    where = mesh["data", inner.mesh_dim_names[0]] if mesh["data"].size() > 1 else inner
    for module in network.modules():
        if isinstance(module, Block) and module.cross_attention is None:
            fully_shard(module, mesh=where, mp_policy=policy)
    fully_shard(step, mesh=where, mp_policy=policy)
    loss = objective_of(step)

    def released(network: Any, batch: Any) -> Loss:
        found = loss(network, batch)
        if not torch.is_grad_enabled():
            step.reshard()  # type: ignore[operator]  # else done by the backward pass
        return found

    return Learner(network, released, whole, mesh["data"].size() * inner.size())
