"""The end of a training: the run's folder becomes a checkpoint of the model that it was for."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glassformer.checkpoints.adapters import trained_names
from glassformer.checkpoints.native import WEIGHTS, open_weights, save
from glassformer.checkpoints.shards import mean_of
from glassformer.checkpoints.tensors import Stored, fill_network, open_tensors, write_tensors
from glassformer.errors import InputError
from glassformer.layers.low_rank import has_low_rank, merge_low_rank
from glassformer.layers.sites import share
from glassformer.tasks.model import Model
from glassformer.training.averaging import mean_tensors
from glassformer.training.display import Display, size
from glassformer.training.jobs import Prepared
from glassformer.training.jobs.job import Job
from glassformer.training.machine import share_of_limit, training_flops
from glassformer.training.parallel.checkpoints import read_shards
from glassformer.training.recipes import Recipe
from glassformer.training.runs import Run
from glassformer.training.snapshots import kept_tensors
from glassformer.training.starting import Built
from glassformer.training.trainer import Trainer
from glassformer.training.validation import Validation


def as_it_is(model: Model) -> Model:
    """A model of the weights as they are now: nothing that running prepared before is kept, and low-rank layers are
    merged, on a copy."""
    if not has_low_rank(model.network):
        return dataclasses.replace(model)
    network = share(model.network)
    merge_low_rank(network)
    return dataclasses.replace(model, network=network)


def finish(trainer: Trainer, validation: Validation, model: Model, built: Built, run: Run, display: Display) -> Model:
    """Average, or take the best checkpoint; measure it; make the run folder its checkpoint."""
    found, steps = run.checkpoints(), _chosen(trainer, run)
    tensors = mean_tensors([found[step] for step in steps])
    fill_network(model.network, tensors, str(run.folder), only=trained_names(model.network))
    measured = _measured_before(run, steps) or validation.measure()
    _log(trainer, run, steps, measured)
    model.network.eval()
    finished = as_it_is(model)
    validation.job.settle(finished, validation.prepared, run.recipe)
    model.network.config = finished.network.config  # type: ignore[assignment]
    with _written_or_told(run):
        write_model(run.folder, model, built, {**extra_of(run, trainer), "checkpoints": steps, **measured})
    _say(trainer, run, display, validation, model.network, steps, measured)
    return finished


def finish_divided(
    trainer: Trainer, validation: Validation, model: Model, built: Built, run: Run, display: Display
) -> Model:
    """`finish` for processes that have parts of the network each; all must call it. What it returns has no numbers.

    The model's file is written tensor by tensor. A mean of checkpoints goes into the parts, where it must be measured.
    """
    ranks, learner = trainer.ranks, trainer.learner
    steps: list[int] = ranks.first(lambda: _chosen(trainer, run))
    measured = ranks.first(lambda: _measured_before(run, steps))
    settles = validation.job.settle is not Job.settle
    if settles or not measured:
        with _in_one_file(trainer, run, steps) as folder:
            ranks.together(lambda: read_shards(folder, open_tensors(folder / WEIGHTS), kept_tensors(learner.network)))
    measured = measured or validation.measure()
    ranks.first(lambda: _log(trainer, run, steps, measured))
    if settles:
        whole = validation.model()
        ranks.first(lambda: validation.job.settle(whole, validation.prepared, run.recipe))
        if ranks.leads:
            model.network.config = whole.network.config  # type: ignore[assignment]

    def write() -> None:
        extra = {**extra_of(run, trainer), "checkpoints": steps, **measured}
        with _written_or_told(run):
            write_model(run.folder, model, built, extra, weights=_means(run, steps))

    ranks.first(write)
    ranks.first(lambda: _say(trainer, run, display, validation, model.network, steps, measured))
    return model


def _chosen(trainer: Trainer, run: Run) -> list[int]:
    """The steps of the checkpoints that the model is made of: the last ones to average, or the best."""
    count = run.recipe.evaluation.average
    found = run.checkpoints()
    if count > 1:
        return list(run.regular_checkpoints())[-count:]
    best = trainer.progress.best_step
    return [best if best in found else max(found)]


def _means(run: Run, steps: list[int]) -> Mapping[str, Stored]:
    """The weights of the model, read when they are asked for."""
    return mean_of([open_weights(run.checkpoint(step)) for step in steps])


@contextmanager
def _in_one_file(trainer: Trainer, run: Run, steps: list[int]) -> Iterator[Path]:
    """A folder with `_means` as a file that every process can read its part of, for as long as the context lasts."""
    folder = run.folder / "checkpoints" / ".mean"

    def write() -> None:
        with _written_or_told(run):
            folder.mkdir(exist_ok=True)
            write_tensors(folder / WEIGHTS, _means(run, steps))

    trainer.ranks.first(write)
    try:
        yield folder
    finally:
        if trainer.ranks.leads:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _written_or_told(run: Run) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The finished model cannot be written to {run.folder} ({error.strerror}); its checkpoints are whole. "
            f"Make room, then: {run.resume_command()}"
        ) from None


def _log(trainer: Trainer, run: Run, steps: list[int], measured: Mapping[str, float]) -> None:
    line = {"step": trainer.progress.step, "final": True, "checkpoints": steps, **measured}
    run.append_metrics({**line, "seconds": round(trainer.progress.seconds, 3)})


def _say(
    trainer: Trainer,
    run: Run,
    display: Display,
    validation: Validation,
    network: nn.Module,
    steps: list[int],
    measured: Mapping[str, float],
) -> None:
    what = f"the mean of {len(steps)} checkpoints" if len(steps) > 1 else f"the checkpoint of step {steps[0]}"
    shown = " · ".join(f"{name} {value:.4g}" for name, value in measured.items())
    display.say(f"Finished: {run.folder} is {what}, {shown}")
    display.table(used(run, network, validation.prepared, trainer.precision))


def used(run: Run, network: nn.Module, prepared: Prepared, precision: str) -> list[tuple[str, str]]:
    """What the training took: memory, and the share of the machine's limit that its products had."""
    config: Any = network.config
    rates = [line["tokens_per_second"] for line in run.metrics() if "tokens_per_second" in line]
    parameters = list(network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad) / sum(p.numel() for p in parameters)
    rate = statistics.median(rates) if rates else 0.0
    flops = training_flops(config, _context(run.recipe, prepared), trained)
    share = share_of_limit(flops, rate / run.recipe.parallel.processes, precision, torch.get_num_threads())
    limit = f"{100 * share:.0f} % of this machine's {precision} limit" if share else _UNMEASURED
    return [
        ("memory", f"{size(peak_memory())} at most" if peak_memory() else "unknown"),
        ("speed", f"{rate:,.0f} tokens/s; {limit}"),
    ]


