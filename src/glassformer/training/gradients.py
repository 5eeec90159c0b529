"""One step's gradients: of the summed loss over all micro-batches, divided by the summed count."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from glassformer.layers.dropout import dropout_generator
from glassformer.tasks.objectives import Loss
from glassformer.training.precision import autocast
from glassformer.training.ranks import ALONE, Ranks

Objective = Callable[[Any, Any], Loss]


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
) -> dict[str, float]:
    """Leave the gradients of Σ totals / Σ counts in the parameters' `.grad`, and return the sums.

    The result has `loss` (summed), `count`, and every part of the objective's `Loss`, summed. The gradients do not
    depend on how the rows were cut into `batches`, nor on how these lie on `ranks`: the sums go over all of them, and
    the backward passes, run in `joined`, leave the mean gradient of `shares` processes (see `parallel.Learner`).
    """
    device = next(network.parameters()).device
    sums: dict[str, float] = {"loss": 0.0, "count": 0.0}
    for micro_batch, batch in enumerate(batches):
        generator = torch.Generator(device).manual_seed(dropout_seed(seed, step, micro_batch, ranks.rank))
        with joined(micro_batch + 1 == len(batches)):
            with dropout_generator(generator), autocast(device, precision):
                loss = objective(network, batch)
            loss.total.backward()
        add_sums(sums, loss)
    sums = ranks.total(sums)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    torch._foreach_div_(gradients, max(sums["count"], 1.0) / shares)
    return sums


def add_sums(sums: dict[str, float], loss: Loss) -> None:
    """Add a loss and its parts to running sums, as Python floats (exact in JSON)."""
    found = {"loss": float(loss.total.detach()), "count": float(loss.count)}
    found.update((name, float(value)) for name, value in loss.parts.items())
    for name, value in found.items():
        sums[name] = sums.get(name, 0.0) + value


def clip_gradients(network: nn.Module, limit: float) -> float:
    """The gradients' norm over all parameters; where `limit` > 0 is exceeded they are scaled down to it."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients)
    norm = float(getattr(total, "full_tensor", lambda: total)())  # of all shares, where they are sharded
    if limit > 0 and math.isfinite(norm) and norm > limit:
        torch._foreach_mul_(gradients, limit / norm)
    return norm
