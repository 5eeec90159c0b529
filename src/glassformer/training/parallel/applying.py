"""From a finished network to what this process trains of it."""

from __future__ import annotations

import logging
import os

import torch
from torch import nn

from glassformer.errors import InputError
from glassformer.training.gradients import Objective
from glassformer.training.parallel.context import across
from glassformer.training.parallel.layouts import check_network
from glassformer.training.parallel.learner import Learner, alone
from glassformer.training.parallel.pipelining import pipelined
from glassformer.training.parallel.replicated import replicated
from glassformer.training.parallel.sharded import sharded
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel


def applied(
    network: nn.Module,
    objective: Objective,
    parallel: Parallel,
    ranks: Ranks,
    device: torch.device,
    precision: str = "fp32",
) -> Learner:
    """The network as this process and the others train it together. The network must be the same in all of them.

    `InputError` where there are more processes on a machine than GPUs to train on, and of `check_network`.
    """
    if ranks.size == 1:
        return alone(network.to(device), objective)
    from torch.distributed.device_mesh import init_device_mesh

    ranks.together(lambda: _check(network, parallel, device))
    _quiet()
    sizes = {name: getattr(parallel, name) for name in ("pipeline", "data", "shard", "context", "tensor")}
    mesh = init_device_mesh(device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    if parallel.pipeline > 1:
        return pipelined(network, objective, mesh, device, precision)
    if parallel.context > 1:
        objective = across(objective, mesh["context"])
    if parallel.shard == 1 and parallel.tensor == 1:
        return replicated(network.to(device), objective, mesh)
    return sharded(network, objective, mesh, precision)


def _quiet() -> None:
    """Torch warns where a norm over shares of two kinds is summed up in two goes: a few bytes a step."""
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def _check(network: nn.Module, parallel: Parallel, device: torch.device) -> None:
    check_network(network, parallel)
    count = torch.cuda.device_count()
    if device.type == "cuda" and count <= int(os.environ.get("LOCAL_RANK", "0")):
        raise InputError(
            f"this machine has {count} GPUs for more processes: start as many as there are GPUs, or set "
            "'training.device' to \"cpu\"."
        )
