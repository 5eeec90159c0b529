"""What a training is about to do, said before it does it."""

from __future__ import annotations

from torch import nn

from glassformer.training.display import size
from glassformer.training.preparation import Prepared
from glassformer.training.recipes import Recipe


def plan(
    recipe: Recipe, network: nn.Module, prepared: Prepared, step: int, device: str, precision: str
) -> list[tuple[str, str]]:
    """Rows of name and value: network, data, steps, memory."""
    settings = recipe.training
    config = recipe.network_config(prepared.tokenizer.vocab_size)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    epoch = prepared.train.epoch(0)
    epochs = settings.steps * settings.accumulate / len(epoch)
    layers = f"{config.n_encoder_layers}+{config.n_decoder_layers} layers of {config.d_model}"
    accumulated = f" × {settings.accumulate}" if settings.accumulate > 1 else ""
    goes_on = f", going on after step {step}" if step else ""
    return [
        ("network", f"{layers}, {config.n_heads} heads: {parameters:,} parameters; {config.vocab_size:,} tokens"),
        ("data", f"{len(prepared.train):,} pairs to train, {len(prepared.valid):,} to validate"),
        (
            "batches",
            f"{len(epoch):,} an epoch, up to {settings.batch_tokens:,} tokens{accumulated}, "
            f"{100 * prepared.train.padding():.1f} % padding",
        ),
        ("steps", f"{settings.steps:,} ({epochs:.1f} epochs){goes_on}, {precision} on {device}"),
        ("memory", f"about {size(memory(recipe, parameters, config.vocab_size))}; {_disk(recipe, parameters)}"),
        ("time", "said after the first 20 steps"),
    ]


def memory(recipe: Recipe, parameters: int, vocab_size: int) -> float:
    """A rough upper estimate in bytes: weights, gradients and two moments, and one batch's activations.

    Activations: fp32, about 14 vectors of width d_model and 3 of d_ff a position and layer, twice that in a decoder
    layer, attention patterns left out (they are not stored); the logits three times.
    """
    config = recipe.network_config(vocab_size)
    tokens = recipe.training.batch_tokens
    layers = config.n_encoder_layers + 2 * config.n_decoder_layers
    activations = tokens * layers * (14 * config.d_model + 3 * config.d_ff) + 3 * tokens * vocab_size
    return 16.0 * parameters + 4.0 * activations


def _disk(recipe: Recipe, parameters: int) -> str:
    keep = max(recipe.training.keep, recipe.evaluation.average) + 1
    return f"checkpoints take up to {size(4.0 * parameters * (keep + 4))} of disk"
