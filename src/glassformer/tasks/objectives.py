"""Objectives: functions of a network and a batch that give a summed loss and what to divide it by.

They know nothing of optimizers, accumulation or ranks; whoever trains divides the summed total by the summed count.
"""

from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Int
from torch import Tensor

from glassformer.layers.cross_entropy import linear_cross_entropy
from glassformer.models.encoder_decoder import EncoderDecoder


@dataclass(frozen=True)
class Loss:
    """`total` is summed over `count` units (target tokens); `parts` are further sums, without gradient."""

    total: Tensor
    count: int
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Loss a unit: what to call `backward` on in a loop of one's own."""
        return self.total / self.count


class Pairs(Protocol):
    """A batch of source [B, S] (ending in eos) and target [B, T + 1] (bos … eos), padded on the right."""

    @property
    def source(self) -> Int[Tensor, "B S"]: ...
    @property
    def target(self) -> Int[Tensor, "B U"]: ...


def seq2seq(network: EncoderDecoder, batch: Pairs, label_smoothing: float = 0.1) -> Loss:
    """Cross-entropy of each target token given the source and the tokens before it, label-smoothed (section 5.4).

    Parts: `nll`, the unsmoothed loss, and `correct`, how many tokens were the most likely one. Padding is left out
    before the softmax over the vocabulary, not after.
    """
    hidden = network.hidden(batch.source, batch.target[:, :-1])
    wanted = batch.target[:, 1:]
    real = wanted != network.config.pad_id
    total, nll, correct = linear_cross_entropy(
        hidden[real], network.head.weight, wanted[real], label_smoothing if network.training else 0.0
    )
    return Loss(total, int(real.sum()), {"nll": nll, "correct": correct})