_UNMEASURED = "the share of this machine's limit is unknown (glassformer machine measures it)"


def _context(recipe: Recipe, prepared: Prepared) -> float:
    """How many tokens one attends to: the mean row."""
    if recipe.task == "language-modeling":
        return recipe.data.context
    batches = prepared.train.epoch(0)
    rows = sum(map(len, batches))
    return len(batches) * recipe.training.batch_tokens / rows


def peak_memory() -> float:
    """The most bytes that this process has held at once; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _measured_before(run: Run, steps: list[int]) -> dict[str, float]:
    """What the evaluation at that step found, if the model is one checkpoint that was evaluated."""
    lines = [line for line in run.metrics() if "valid_loss" in line and [line["step"]] == steps]
    return {key: value for key, value in lines[-1].items() if key.startswith("valid_")} if lines else {}


def write_model(
    folder: Path,
    model: Model,
    built: Built,
    extra: dict[str, Any],
    *,
    weights: Mapping[str, Stored] | None = None,
    shards: Mapping[str, str] | None = None,
) -> None:
    """Write a model's checkpoint: its weights, or in place of these `weights` or `shards`, see `native.save`."""
    kept = ({"eos_ids": list(model.eos_ids)} if model.eos_ids else {}) | extra
    parts = (model.network, model.tokenizer, model.pipeline, model.task)
    save(folder, *parts, extra=kept, adapter=built.adapter, blocks=weights, shards=shards)


def extra_of(run: Run, trainer: Trainer) -> dict[str, Any]:
    """What every checkpoint of a run says of it."""
    return {"run": run.recipe.name, "seed": run.recipe.training.seed, "step": trainer.progress.step}
