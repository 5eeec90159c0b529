"""Parallelism, applied to a finished network from outside: the network knows nothing of it.

    mesh = pipeline × data × shard × context × tensor      one process a place
    data:  every process has the network; gradients are averaged (DistributedDataParallel)
    shard: every process has a share of each parameter, gathered block by block (FSDP2, `fully_shard`)

The rows of a batch are dealt to the data × shard places. Each place sums its losses and the sums are added up, so
what is optimised is the mean over the batch's tokens, wherever these lie.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import InputError
from glassformer.layers.block import Block
from glassformer.tasks.objectives import Loss
from glassformer.text.batches import Batches, Cursor, Rows
from glassformer.training.gradients import Objective
from glassformer.training.ranks import Ranks
from glassformer.training.recipes import Parallel, Recipe


def check_layout(recipe: Recipe, size: int) -> None:
    """`InputError` where the recipe's layout does not fit `size` processes, or asks for what is not there."""
    wanted = recipe.parallel
    missing = [name for name in ("tensor", "pipeline", "context") if getattr(wanted, name) > 1]
    if missing:
        raise InputError(f"'parallel.{missing[0]}' is not there yet: use 'parallel.data' and 'parallel.shard'.")
    if wanted.processes != size:
        asked = f"they ask for {wanted.processes}" + (f" ({wanted})" if str(wanted) else "")
        here = f"there are {size}" if size > 1 else "there is one"
        start = f"start it as torchrun --nproc-per-node {wanted.processes} -m glassformer train …"
        start = start if wanted.processes > 1 else "start it without torchrun"
        what = start if size == 1 else f"set --parallel.data {size}, or {start}"
        raise InputError(f"The sizes of [parallel] must multiply to the number of processes: {asked}, {here}; {what}.")
    if wanted.shard > 1 and recipe.training.optimizer == "muon":
        raise InputError("Muon needs whole matrices: use 'parallel.data' in place of 'parallel.shard', or adamw.")


