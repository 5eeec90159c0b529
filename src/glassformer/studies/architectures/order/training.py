"""Encoders with each kind of positions, and with none, that answer questions about the order of words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.sites import planned
from glassformer.models.config import Classification, Config, Learned, Positions, Rotary, Sinusoidal
from glassformer.models.encoder import Encoder
from glassformer.studies.architectures.tasks import FILLERS, LENGTH, WORDS, Asked, sentences
from glassformer.studies.fitting import fit
from glassformer.tasks.objectives import classification

POSITIONS: dict[str, Positions] = {
    "none": Sinusoidal(),  # which a plan takes away again: see `encoder_of`
    "sinusoidal": Sinusoidal(),
    "learned": Learned(),
    "rotary": Rotary(),
}

CHOOSING, TESTING = 1_000_000_007, 1_000_000_009
"""Seeds of the sentences by which a learning rate is chosen, and of those that are reported."""


@dataclass(frozen=True)
class OrderBudget:
    """What each kind of positions gets: so many steps of `rows` sentences at each rate, `tested` sentences a seed."""

    steps: int
    rows: int
    rates: tuple[float, ...]
    seeds: int
    tested: int
    d_model: int

    def as_json(self) -> dict[str, Any]:
        """The budget as plain values."""
        return asdict(self) | {"rates": list(self.rates)}


def config_of(name: str, d_model: int) -> Config:
    """An encoder of two layers with a label for each answer."""
    return Config(
        vocab_size=len(WORDS),
        d_model=d_model,
        n_heads=4,
        d_ff=2 * d_model,
        n_encoder_layers=2,
        n_decoder_layers=0,
        positions=POSITIONS[name],
        max_length=LENGTH,
        norm_first=True,
        dropout=0.0,
        head=Classification(FILLERS),
    )


def encoder_of(name: str, d_model: int, seed: int) -> Encoder:
    """A fresh encoder; with "none", its position vectors are zeros, while it is trained as well as after."""
    torch.manual_seed(seed)
    network = Encoder(config_of(name, d_model)).eval()
    return planned(network, {"embedding.position": torch.zeros_like}) if name == "none" else network


def learned(name: str, budget: OrderBudget) -> dict[str, Any]:
    """Accuracies by seed, and how much logits change when words change places (before and after training).

    The rate is the one of the least held-out loss with the first seed; the other seeds are trained with it alone.
    """
    tried = {rate: trained(name, budget, rate, 1) for rate in budget.rates}
    held_out = {rate: loss(network, budget) for rate, network in tried.items()}
    rate = min(held_out, key=lambda rate: held_out[rate])
    networks = [tried[rate], *(trained(name, budget, rate, seed) for seed in range(2, budget.seeds + 1))]
    fresh = [encoder_of(name, budget.d_model, seed) for seed in range(1, budget.seeds + 1)]
    return {
        "rate": rate,
        "held_out": {str(rate): value for rate, value in held_out.items()},
        "accuracy": [accuracy(network, budget, TESTING + seed) for seed, network in enumerate(networks)],
        "change_fresh": [change(network, budget) for network in fresh],
        "change_trained": [change(network, budget) for network in networks],
    }


def trained(name: str, budget: OrderBudget, rate: float, seed: int) -> Encoder:
    """A network drawn by the seed and trained on sentences of the seed: the same ones for each kind."""
    network = encoder_of(name, budget.d_model, seed)

    def batch_at(step: int) -> Asked:
        return sentences(budget.rows, 100_000 * seed + step)

    fit(network, classification, batch_at, steps=budget.steps, rate=rate, seed=seed, warmup=budget.steps // 10)
    return network


@torch.no_grad()
def loss(network: Encoder, budget: OrderBudget) -> float:
    """Held-out loss, nats an answer."""
    return float(classification(network, sentences(budget.tested, CHOOSING, held_out=True)).mean)


@torch.no_grad()
def accuracy(network: Encoder, budget: OrderBudget, seed: int) -> float:
    """The share of right answers about combinations that were not trained."""
    batch = sentences(budget.tested, seed, held_out=True)
    return float((network(batch.ids).logits.argmax(-1) == batch.labels).float().mean())


@torch.no_grad()
def change(network: Encoder, budget: OrderBudget) -> float:
    """The largest change of a logit when all words after the question are shuffled, relative to the logits' spread.

    0 but for rounding, where order is not known. The spread is their standard deviation.
    """
    ids = sentences(budget.tested, TESTING, held_out=True).ids
    before, after = network(ids).logits, network(shuffled(ids)).logits
    return float((after - before).abs().max() / before.std())


def shuffled(ids: Tensor) -> Tensor:
    """Every row with the words after the first in another order; padding takes part and stays masked."""
    random = torch.Generator().manual_seed(TESTING)
    order = torch.rand(ids[:, 1:].shape, generator=random).argsort(1)
    return torch.cat((ids[:, :1], ids[:, 1:].gather(1, order)), 1)


def mean_accuracy(found: dict[str, Any]) -> float:
    """Over the seeds."""
    return fmean(found["accuracy"])
