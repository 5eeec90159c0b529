"""Pipeline parallelism: a network's blocks are dealt to stages, through which a batch goes in pieces, one by one.

A stage runs forward and backward passes in turn as soon as it can (1F1B: Narayanan et al. 2019, PipeDream), so that it
holds the activations of as many pieces as there are stages, and the gradients are those of the whole batch (GPipe:
Huang et al. 2019). The first stage has the embedding, the last one the final norm, the head and the objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glassformer.layers.block import Block
from glassformer.tasks.objectives import Loss
from glassformer.training.gradients import Objective, gradient_norm
from glassformer.training.parallel.learner import Learner, skeleton
from glassformer.training.parallel.pieces import Pieces, pieces_of
from glassformer.training.parallel.sharded import mixed
from glassformer.training.parallel.stages import Arriving, cut, hidden, stages_of
from glassformer.training.parallel.tensor import tensor_parallel


class Stage(nn.Module):
    """What one process has of a network. Its forward pass takes a piece of the batches from the stage before, as the
    states [rows, length, D] of it and its number, and gives the states after its blocks; on the last stage the loss."""

    def __init__(self, network: nn.Module, objective: Objective, index: int, stages: int) -> None:
        super().__init__()
        self.network, self.objective, self.index, self.last = network, objective, index, index == stages - 1
        self.pieces: list[Any] = []
        self.context: Callable[[int], AbstractContextManager[object]] = lambda number: nullcontext()
        self.losses: list[Loss] = []

    def forward(self, states: Tensor, number: Tensor) -> Tensor:
        batch = self.pieces[int(number)]
        embedding: Any = self.network.stack.embedding  # type: ignore[union-attr]
        if isinstance(embedding, Arriving):
            embedding.states = states
        with self.context(int(number)):
            if not self.last:
                return hidden(self.network, batch).float()
            loss = self.objective(self.network, batch)
        self.losses.append(Loss(loss.total.detach(), loss.count, loss.parts))
        return loss.total


class Pipeline:
    """Runs batches through the stages of a group of processes, of which this one has `stage`."""

    def __init__(self, stage: Stage, group: Any, device: torch.device) -> None:
        self.stage, self.group, self.device = stage, group, device
        self.stages = dist.get_world_size(group)
        config: Any = stage.network.config
        self.width, self.pad_id = config.d_model, config.pad_id
        self._schedules: dict[bool, tuple[tuple[int, int, int], Any]] = {}

    def __call__(
        self, batches: Sequence[Any], context: Callable[[int], AbstractContextManager[object]], learn: bool = True
    ) -> list[Loss]:
        """Forward passes of the batches, and where it is to `learn` backward passes; on the last stage their losses,
        zeros elsewhere. Each piece's forward pass runs in `context` of a number of its own."""
        pieces = pieces_of(batches, self.stages, self.pad_id)
        stage, schedule = self.stage, self._schedule(pieces, learn)
        stage.pieces, stage.losses = pieces.batches, []
        stage.context = lambda number: context(self.stages * number + stage.index)
        numbers = torch.arange(len(pieces.batches))
        given = (numbers,) if stage.index == 0 else ()
        with torch.set_grad_enabled(learn):
            run = schedule.step if learn else schedule.eval
            run(*given, number=numbers, target=numbers, return_outputs=False)
        nothing = torch.zeros(())
        return stage.losses or [Loss(nothing, 0, {"nll": nothing, "correct": nothing})]

    def _schedule(self, pieces: Pieces, learn: bool) -> Any:
        """The schedule for pieces of that number and shape, made anew when it is not that of the last batches: this
        takes a message along the stages. Shapes are said here, so that torch need not ask the stages for them."""
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        shape = (len(pieces.batches), pieces.rows, pieces.length)
        if learn not in self._schedules or self._schedules[learn][0] != shape:
            number = torch.zeros(1, dtype=torch.int64)
            states = torch.empty(pieces.rows, pieces.length, self.width, device=self.device, requires_grad=learn)
            stage = PipelineStage(
                self.stage,
                self.stage.index,
                self.stages,
                self.device,
                input_args=number if self.stage.index == 0 else states,
                output_args=torch.zeros((), device=self.device) if self.stage.last else states,
                group=self.group,
            )
            schedule = Schedule1F1B(stage, shape[0], lambda output, target: output, scale_grads=False)
            self._schedules[learn] = shape, schedule
        return self._schedules[learn][1]


