"""Tensor parallelism: the matrices of every block are cut over the processes (Shoeybi et al. 2019, section 3).

Those that make heads and hidden units are cut by columns, those that read them by rows, so that a process has some
heads and some hidden units from end to end, and two sums over the processes a block bring them together. Norms,
embeddings and head are whole everywhere, and so is what flows between blocks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from glassformer.layers.block import Block
from glassformer.layers.positions import RelativeBias

COLUMNS = ("to_query", "to_key", "to_value", "gate", "up")
"""Dense layers of a block, by their last names, of whose outputs each process has a part."""

ROWS = ("to_output", "down")
"""Those that read these parts. Their bias is added once, to the sum."""


def tensor_parallel(network: nn.Module, mesh: Any) -> None:
    """Cut the blocks of a network over a mesh of one dimension, in place. All processes must have the same network.

    The cut matrices become DTensors; everything else stays as it is. The numbers of heads, of key-value heads and of
    hidden units must be multiples of the mesh's size (`layouts.check_network`).
    """
    for module in network.modules():
        if isinstance(module, Block):
            cut_block(module, mesh)
        elif isinstance(module, RelativeBias):
            module.register_forward_hook(partial(_own_heads, mesh))


def cut_block(block: nn.Module, mesh: Any) -> None:
    """The DTensor plan of one block, with cross-attention or without, gated or not."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan: dict[str, Any] = {}
    for name, _ in dense_layers(block):
        plan[name] = ColwiseParallel() if name.rpartition(".")[2] in COLUMNS else RowwiseParallel()
    parallelize_module(block, mesh, plan, src_data_rank=None)  # every process has the numbers already


def dense_layers(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a block that are cut, with their names in it."""
    return [(name, module) for name, module in block.named_modules() if name.rpartition(".")[2] in (*COLUMNS, *ROWS)]


def _own_heads(mesh: Any, module: nn.Module, inputs: Any, bias: Tensor) -> Tensor:
    """Of a number for every head [R, H, Q, K], those of this process's heads; backward, the gradients of all."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    whole = DTensor.from_local(bias, mesh, [Replicate()], run_check=False)
    own: Tensor = whole.redistribute(placements=[Shard(1)]).to_local()
    return own
