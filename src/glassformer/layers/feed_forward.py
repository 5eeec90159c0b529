"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3)."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.dropout import Dropout
from glassformer.layers.linear import Linear
from glassformer.layers.sites import Taps

activations: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class FeedForward(nn.Module):
    """f(x W₁ + b₁) W₂ + b₂ at every position alike (equation 2, with f = ReLU)."""

    def __init__(self, d_model: int, d_ff: int, activation: str = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        self.up = Linear(d_model, d_ff)
        self.down = Linear(d_ff, d_model)
        self.activation = activations[activation]
        self.dropout = Dropout(dropout)
        self.taps = Taps("pre", "hidden", "output")

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        hidden = self.dropout(self.activation(self.taps.pre(self.up(x))))
        return self.taps.output(self.down(self.taps.hidden(hidden)))