def refitted(parallel: Parallel, size: int) -> Parallel:
    """The layout for another number of processes: `shard` takes them where it was used, else `data`.

    `InputError` where the other sizes do not divide their number.
    """
    if parallel.processes == size:
        return parallel
    fixed = parallel.tensor * parallel.pipeline * parallel.context
    if size % fixed:
        raise InputError(f"{size} processes cannot be dealt to {parallel}: their number must be a multiple of {fixed}.")
    free = "shard" if parallel.shard > 1 else "data"
    return dataclasses.replace(parallel, **{"data": 1, "shard": 1, free: size // fixed})


@dataclass(frozen=True)
class Learner:
    """A network with its objective, as this process trains them; by default alone.

    `network` is what the optimizer changes and `whole` the same network as everybody knows it, which is another object
    only where `network` is sharded. Backward passes run in `joined(last)`, where `last` says that gradients are
    complete after this one. Gradients are means over `shares` processes.
    """

    network: nn.Module
    objective: Objective
    whole: nn.Module
    shares: int = 1
    joined: Callable[[bool], AbstractContextManager[object]] = lambda last: nullcontext()

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


def applied(
    network: nn.Module, objective: Objective, parallel: Parallel, ranks: Ranks, device: torch.device
) -> Learner:
    """The network as this process and the others train it together. The network must be the same in all of them.

    `InputError` where there are more processes on a machine than GPUs to train on.
    """
    if ranks.size == 1:
        return alone(network.to(device), objective)
    from torch.distributed.device_mesh import init_device_mesh

    ranks.together(lambda: _check_device(device))
    sizes = {name: getattr(parallel, name) for name in ("pipeline", "data", "shard", "context", "tensor")}
    mesh = init_device_mesh(device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    if parallel.shard == 1:
        return _replicated(network.to(device), objective, mesh)
    return _sharded(network, objective, mesh)


def _check_device(device: torch.device) -> None:
    count = torch.cuda.device_count()
    if device.type == "cuda" and count <= int(os.environ.get("LOCAL_RANK", "0")):
        raise InputError(
            f"this machine has {count} GPUs for more processes: start as many as there are GPUs, or set "
            "'training.device' to \"cpu\"."
        )


def _replicated(network: nn.Module, objective: Objective, mesh: Any) -> Learner:
    from torch.nn.parallel import DistributedDataParallel

    copies = DistributedDataParallel(
        _Step(network, objective),
        process_group=mesh["data"].get_group(),
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )

    def joined(last: bool) -> AbstractContextManager[object]:
        return nullcontext() if last else copies.no_sync()

    return Learner(network, _objective(copies), network, mesh["data"].size(), joined)


def _sharded(network: nn.Module, objective: Objective, mesh: Any) -> Learner:
    """Each block is gathered when it runs, and let go after; all else (embedding, norms, head) once a pass.

    Blocks with cross-attention count as such else: their keys and values of the source are made before they run.
    """
    from torch.distributed.fsdp import fully_shard

    part = copy.deepcopy(network)  # goes to the device share by share, and is never whole there
    step = _Step(part, objective)
    where = mesh["data", "shard"] if mesh["data"].size() > 1 else mesh["shard"]
    for module in part.modules():
        if isinstance(module, Block) and module.cross_attention is None:
            fully_shard(module, mesh=where)
    fully_shard(step, mesh=where)
    loss = _objective(step)

    def sharded(network: Any, batch: Any) -> Loss:
        found = loss(network, batch)
        if not torch.is_grad_enabled():
            step.reshard()  # type: ignore[operator]  # else done by the backward pass
        return found

    whole = network.eval()  # it is looked at, never trained
    return Learner(part, sharded, whole, mesh["data"].size() * mesh["shard"].size())


class _Step(nn.Module):
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


def _objective(step: nn.Module) -> Objective:
    """A wrapped step in the place of an objective. The network is the one that it was made of."""
    return lambda network, batch: Loss(*step(batch))


@dataclass(frozen=True)
class Borrowed:
    """A batch for a process that has no row of it: another one's row, to run with the others, which counts nothing."""

    batch: Any
    n_tokens: int = 0

    def to(self, device: torch.device | str) -> Borrowed:
        """The same batch on `device`."""
        return Borrowed(self.batch.to(device))

    def parts(self) -> list[Borrowed]:
        """The batch itself."""
        return [self]


class Dealt:
    """`Batches` as one of `shares` processes sees them: the same batches, of each every `shares`-th row.

    All processes go through the same epochs, and a cursor names the same place in all of them, whatever their number.
    """

    def __init__(self, batches: Batches[Any], share: int, shares: int) -> None:
        self.batches, self.share, self.shares = batches, share, shares

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int) -> list[Rows]:
        """See `Batches.epoch`: the whole batches."""
        return self.batches.epoch(number)

    def batch(self, rows: Rows, epoch: int = 0) -> Any:
        """This process's rows of a batch as tensors."""
        own = rows[self.share :: self.shares]
        return self.batches.batch(own, epoch) if len(own) else Borrowed(self.batches.batch(rows[:1], epoch))

    def once(self) -> Iterator[Any]:
        """See `Batches.once`; each process has its rows of every batch."""
        return (self.batch(rows) for rows in self.epoch(0))

    def padding(self, number: int = 0) -> float:
        """See `Batches.padding`."""
        return self.batches.padding(number)

    def restore(self, state: Mapping[str, int]) -> Cursor[Any]:
        """See `Batches.restore`."""
        return Cursor(self, state["epoch"], state["index"])


def dealt(batches: Batches[Any], parallel: Parallel, ranks: Ranks) -> Batches[Any]:
    """The batches of which this process takes its rows; the batches themselves for one process."""
    shares = parallel.data * parallel.shard
    if shares == 1:
        return batches
    # place in pipeline × data × shard × context × tensor, whose last dimensions vary fastest
    share = ranks.rank // (parallel.context * parallel.tensor) % shares
    return Dealt(batches, share, shares)
