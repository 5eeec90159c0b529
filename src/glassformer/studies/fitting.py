"""Small trainings inside a study: the steps of the one trainer, without a run folder around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from glassformer.training.gradients import Objective, accumulate, clip_gradients
from glassformer.training.optimizers import build_optimizer, set_learning_rate
from glassformer.training.schedules import Schedule, learning_rate
from glassformer.training.sections import Training


@dataclass(frozen=True)
class Fitted:
    """A training's losses, one a step (nats a token), the norms of its gradients, and the seconds that it took."""

    losses: list[float]
    norms: list[float]
    seconds: float


def fit(
    network: nn.Module,
    objective: Objective,
    batch_at: Callable[[int], Any],
    *,
    steps: int,
    rate: float,
    seed: int = 1,
    warmup: int = 0,
    schedule: Schedule = "linear",
    clip: float = 1.0,
    weight_decay: float = 0.0,
    precision: str = "fp32",
    after: Callable[[int], None] | None = None,
) -> Fitted:
    """Train with AdamW for `steps` batches, `batch_at(step)` for step 1, 2, …; `after(step)` is called after each."""
    settings = Training(optimizer="adamw", learning_rate=rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=weight_decay)
    optimizer = build_optimizer(network, settings)
    losses, norms, began = [], [], time.perf_counter()
    network.train()
    for step in range(1, steps + 1):
        now = learning_rate(step, schedule=schedule, peak=rate, warmup=warmup, steps=steps)
        set_learning_rate(optimizer, now)
        optimizer.zero_grad(set_to_none=True)
        sums = accumulate(network, objective, [batch_at(step)], seed=seed, step=step, precision=precision)
        norms.append(clip_gradients(network, clip))
        optimizer.step()
        losses.append(sums["loss"] / max(sums["count"], 1.0))
        if after is not None:
            after(step)
    network.eval()
    return Fitted(losses, norms, time.perf_counter() - began)
