"""From ids to the residual stream: token vectors, scaled, plus position vectors, then dropout (section 3.4, 3.5)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.errors import InputError
from glassformer.layers.dropout import Dropout
from glassformer.layers.positions import sinusoidal
from glassformer.layers.sites import Taps


class Embedding(nn.Module):
    """√D · E[id] + P[position]. `token` may be shared with another embedding and with the head (three-way tying)."""

    position: Tensor

    def __init__(self, token: nn.Embedding, max_length: int, learned: bool, dropout: float) -> None:
        super().__init__()
        self.token = token
        d_model = token.embedding_dim
        if learned:
            self.position = nn.Parameter(torch.randn(max_length, d_model) * d_model**-0.5)
        else:
            self.register_buffer("position", sinusoidal(max_length, d_model), persistent=False)
        self.dropout = Dropout(dropout)
        self.taps = Taps("token", "position")

    def forward(self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """`positions` are 0, 1, … unless given, as when a cache already holds the start of each row."""
        if positions is None:
            if ids.shape[1] > len(self.position):
                raise InputError(
                    f"a sequence may have at most {len(self.position)} positions, got {ids.shape[1]}: "
                    "shorten or split it, or use a model with a larger 'max_length'."
                )
            place = self.position[: ids.shape[1]].expand(*ids.shape, -1)
        else:
            place = self.position[positions]
        token = F.embedding(ids, self.token.weight) * self.token.embedding_dim**0.5
        return self.dropout(self.taps.token(token) + self.taps.position(place))
