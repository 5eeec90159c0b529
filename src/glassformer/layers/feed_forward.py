"""The position-wise feed-forward network (Vaswani et al. 2017, section 3.3), plain or gated."""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.dropout import Dropout
from glassformer.layers.linear import Linear, cast_once
from glassformer.layers.sites import Taps


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, "Primer")."""
    return F.relu(x).square()


activations: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_squared": relu_squared,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """f(x W₁ + b₁) W₂ + b₂ at every position alike (equation 2, with f = ReLU).

    Gated, f(x V) · (x W₁) takes the place of the hidden units (Shazeer 2020; SwiGLU with f = SiLU). Site `pre` is what
    f is applied to, `hidden` what the down-projection reads.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str = "relu",
        dropout: float = 0.0,
        gated: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.gate = Linear(d_model, d_ff, bias) if gated else None
        self.up = Linear(d_model, d_ff, bias)
        self.down = Linear(d_ff, d_model, bias)
        self.to_both: nn.Module | None = None  # gate and up in one product, in a copy made for running
        self.up_has_gelu = False  # such a copy's `up` can give the hidden units themselves, in one visit
        self.activation = activations[activation]
        self.dropout = Dropout(dropout)
        self.taps = Taps("pre", "hidden", "output")

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        x = cast_once(x)
        if self.to_both is not None:
            gate, up = self.to_both(x).chunk(2, -1)
            hidden = self.activation(self.taps.pre(gate)) * up
        elif self.gate is not None:
            hidden = self.activation(self.taps.pre(self.gate(x))) * self.up(x)
        elif self.up_has_gelu and not self.taps.pre.active:
            hidden = self.up(x, gelu=True)
        else:
            hidden = self.activation(self.taps.pre(self.up(x)))
        return self.taps.output(self.down(self.taps.hidden(self.dropout(hidden))))
