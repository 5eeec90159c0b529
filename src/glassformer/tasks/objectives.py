"""Objectives: functions of a network and a batch that give a summed loss and what to divide it by.

They know nothing of optimizers, accumulation or ranks; whoever trains divides the summed total by the summed count.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from glassformer.layers.consistency import consistent_cross_entropy, divergence
from glassformer.layers.cross_entropy import linear_cross_entropy
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.families import TextToText

IGNORE = -100
"""As a target: nothing is predicted here."""


@dataclass(frozen=True)
class Loss:
    """`total` is summed over `count` units (target tokens, texts); `parts` are further sums, without gradient."""

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


class Texts(Protocol):
    """A batch of ids, each with the one to predict there (`IGNORE`: none); `documents` numbers those that share a row
    (see `Decoder.hidden`). `full` says that something is predicted everywhere."""

    @property
    def ids(self) -> Int[Tensor, "B T"]: ...
    @property
    def target(self) -> Int[Tensor, "B T"]: ...
    @property
    def documents(self) -> Int[Tensor, "B T"] | None: ...
    @property
    def full(self) -> bool: ...


class Masked(Protocol):
    """A batch of ids, some hidden; `places` are those to predict in the flattened ids, `target` what is there."""

    @property
    def ids(self) -> Int[Tensor, "B T"]: ...
    @property
    def places(self) -> Int[Tensor, "M"]: ...
    @property
    def target(self) -> Int[Tensor, "M"]: ...


class Labelled(Protocol):
    """A batch of texts and the number of each one's label."""

    @property
    def ids(self) -> Int[Tensor, "B T"]: ...
    @property
    def labels(self) -> Int[Tensor, "B"]: ...


class Spanned(Protocol):
    """A batch of questions, each with a piece of its context; `allowed` is where an answer may begin and end, `span`
    its first and last token, both 0 where the piece does not hold it."""

    @property
    def ids(self) -> Int[Tensor, "B T"]: ...
    @property
    def segments(self) -> Int[Tensor, "B T"]: ...
    @property
    def allowed(self) -> Bool[Tensor, "B T"]: ...
    @property
    def span(self) -> Int[Tensor, "B 2"]: ...


def seq2seq(network: TextToText, batch: Pairs, label_smoothing: float = 0.1, consistency: float = 0.0) -> Loss:
    """Cross-entropy of each target token given the source and the tokens before it, label-smoothed (section 5.4).

    With `consistency` above 0 a training step reads the batch twice, with other units dropped, and the two readings
    are asked to agree (R-Drop; see `layers.consistency`). Parts: `nll`, the unsmoothed loss, and `correct`, how many
    tokens were the most likely one. Padding is left out before the softmax over the vocabulary, not after.
    """
    wanted = batch.target[:, 1:]
    real = wanted != network.config.pad_id

    def read() -> Tensor:
        if isinstance(network, EncoderDecoder):
            return network.hidden_at(real, batch.source, batch.target[:, :-1])
        return network.hidden(batch.source, batch.target[:, :-1])[real]

    if not (network.training and consistency):
        return _words(network.head, read(), wanted[real], label_smoothing if network.training else 0.0)
    head: Any = network.head
    total, nll, correct = consistent_cross_entropy(
        (read(), read()), head.weight, wanted[real], consistency, label_smoothing, head.bias
    )
    return Loss(total, int(real.sum()), {"nll": nll, "correct": correct})


def causal_lm(network: Decoder, batch: Texts, label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of each token given those before it in its document (Radford et al. 2018, section 3.1).

    Nothing is computed over the vocabulary where nothing is predicted, as in a prompt. Parts as in `seq2seq`.
    """
    hidden = network.hidden(batch.ids, batch.documents)
    if batch.full:
        hidden, target = hidden.flatten(0, 1), batch.target.flatten()
    else:
        real = batch.target != IGNORE
        hidden, target = hidden[real], batch.target[real]
    return _words(network.head, hidden, target, label_smoothing if network.training else 0.0)


def masked_lm(network: Encoder, batch: Masked) -> Loss:
    """Cross-entropy of the tokens at the chosen places, given the text in which they are hidden (Devlin et al. 2019,
    section 3.1). The head computes these places alone. Parts as in `seq2seq`."""
    hidden = network.hidden(batch.ids).flatten(0, 1)[batch.places]
    head: Any = network.head
    return _words(head.words, head.features(hidden), batch.target, 0.0)


def classification(network: Encoder, batch: Labelled, label_smoothing: float = 0.0, consistency: float = 0.0) -> Loss:
    """Cross-entropy of each text's label. `consistency` as in `seq2seq`. Part: `correct`, how many labels were the most
    likely one."""

    def read() -> Tensor:
        return network(batch.ids).logits.float()

    smoothing = label_smoothing if network.training else 0.0
    logits = read()
    total = F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
    if network.training and consistency:
        again = read()
        other = F.cross_entropy(again, batch.labels, reduction="sum", label_smoothing=smoothing)
        total = (total + other + consistency * divergence(logits, again)) / 2
    correct = (logits.argmax(-1) == batch.labels).sum()
    return Loss(total, len(batch.labels), {"correct": correct.detach()})


def spans(network: Encoder, batch: Spanned) -> Loss:
    """Mean cross-entropy of an answer's first and last token among the allowed ones (Devlin et al. 2019, section 4.2).

    The first token of the row, which stands for "no answer here", is always allowed. Part: `correct`, how many rows had
    both ends right.
    """
    logits = span_logits(network(batch.ids, batch.segments).logits, batch.allowed)
    total = F.cross_entropy(logits.flatten(0, 1), batch.span.flatten(), reduction="sum") / 2
    correct = (logits.argmax(-1) == batch.span).all(-1).sum()
    return Loss(total, len(batch.ids), {"correct": correct.detach()})


def span_logits(logits: Float[Tensor, "B T 2"], allowed: Bool[Tensor, "B T"]) -> Float[Tensor, "B 2 T"]:
    """Scores of the first and of the last token of an answer, minus infinity where it cannot be."""
    allowed = allowed.clone()
    allowed[:, 0] = True
    return logits.float().mT.masked_fill(~allowed[:, None], float("-inf"))


def _words(head: Any, hidden: Tensor, target: Tensor, label_smoothing: float) -> Loss:
    """Cross-entropy of words under a language head."""
    total, nll, correct = linear_cross_entropy(hidden, head.weight, target, label_smoothing, head.bias)
    return Loss(total, len(target), {"nll": nll, "correct": correct})
