"""One step's gradients: of the summed loss over all micro-batches, divided by the summed count."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.layers.dropout import dropout_generator
from glassformer.tasks.objectives import Loss
from glassformer.training.precision import autocast
from glassformer.training.ranks import ALONE, Ranks

Objective = Callable[[Any, Any], Loss]

Backwards = Callable[[Sequence[Any], Callable[[int], AbstractContextManager[object]]], Iterable[Loss]]
"""Forward and backward passes of a step's batches, and their losses. A forward pass runs in the context of a number,
which decides what it draws."""


def dropout_seed(seed: int, step: int, micro_batch: int, rank: int = 0) -> int:
    """A seed that depends on all four and nothing else, so that a resumed step draws what it would have drawn."""
    key = hashlib.blake2b(struct.pack("<4q", seed, step, micro_batch, rank), digest_size=8).digest()
    return int.from_bytes(key, "little") >> 1


def accumulate(
    network: nn.Module,
    objective: Objective,
    batches: Sequence[Any],
    *,
    seed: int,
    step: int,
    precision: str = "fp32",
    ranks: Ranks = ALONE,
    joined: Callable[[bool], AbstractContextManager[object]] = lambda last: nullcontext(),
    shares: int = 1,
    backwards: Backwards | None = None,
) -> dict[str, float]:
    """Leave the gradients of Σ totals / Σ counts in the parameters' `.grad`, and return the sums.

    The result has `loss` (summed), `count`, and every part of the objective's `Loss`, summed. The gradients do not
    depend on how the rows were cut into `batches`, nor on how these lie on `ranks`: the sums go over all of them, and
    the backward passes, run in `joined` unless `backwards` runs them, leave the mean gradient of `shares` processes
    (see `parallel.Learner`).
    """
    device = next(network.parameters()).device

    @contextmanager
    def forward(micro_batch: int) -> Iterator[None]:
        generator = torch.Generator(device).manual_seed(dropout_seed(seed, step, micro_batch, ranks.share))
        with dropout_generator(generator), autocast(device, precision):
            yield

    sums: dict[str, float] = {"loss": 0.0, "count": 0.0}
    for loss in (backwards or _in_turn(network, objective, joined))(batches, forward):
        add_sums(sums, loss)
    sums = ranks.total(sums)
    torch._foreach_div_(_gradients(network), max(sums["count"], 1.0) / shares)
    return sums


def _in_turn(
    network: nn.Module, objective: Objective, joined: Callable[[bool], AbstractContextManager[object]]
) -> Backwards:
    def backwards(batches: Sequence[Any], forward: Callable[[int], AbstractContextManager[object]]) -> Iterator[Loss]:
        for micro_batch, batch in enumerate(batches):
            with joined(micro_batch + 1 == len(batches)):
                with forward(micro_batch):
                    loss = objective(network, batch)
                loss.total.backward()
            yield loss

    return backwards


def add_sums(sums: dict[str, float], loss: Loss) -> None:
    """Add a loss and its parts to running sums, as Python floats (exact in JSON)."""
    found = {"loss": float(loss.total.detach()), "count": float(loss.count)}
    found.update((name, float(value)) for name, value in loss.parts.items())
    for name, value in found.items():
        sums[name] = sums.get(name, 0.0) + value


def gradient_norm(network: nn.Module, but: Collection[str] = ()) -> float:
    """The L2 norm of all gradients, without those of the parameters `but` (names); of all shares, where sharded."""
    alike: dict[object, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and name not in but:
            where = (getattr(parameter.grad, "device_mesh", None), getattr(parameter.grad, "placements", None))
            alike.setdefault(where, []).append(parameter.grad)
    norms = [torch.nn.utils.get_total_norm(gradients) for gradients in alike.values()]
    return math.hypot(*(float(getattr(norm, "full_tensor", lambda norm=norm: norm)()) for norm in norms))


def clip_gradients(network: nn.Module, limit: float, norm: Callable[[nn.Module], float] = gradient_norm) -> float:
    """The gradients' `norm`; where `limit` > 0 is exceeded they are scaled down to it."""
    found = norm(network)
    if limit > 0 and math.isfinite(found) and found > limit:
        torch._foreach_mul_(_gradients(network), limit / found)
    return found


def _gradients(network: nn.Module) -> list[Tensor]:
    """What this process has of all gradients: plain tensors, which may be changed in place."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return [getattr(g, "to_local", lambda g=g: g)() for g in gradients]
