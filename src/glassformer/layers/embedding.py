"""From ids to the residual stream: token vectors, scaled, plus position vectors, then dropout (section 3.4, 3.5)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.layers.dropout import Dropout
from glassformer.layers.norm import Norm
from glassformer.layers.sites import Taps


class Embedding(nn.Module):
    """√D · E[id] + P[position] + S[segment], then a norm: each part where the family has it.

    `token` may be shared with another embedding and with the head (three-way tying). `position` is a table of vectors,
    trained if it is a parameter.
    """

    position: Tensor | None

    def __init__(
        self,
        token: nn.Embedding,
        position: Tensor | nn.Parameter | None,
        n_segments: int = 0,
        norm: Norm | None = None,
        scale: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.token = token
        self.scale = token.embedding_dim**0.5 if scale else 1.0
        if isinstance(position, nn.Parameter):
            self.position = position
        else:
            self.register_buffer("position", position, persistent=False)
        self.segment = nn.Embedding(n_segments, token.embedding_dim) if n_segments else None
        self.norm = norm
        self.dropout = Dropout(dropout)
        names = {"token": True, "position": position is not None, "segment": n_segments > 0}
        self.taps = Taps(*(name for name, present in names.items() if present))

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        positions: Int[Tensor, "B T"] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """`positions` are 0, 1, … unless given, as when a cache already holds the start of each row; `segments` 0."""
        x = self.token(ids)
        x = self.taps.token(x * self.scale if self.scale != 1.0 else x)
        if self.position is not None:
            place = (
                self.position[: ids.shape[1]].expand(*ids.shape, -1) if positions is None else self.position[positions]
            )
            x = x + self.taps.position(place)
        if self.segment is not None:
            x = x + self.taps.segment(self.segment(torch.zeros_like(ids) if segments is None else segments))
        return self.dropout(x if self.norm is None else self.norm(x))
