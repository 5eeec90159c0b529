"""A small model with random weights, whose outputs differ, change as they go on, and end."""

import torch

from glassformer.models.config import Config, Learned
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer

TEXT = "a man in blue shirt rides the bike on road , while dog runs . two women eat"
WORDS = TEXT.split()


def model_of(tokenizer: Tokenizer, pipeline: TextPipeline, max_length: int = 24) -> Model:
    torch.manual_seed(2)
    config = Config(
        tokenizer.vocab_size, None, 16, 2, None, 24, 1, 2, Learned(), max_length, dropout=0.0, tie_head=False
    )
    network = EncoderDecoder(config)
    with torch.no_grad():
        network.head.weight.normal_(std=0.7)
        network.decoder.embedding.position.normal_(std=3)
    return Model(network.eval(), tokenizer, pipeline)
