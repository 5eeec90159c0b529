"""How good the network is at the moment: loss on held-out data, the task's own metrics, a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from glassformer.models.encoder import Encoder
from glassformer.tasks.model import Model
from glassformer.text.batches import Batches
from glassformer.training.gradients import Objective, add_sums
from glassformer.training.jobs import Job, Prepared
from glassformer.training.jobs.job import Sample
from glassformer.training.precision import autocast
from glassformer.training.ranks import ALONE, Ranks
from glassformer.training.recipes import Recipe


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


def held_out_loss(
    network: nn.Module, objective: Objective, batches: Batches[Any], precision: str, ranks: Ranks = ALONE
) -> dict[str, float]:
    """`valid_loss`, and where the objective knows them `valid_perplexity` and `valid_accuracy`, over all batches.

    Several `ranks` each bring their rows of them.
    """
    device = next(network.parameters()).device
    sums: dict[str, float] = {}
    with evaluating(network):
        for batch in batches.once():
            with autocast(device, precision):
                add_sums(sums, objective(network, batch.to(device)))
    return {f"valid_{name}": value for name, value in means(ranks.total(sums)).items()}


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """From summed losses to `loss`, and `nll`, `perplexity` and `accuracy` where there is what they need."""
    count = sums["count"]
    found = {"loss": sums["loss"] / count}
    if "nll" in sums:
        found["perplexity"] = math.exp(min(sums["nll"] / count, 700.0))
    if "correct" in sums:
        found["accuracy"] = sums["correct"] / count
    return found


@dataclass(frozen=True)
class Validation:
    """Judges one network on the held-out data. `measure` is called between steps and draws nothing at random.

    `model` gives the network as it is now, with what running it needs. With several `ranks` each measures the loss of
    its rows, and the first one what the task wants of the model. All processes must call the same methods, as `model`
    gathers a network of which each has a part: with the metric "loss", and no samples, that is never done.
    """

    network: nn.Module
    model: Callable[[], Model]
    objective: Objective
    job: Job
    prepared: Prepared
    recipe: Recipe
    precision: str = "fp32"
    ranks: Ranks = ALONE

    @property
    def metric(self) -> str:
        """The field of `measure` that decides which checkpoint is the best."""
        return f"valid_{self.recipe.evaluation.metric}"

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` of the metric beats `best`: a loss is better lower, a score higher."""
        if best is None:
            return not math.isnan(value)
        return value < best if self.metric == "valid_loss" else value > best

    def measure(self) -> dict[str, float]:
        """The loss, and with a metric that does not come with it, those of the task."""
        result = held_out_loss(self.network, self.objective, self.prepared.valid, self.precision, self.ranks)
        if self.metric not in result:
            model = self.model()
            scores = self.ranks.first(lambda: self._scores(model))
            result |= {f"valid_{name}": value for name, value in scores.items()}
        return result

    def _scores(self, model: Model) -> dict[str, float]:
        with self._judging():
            return self.job.score(model, self.prepared, self.recipe)

    def samples(self, count: int) -> list[Sample]:
        """What the model makes of a few texts spread over the held-out data."""
        if count == 0:
            return []
        model = self.model()

        def shown() -> list[Sample]:
            with self._judging():
                return self.job.samples(model, self.prepared, self.recipe, count)

        return self.ranks.first(shown)

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Without gradients; encoders in the precision of the training, what generates as it always does."""
        encoder = isinstance(self.network, Encoder)
        context = autocast(next(self.network.parameters()).device, self.precision) if encoder else nullcontext()
        with evaluating(self.network), context:
            yield
