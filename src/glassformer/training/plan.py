"""What a training is about to do, said before it does it."""

from __future__ import annotations

from typing import Any

from torch import nn

from glassformer.models.config import Config
from glassformer.training.display import size
from glassformer.training.jobs import Prepared
from glassformer.training.recipes import Recipe


def plan(
    recipe: Recipe, network: nn.Module, prepared: Prepared, step: int, device: str, precision: str
) -> list[tuple[str, str]]:
    """Rows of name and value: network, data, steps, memory."""
    settings = recipe.training
    config: Any = network.config
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    parameters = sum(count for count, _ in sizes)
    trained = sum(count for count, trains in sizes if trains)
    stored = trained if recipe.finetune.lora else parameters
    epoch = prepared.train.epoch(0)
    epochs = settings.steps * settings.accumulate / len(epoch)
    some = f", {trained:,} of them trained ({100 * trained / parameters:.1f} %)" if trained < parameters else ""
    accumulated = f" × {settings.accumulate}" if settings.accumulate > 1 else ""
    goes_on = f", going on after step {step}" if step else ""
    rows = [
        (
            "network",
            f"{config.shape}: {parameters:,} parameters{some}; {config.vocab_size:,} tokens",
        ),
        ("data", prepared.counts),
        (
            "batches",
            f"{len(epoch):,} an epoch, up to {settings.batch_tokens:,} tokens{accumulated}, "
            f"{100 * prepared.train.padding():.1f} % padding",
        ),
        ("steps", f"{settings.steps:,} ({epochs:.1f} epochs){goes_on}, {precision} on {device}"),
        (
            "memory",
            f"about {size(memory(recipe, config, parameters, trained))}; {_disk(recipe, stored)}",
        ),
        ("time", "said after the first 20 steps"),
    ]
    if recipe.parallel.processes > 1:
        rows.insert(4, ("processes", f"{recipe.parallel.processes}: {recipe.parallel}"))
    if recipe.finetune.model:
        what = "shape and tokenizer of " if recipe.finetune.fresh else ""
        rows.insert(0, ("start", f"{what}{recipe.finetune.model}"))
    return rows


def memory(recipe: Recipe, config: Any, parameters: int, trained: int) -> float:
    """A rough estimate in bytes: weights, gradients and two moments, one batch's activations, and `PROCESS`.

    Activations: fp32, about 14 vectors of width d_model and 3 of d_ff a position and layer (16 of d_model in a
    recurrent or convolutional one), twice that in a decoder layer that sees a source, attention patterns left out (they
    are rarely stored). Logits over a vocabulary exist in chunks. What the data take is not in it.
    """
    tokens = recipe.training.batch_tokens
    both = config.n_encoder_layers and config.n_decoder_layers
    layers = config.n_encoder_layers + (2 if both else 1) * config.n_decoder_layers
    numbers = 14 * config.d_model + 3 * config.d_ff if isinstance(config, Config) else 16 * config.d_model
    activations = tokens * layers * numbers
    return PROCESS + 4.0 * parameters + 12.0 * trained + 4.0 * activations


PROCESS = 0.4e9
"""Bytes of Python with its libraries."""


def _disk(recipe: Recipe, parameters: int) -> str:
    keep = max(recipe.training.keep, recipe.evaluation.average) + 1
    return f"checkpoints take up to {size(4.0 * parameters * (keep + 4))} of disk"
