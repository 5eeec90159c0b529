"""Attention as it was before the Transformer: one look at the source for each target position, with a single head."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from glassformer.layers.attention import attention_pattern, gather_rows, scatter_rows
from glassformer.layers.dropout import Dropout
from glassformer.layers.linear import Linear
from glassformer.layers.rows import KeysValues
from glassformer.layers.sites import Edges, Taps

Scoring = Literal["additive", "multiplicative", "dot"]


class Lookup(nn.Module):
    """softmax(score(q, k)) · v over the positions of a source. `scoring` is one of

    - "additive": vᵀ tanh(W q + U k) (Bahdanau et al. 2015, section A.1.2);
    - "multiplicative": (W q)ᵀ k (Luong et al. 2015, equation 8, "general");
    - "dot": qᵀ k, without weights (there as "dot"; Gehring et al. 2017, equation 1).

    Queries and keys are D wide, and so are values. Sites are those of `Attention`, with one head.
    """

    def __init__(self, d_model: int, scoring: Scoring, dropout: float = 0.0) -> None:
        super().__init__()
        self.to_query = None if scoring == "dot" else Linear(d_model, d_model, bias=False)
        self.to_key = Linear(d_model, d_model, bias=False) if scoring == "additive" else None
        self.to_score = Linear(d_model, 1, bias=False) if scoring == "additive" else None
        self.dropout = Dropout(dropout)
        self.taps = Taps("query", "key", "value", "scores", "pattern", "mixed")
        self.edges = Edges()

    def keys_values(self, key: Float[Tensor, "R S D"], value: Float[Tensor, "R S D"]) -> KeysValues:
        """What the source offers, with an axis for the one head."""
        key = key if self.to_key is None else self.to_key(key)
        return self.taps.key(key[:, None]), self.taps.value(value[:, None])

    def forward(
        self, query: Float[Tensor, "B Q D"], keys_values: KeysValues, mask: Bool[Tensor, "R 1 1 S"]
    ) -> Float[Tensor, "B Q D"]:
        """What each query finds. Each of the R sources serves B / R consecutive rows."""
        key, value = keys_values
        query = self.taps.query((query if self.to_query is None else self.to_query(query))[:, None])
        together = gather_rows(query, len(key))
        allowed = self.edges(mask, together, key.shape[2])
        assert allowed is not None
        scores = self._scores(together, key).masked_fill(~allowed, float("-inf"))
        pattern = self.taps.pattern(attention_pattern(self.taps.scores(scores)))
        return self.taps.mixed(scatter_rows(self.dropout(pattern) @ value, len(query)))[:, 0]

    def _scores(self, query: Float[Tensor, "R 1 n D"], key: Float[Tensor, "R 1 S D"]) -> Float[Tensor, "R 1 n S"]:
        if self.to_score is None:
            return query @ key.transpose(-2, -1)
        return self.to_score(torch.tanh(query[..., :, None, :] + key[..., None, :, :]))[..., 0]
