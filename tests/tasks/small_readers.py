"""Small encoders with random weights that classify and answer, and one whose scores depend on each token alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from glassformer.models.config import Config, Head, Learned, Spans
from glassformer.models.encoder import Encoder
from glassformer.models.heads import Output
from glassformer.tasks.model import Model
from glassformer.text.pipeline import TextPipeline
from glassformer.text.tokenizer import Tokenizer
from glassformer.text.wordpiece import train_wordpiece

WORDS = [first + second for first in "bdfgklm" for second in ("ab", "eb", "ib", "ob", "ub", "yb")]


def words() -> Tokenizer:
    """A tokenizer to which every one of `WORDS` is a token."""
    return train_wordpiece([" ".join(WORDS)] * 3, 200, 1)


def reader(head: Head, positions: int = 32, pipeline: TextPipeline | None = None) -> Model:
    """An encoder under this head with weights drawn far apart."""
    tokenizer = words()
    config = Config(
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        n_heads=2,
        d_ff=24,
        n_encoder_layers=2,
        n_decoder_layers=0,
        positions=Learned(),
        max_length=positions,
        dropout=0.0,
        n_segments=2,
        pooler=True,
        head=head,
        bos_id=2,
        eos_id=3,
    )
    torch.manual_seed(0)
    network = Encoder(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.4)
            if "norm" in name:
                parameter.add_(float(name.endswith("weight")))
            if name == "head.labels.bias":
                parameter.zero_()
    return Model(network.eval(), tokenizer, pipeline or TextPipeline(unicode="none"), "spans")


class Local(nn.Module):
    """Scores of a token to be the first and the last of an answer, from a table: neither place nor company matter."""

    def __init__(self, config: Config, table: Tensor) -> None:
        super().__init__()
        self.config, self.table = config, nn.Parameter(table)
        self.widths: list[int] = []

    def forward(self, ids: Tensor, segments: Tensor | None = None, real: Any = None) -> Output:
        self.widths.append(ids.shape[1])
        scores = self.table[ids]
        return Output(scores, scores)


def local_reader(table: Tensor, threshold: float | None = None, positions: int = 512) -> Model:
    """A model that answers by such a table [V, 2] over the tokens of `words()`."""
    model = reader(Spans(threshold), positions)
    return Model(Local(model.config, table).eval(), model.tokenizer, model.pipeline, "spans")
