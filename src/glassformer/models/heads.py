"""What stands above a stack: words, labels, spans or one vector, and `Output`, which every network returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.dropout import Dropout
from glassformer.layers.feed_forward import activations
from glassformer.layers.linear import Linear
from glassformer.models.assembly import norm
from glassformer.models.config import AnyConfig, Classification, Config, Sentence, Spans, Tagging


@dataclass(frozen=True)
class Output:
    """What a network returns: `logits`, what its head says, and `hidden`, the last states [B, T, D] that it read.

    Logits are before any softmax: words [B, T, V], labels [B, L], labels of tokens [B, T, L], the first and the last
    token of a span [B, T, 2], or, of a sentence head, the vector [B, D].
    """

    logits: Tensor
    hidden: Tensor


def language_head(config: AnyConfig, token: nn.Embedding) -> Linear:
    """States to words: the embedding itself where the config ties them."""
    head = Linear(config.d_model, config.vocab_size, config.head_bias)
    if config.tie_head:
        head.weight = token.weight
    return head


class Pooler(nn.Module):
    """tanh(W h + b) of the state that stands for the text: the first (Devlin et al. 2019), or the mean of all."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)

    def forward(self, text: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return torch.tanh(self.dense(text))


class WordHead(nn.Module):
    """Dense, activation, norm, then the words: BERT's masked-language-model head."""

    def __init__(self, config: Config, token: nn.Embedding) -> None:
        super().__init__()
        self.dense = Linear(config.d_model, config.d_model)
        self.activation = activations[config.activation]
        self.norm = norm(config)
        self.words = language_head(config, token)

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        return self.words(self.features(hidden))

    def features(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """What `words` reads: a loss over a wide vocabulary takes it from here."""
        return self.norm(self.activation(self.dense(hidden)))


class LabelHead(nn.Module):
    """Dropout, then one dense layer: labels of a text or of tokens, or the ends of a span."""

    def __init__(self, d_model: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.labels = Linear(d_model, labels)

    def forward(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B L"]:
        return self.labels(self.dropout(hidden))


def mean_state(hidden: Float[Tensor, "B T D"], real: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """The mean of the states of real tokens; 0 where there are none."""
    weight = real[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


class SentenceHead(nn.Module):
    """One vector for the text: the mean of its real tokens' states, or the first state; of length 1 if asked."""

    def __init__(self, choice: Sentence) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, hidden: Float[Tensor, "B T D"], real: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        vector = hidden[:, 0] if self.choice.pooling == "cls" else mean_state(hidden, real)
        return F.normalize(vector, dim=-1) if self.choice.normalize else vector


def encoder_head(config: Config, token: nn.Embedding) -> nn.Module:
    """The head that the config asks for; by default the masked language model's."""
    choice = config.head
    if isinstance(choice, Classification | Tagging):
        return LabelHead(config.d_model, len(choice.labels), config.dropout)
    if isinstance(choice, Spans):
        return LabelHead(config.d_model, 2, 0.0)
    if isinstance(choice, Sentence):
        return SentenceHead(choice)
    return WordHead(config, token)
