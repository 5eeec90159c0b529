"""How good the network is at the moment: loss on held-out pairs, a metric on its translations, a few samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from glassformer.tasks.evaluation import evaluate
from glassformer.tasks.model import Model
from glassformer.text.corpora import Pairs
from glassformer.text.pairs import PairBatches
from glassformer.training.gradients import Objective, add_sums
from glassformer.training.precision import autocast
from glassformer.training.recipes import Evaluation


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the mode before comes back after."""
    before = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(before)


def held_out_loss(network: nn.Module, objective: Objective, batches: PairBatches, precision: str) -> dict[str, float]:
    """`valid_loss`, `valid_perplexity` and `valid_accuracy` over all pairs, the right words before each being given."""
    device = next(network.parameters()).device
    sums: dict[str, float] = {}
    with evaluating(network):
        for batch in batches.once():
            with autocast(device, precision):
                add_sums(sums, objective(network, batch.to(device)))
    nll = sums.get("nll", sums["loss"]) / sums["count"]
    return {
        "valid_loss": sums["loss"] / sums["count"],
        "valid_perplexity": math.exp(min(nll, 700.0)),
        "valid_accuracy": sums.get("correct", 0.0) / sums["count"],
    }


@dataclass(frozen=True)
class Validation:
    """Judges one network on the validation pairs. `measure` is called between steps and draws nothing at random."""

    model: Model
    objective: Objective
    batches: PairBatches
    pairs: Pairs
    settings: Evaluation
    precision: str = "fp32"

    @property
    def metric(self) -> str:
        """The field of `measure` that decides which checkpoint is the best."""
        return f"valid_{self.settings.metric}"

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` of the metric beats `best`: a loss is better lower, a score higher."""
        if best is None:
            return not math.isnan(value)
        return value < best if self.settings.metric == "loss" else value > best

    def measure(self) -> dict[str, float]:
        """The loss, and with a metric other than "loss" that metric on greedy translations of all pairs."""
        network = self.model.network
        result = held_out_loss(network, self.objective, self.batches, self.precision)
        if self.settings.metric != "loss":
            with evaluating(network):
                scores = evaluate(self.model, self.pairs, tokenized=self.settings.tokenized, beam=1)
            result[self.metric] = float(scores[self.settings.metric])
        return result

    def samples(self, count: int) -> list[tuple[str, str, str]]:
        """Source, reference and greedy translation of `count` pairs spread over the validation data."""
        count = min(count, len(self.pairs.source))
        if count == 0:
            return []
        rows = [i * len(self.pairs.source) // count for i in range(count)]
        sources = [self.pairs.source[row] for row in rows]
        with evaluating(self.model.network):
            results = self.model.translate(sources, beam=1, tokenized=self.settings.tokenized)
        return [(self.pairs.source[row], self.pairs.target[row], r.text) for row, r in zip(rows, results, strict=True)]
