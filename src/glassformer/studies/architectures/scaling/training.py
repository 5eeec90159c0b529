"""Encoders with one head of a given width, scaled and not, on the questions about word order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.sites import planned
from glassformer.models.config import Classification, Config
from glassformer.models.encoder import Encoder
from glassformer.studies.architectures.scaling.softmax import entropy
from glassformer.studies.architectures.tasks import FILLERS, LENGTH, WORDS, Asked, sentences
from glassformer.studies.fitting import fit
from glassformer.tasks.objectives import classification

LAYERS = 2
CHOOSING, TESTING = 1_000_000_007, 1_000_000_009
"""Seeds of the sentences by which a learning rate is chosen, and of those that are reported."""


@dataclass(frozen=True)
class ScalingBudget:
    """What each network gets: so many steps of `rows` sentences at each rate; heads of each of `widths`."""

    steps: int
    rows: int
    rates: tuple[float, ...]
    seeds: int
    tested: int
    d_model: int
    widths: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The budget as plain values."""
        return asdict(self) | {"rates": list(self.rates), "widths": list(self.widths)}


def encoder_of(width: int, scaled: bool, d_model: int, seed: int) -> Encoder:
    """A fresh encoder of two layers with one head: with several, fresh weights are smaller the wider they are."""
    torch.manual_seed(seed)
    config = Config(
        vocab_size=len(WORDS),
        d_model=d_model,
        n_heads=1,
        d_head=width,
        d_ff=2 * d_model,
        n_encoder_layers=LAYERS,
        n_decoder_layers=0,
        max_length=LENGTH,
        norm_first=True,
        dropout=0.0,
        scale_scores=scaled,
        head=Classification(FILLERS),
    )
    return Encoder(config).eval()


def learned(width: int, scaled: bool, budget: ScalingBudget) -> dict[str, Any]:
    """Held-out loss, training losses and the patterns' entropy, fresh and trained, by seed.

    The rate is the one of the least held-out loss with the first seed; the other seeds are trained with it alone.
    """
    tried = {rate: _trained(width, scaled, budget, rate, 1) for rate in budget.rates}
    held_out = {rate: loss(network, budget, CHOOSING) for rate, (network, _) in tried.items()}
    rate = min(held_out, key=lambda rate: held_out[rate])
    others = [_trained(width, scaled, budget, rate, seed) for seed in range(2, budget.seeds + 1)]
    fresh = [encoder_of(width, scaled, budget.d_model, seed) for seed in range(1, budget.seeds + 1)]
    runs = [tried[rate], *others]
    return {
        "rate": rate,
        "held_out": {str(rate): value for rate, value in held_out.items()},
        "loss": [loss(network, budget, TESTING) for network, _ in runs],
        "losses": [losses for _, losses in runs],
        "fresh_entropy": [pattern_entropy(network, budget) for network in fresh],
        "entropy": [pattern_entropy(network, budget) for network, _ in runs],
    }


def _trained(width: int, scaled: bool, budget: ScalingBudget, rate: float, seed: int) -> tuple[Encoder, list[float]]:
    network = encoder_of(width, scaled, budget.d_model, seed)

    def batch_at(step: int) -> Asked:
        return sentences(budget.rows, 100_000 * seed + step)

    fitted = fit(network, classification, batch_at, steps=budget.steps, rate=rate, seed=seed, warmup=budget.steps // 10)
    return network, fitted.losses


@torch.no_grad()
def loss(network: Encoder, budget: ScalingBudget, seed: int) -> float:
    """Loss of sentences that were not trained, nats an answer."""
    return float(classification(network, sentences(budget.tested, seed, held_out=True)).mean)


@torch.no_grad()
def pattern_entropy(network: Encoder, budget: ScalingBudget) -> float:
    """Of all self-attention, relative to log of the words that may be seen; mean of layers, sentences and words."""
    ids = sentences(budget.tested, TESTING, held_out=True).ids
    kept: list[Tensor] = []

    def keep(pattern: Tensor) -> Tensor:
        kept.append(pattern)
        return pattern

    planned(network, {f"self_attention.pattern[{layer}]": keep for layer in range(LAYERS)})(ids)
    real = ids != network.config.pad_id
    keys = real.sum(1).float()[:, None].expand(real.shape)
    return float(torch.stack([entropy(pattern[:, 0], keys)[real] for pattern in kept]).mean())
