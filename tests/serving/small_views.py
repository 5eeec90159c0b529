"""Models with random weights and texts that they answer differently."""

from __future__ import annotations

import torch
from tasks.small_models import TEXT, model_of
from tasks.small_writers import reader, writer

from glassformer.models.config import AnyConfig
from glassformer.models.families import network_class
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

WRITER_TEXTS = ("a dog in blue", "a fog in blue")
SOURCES = ("a man in blue shirt", "two women in blue shirt")

__all__ = ["SOURCES", "WRITER_TEXTS", "predecessor", "reader", "translator", "writer"]


def translator() -> Model:
    return model_of(Tokenizer.train([TEXT], kind="word", vocab_size=60, min_frequency=1), TextPipeline(lowercase=True))


def predecessor(config: AnyConfig) -> Model:
    """A recurrent or convolutional network for the translator's words."""
    torch.manual_seed(2)
    network = network_class(config)(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    tokenizer = Tokenizer.train([TEXT], kind="word", vocab_size=60, min_frequency=1)
    return Model(network.eval(), tokenizer, TextPipeline())