def pipelined(
    network: nn.Module, objective: Objective, mesh: Any, device: torch.device, precision: str = "fp32"
) -> Learner:
    """The network as this process trains its stage of it; it is cut in place.

    Where the mesh has more than one place for a stage, its parameters are sharded over them, and gathered once a step,
    in bf16 as `sharded` does. Between stages flows fp32.
    """
    whole = skeleton(network)
    index, stages = mesh["pipeline"].get_local_rank(), mesh["pipeline"].size()
    shared = {name: where for name, where in stages_of(network, stages).items() if len(where) > 1}
    groups = _groups(shared, mesh)
    if mesh["tensor"].size() > 1:
        tensor_parallel(network, mesh["tensor"])
    cut(network, index, stages)
    stage = Stage(network, objective, index, stages)
    shares = mesh["data"].size() * mesh["shard"].size()
    if shares * mesh["tensor"].size() > 1:
        _shard(stage, mesh, precision)
    else:
        stage.to(device)
    run = Pipeline(stage, mesh["pipeline"].get_group(), device)

    def backwards(batches: Sequence[Any], context: Callable[[int], AbstractContextManager[object]]) -> list[Loss]:
        losses = run(batches, context)
        for name, parameter in network.named_parameters():
            if name in groups and parameter.grad is not None:
                dist.all_reduce(_local(parameter.grad), group=groups[name])
        return losses

    def held_out(network: nn.Module, batch: Any) -> Loss:
        return _sum(run([batch], lambda number: nullcontext(), learn=False))

    def norm(network: nn.Module) -> float:
        own = gradient_norm(network, but=[name for name, where in shared.items() if where[0] != index])
        squares = torch.tensor(own * own, dtype=torch.float64, device=device)
        dist.all_reduce(squares, group=run.group)
        return math.sqrt(float(squares))

    return Learner(network, held_out, whole, shares, backwards=backwards, norm=norm)


def _sum(losses: Sequence[Loss]) -> Loss:
    parts = {name: torch.stack([loss.parts[name] for loss in losses]).sum() for name in losses[0].parts}
    return Loss(torch.stack([loss.total for loss in losses]).sum(), sum(loss.count for loss in losses), parts)


def _local(x: Any) -> Tensor:
    """What this process has of a tensor."""
    own: Tensor = getattr(x, "to_local", lambda: x)()
    return own


def _shard(stage: Stage, mesh: Any, precision: str) -> None:
    """Share a stage's parameters out. They are gathered once a step and not once a pass, of which there are many."""
    from torch.distributed.fsdp import fully_shard

    where = mesh["data", "shard"] if mesh["data"].size() > 1 else mesh["shard"]
    for module in stage.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=where, reshard_after_forward=False, mp_policy=mixed(precision))
    fully_shard(stage, mesh=where, reshard_after_forward=False, mp_policy=mixed(precision, cast_inputs=True))


def _groups(shared: dict[str, tuple[int, ...]], mesh: Any) -> dict[str, Any]:
    """For each parameter that several stages have, the processes of this one's pipeline that have it."""
    found: dict[str, Any] = {}
    for where in dict.fromkeys(shared.values()):
        for pipeline in mesh.mesh.flatten(1).T.tolist():
            members = [pipeline[stage] for stage in where]
            group = dist.new_group(members)
            if dist.get_rank() in members:
                found |= {name: group for name, places in shared.items() if places == where}
    return found
