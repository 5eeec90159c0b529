"""Accuracy against distance: each family learns a task at all distances at once, and is asked at each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import nn

from glassformer.models.config import AnyConfig
from glassformer.models.families import network_class
from glassformer.studies.architectures.tasks import Sequences, copied, recalled
from glassformer.studies.fitting import fit
from glassformer.tasks.objectives import seq2seq

TASKS: dict[str, Callable[[int, int, int], Sequences]] = {"copy": copied, "recall": recalled}
"""The made-up tasks by name: (distance, rows, seed) → a batch."""

CHOOSING, TESTING = 1_000_000_007, 1_000_000_009
"""Seeds of the batches by which a learning rate is chosen, and of those that are reported; trainings have others."""

plain = partial(seq2seq, label_smoothing=0.0)
"""The loss that is trained and reported: nats a token."""


@dataclass(frozen=True)
class Budget:
    """What each family gets: so many steps of `rows` examples by task, at each rate; `tested` at each distance."""

    distances: tuple[int, ...]
    steps: dict[str, int]
    rows: int
    rates: tuple[float, ...]
    seeds: int
    tested: int


def learned(config: AnyConfig, task: str, budget: Budget) -> tuple[dict[str, Any], list[nn.Module]]:
    """Accuracies of a family on a task, by seed and distance, and the trained networks, one a seed.

    The rate is the one of the least held-out loss with the first seed; the other seeds are trained with it alone.
    """
    tried = {rate: trained(config, task, budget, rate, 1) for rate in budget.rates}
    held_out = {rate: loss(network, task, budget) for rate, network in tried.items()}
    rate = min(held_out, key=lambda rate: held_out[rate])
    networks = [tried[rate], *(trained(config, task, budget, rate, seed) for seed in range(2, budget.seeds + 1))]
    found = {
        "rate": rate,
        "held_out": {str(rate): value for rate, value in held_out.items()},
        "accuracy": [
            [accuracy(network, task, distance, budget.tested, TESTING + seed) for distance in budget.distances]
            for seed, network in enumerate(networks)
        ],
    }
    return found, networks


def trained(config: AnyConfig, task: str, budget: Budget, rate: float, seed: int) -> nn.Module:
    """A network drawn by the seed and trained on batches of the seed: the same ones for every family."""
    network = drawn(config, seed)

    def batch_at(step: int) -> Sequences:
        return TASKS[task](distance_at(step, seed, budget.distances), budget.rows, 1000 * seed + step)

    steps = budget.steps[task]
    fit(network, plain, batch_at, steps=steps, rate=rate, seed=seed, warmup=steps // 10)
    return network


def drawn(config: AnyConfig, seed: int) -> nn.Module:
    """A fresh network, evaluating."""
    torch.manual_seed(seed)
    return network_class(config)(config).eval()  # type: ignore[call-arg]


def distance_at(step: int, seed: int, distances: Sequence[int]) -> int:
    """The one distance of a step's batch, drawn in proportion to 1 / √distance: far ones take long."""
    random = torch.Generator().manual_seed(1_000_003 * seed + step)
    weight = torch.tensor([max(distance, 1) ** -0.5 for distance in distances])
    return distances[int(torch.multinomial(weight, 1, generator=random))]


@torch.no_grad()
def loss(network: nn.Module, task: str, budget: Budget) -> float:
    """Mean held-out loss over all distances, nats a token."""
    batches = (TASKS[task](distance, budget.tested, CHOOSING) for distance in budget.distances)
    return fmean(float(plain(network, batch).mean) for batch in batches)  # type: ignore[arg-type]


@torch.no_grad()
def accuracy(network: nn.Module, task: str, distance: int, rows: int, seed: int) -> float:
    """The share of judged tokens that are the most likely one, given those before."""
    batch = TASKS[task](distance, rows, seed)
    said = network(batch.source, batch.target[:, :-1]).logits.argmax(-1)
    return float((said == batch.target[:, 1:])[:, batch.judged].float().mean())


def as_json(budget: Budget) -> dict[str, Any]:
    """The budget as plain values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(budget).items()}
