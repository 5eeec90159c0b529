"""One block, the embedding and the head of a decoder, run forward and backward on fake tensors, as one rank would.

Nothing is computed and no memory is taken: `FakeTensorMode` gives every tensor a shape and no numbers, and torch's
process group "fake" lets this one process be a rank of any world. So what a step of 175 billion parameters needs is
counted from the very modules that a small model trains with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from glassformer.layers.cross_entropy import linear_cross_entropy, rows_at_once
from glassformer.layers.positions import rotary
from glassformer.models import assembly
from glassformer.models.config import Config, Rotary
from glassformer.models.heads import language_head
from glassformer.planning.watch import Collective, Operation, Watch, local
from glassformer.training.parallel.tensor import cut_block

Precision = str
"""What products are computed in: "fp32", or "bf16" by autocast. Weights, gradients and optimizer are fp32 in either."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a piece did on one rank: its own numbers (`parameters`), of which `cast` bytes of copies in another type are
    kept through a step; bytes `kept` from forward to backward (what it hands on included, its input not); the most
    bytes held beyond these while going forward (`forward_peak`), while going backward with gradients of its weights
    made anew (`backward_peak`) and with gradients that are there to be added to (`adding_peak`); the operations and
    collectives of both ways."""

    parameters: int
    cast: int
    kept: int
    forward_peak: int
    backward_peak: int
    adding_peak: int
    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]
    collectives_forward: tuple[Collective, ...] = ()
    collectives_backward: tuple[Collective, ...] = ()


@contextmanager
def fake_world(size: int) -> Iterator[None]:
    """This process as rank 0 of `size` that are not there: collectives return at once."""
    assert not torch.distributed.is_initialized(), "a process group exists already"
    hook = sys.excepthook  # torch puts the rank before every line of a traceback, once more with each new group
    torch.distributed.init_process_group("fake", rank=0, world_size=size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        sys.excepthook = hook


@lru_cache(maxsize=128)
def run_block(
    config: Config, length: int, rows: int, tensor: int, precision: Precision, band: int | None = None
) -> Run:
    """One block and `rows` rows of `length` tokens, its matrices cut over `tensor` ranks by the plan that training
    cuts them by (`training.parallel.tensor`). Remembered: the plans of several machines ask for the same."""
    with fake_world(tensor):
        mesh = init_device_mesh("cpu", (tensor,)) if tensor > 1 else None
        with FakeTensorMode(allow_non_fake_inputs=True):
            block = _block(config, mesh, band)
            places = config.positions
            rotation = rotary(length, config.head_width, places.base) if isinstance(places, Rotary) else None

            def through(x: Tensor) -> Tensor:
                return block(x, causal=True, rotation=rotation)

            def states() -> Tensor:
                return torch.empty(rows, length, config.d_model).requires_grad_()

            if mesh is not None:  # DTensor tries a new operation on whole tensors, to learn its shapes
                for weight in block.parameters():
                    weight.grad = torch.empty_like(weight)  # that is added to: one more operation
                _watched(list(block.parameters()), through, states(), precision)
            return _run(block, through, states(), precision)


def run_embedding(config: Config, length: int, rows: int, precision: Precision) -> Run:
    """Vectors of tokens and of their positions."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        embedding = assembly.stack(config, 0, _token(config), causal=True).embedding.train()
        return _run(embedding, embedding, torch.zeros(rows, length, dtype=torch.int64), precision)


def run_head(config: Config, tokens: int, precision: Precision, device: str = "cpu") -> Run:
    """The final norm and the loss of `tokens` tokens, on a device of that type ("cpu", "cuda").

    The loss visits a few tokens at a time, all alike, so two short runs say what a long one does.
    """
    chunk = rows_at_once(config.vocab_size, device)
    few = 4 * chunk
    if tokens <= 2 * few:
        return _short_head(config, tokens, precision, chunk)
    one, two = (_short_head(config, n, precision, chunk) for n in (few, 2 * few))
    return _longer(one, two, tokens / few)


@lru_cache(maxsize=8)
def _short_head(config: Config, tokens: int, precision: Precision, chunk: int) -> Run:
    with FakeTensorMode(allow_non_fake_inputs=True):
        head = _Head(config, chunk).train()
        return _run(head, head, torch.empty(tokens, config.d_model).requires_grad_(), precision)


def mean(runs: Mapping[Run, int]) -> Run:
    """A block like the average of several kinds, of each of which there are so many; the most that one holds beside
    what is kept is the most of any."""
    first, total = next(iter(runs)), sum(runs.values())
    if len(runs) == 1:
        return first

    def shares(ways: Callable[[Run], tuple[Operation, ...]]) -> tuple[Operation, ...]:
        return tuple(
            Operation(o.name, round(o.flops * n / total), round(o.moved * n / total))
            for run, n in runs.items()
            for o in ways(run)
        )

    return replace(
        first,
        kept=sum(run.kept * n for run, n in runs.items()) // total,
        forward_peak=max(run.forward_peak for run in runs),
        backward_peak=max(run.backward_peak for run in runs),
        adding_peak=max(run.adding_peak for run in runs),
        forward=shares(lambda run: run.forward),
        backward=shares(lambda run: run.backward),
    )


def _longer(one: Run, two: Run, times: float) -> Run:
    """A run of `times` as many tokens as `one`, `two` having twice as many."""

    def affine(first: int, second: int) -> int:
        return first + round((times - 1) * (second - first))

    def more(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
        return tuple(Operation(o.name, round(o.flops * times), round(o.moved * times)) for o in operations)

    return Run(
        one.parameters,
        one.cast,
        affine(one.kept, two.kept),
        affine(one.forward_peak, two.forward_peak),
        affine(one.backward_peak, two.backward_peak),
        affine(one.adding_peak, two.adding_peak),
        more(one.forward),
        more(one.backward),
    )


def _token(config: Config) -> nn.Embedding:
    return nn.Embedding(config.vocab_size, config.d_model)


class _Head(nn.Module):
    """The final norm and the loss of the next word, which is what stands above the last block in training."""

    def __init__(self, config: Config, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk
        self.head: Any = language_head(config, _token(config))
        self.norm = assembly.norm(config) if config.norm_first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        target = torch.zeros(len(x), dtype=torch.int64)
        return linear_cross_entropy(self.norm(x), self.head.weight, target, 0.0, self.head.bias, self.chunk)[0]


def _block(config: Config, mesh: DeviceMesh | None, band: int | None) -> nn.Module:
    block = assembly.block(config, band=band)
    if mesh is not None:
        cut_block(block, mesh)
    return block.train()


def _run(module: nn.Module, through: Callable[[Tensor], Tensor], x: Tensor, precision: Precision) -> Run:
    """Twice: without gradients, and with those of the first time there to be added to."""
    weights = list(module.parameters())
    for weight in weights:
        weight.grad = None
    first, second = (_watched(weights, through, x, precision) for _ in range(2))
    return replace(first, adding_peak=second.backward_peak)


def _watched(weights: list[nn.Parameter], through: Callable[[Tensor], Tensor], x: Tensor, precision: Precision) -> Run:
    x.grad = None
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    with Watch(weights, [x, *gradients]) as watch:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            y = through(x)
        cast, held, forward_peak = watch.casts, watch.held, watch.peak
        n_operations, n_collectives = len(watch.operations), len(watch.collectives)
        watch.peak = watch.held
        y.backward(torch.empty_like(y))
    operations, collectives = tuple(watch.operations), tuple(watch.collectives)
    return Run(
        sum(local(weight).numel() for weight in weights),
        cast,
        held - cast,
        forward_peak - held,
        watch.peak - held,
        watch.peak - held,
        operations[:n_operations],
        operations[n_operations:],
        collectives[:n_collectives],
        collectives[n_collectives:],
    )
