"""A gated convolution along the positions: words that stand close to each other meet (Gehring et al. 2017)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.linear import Linear
from glassformer.layers.sites import Taps


class GatedConvolution(nn.Module):
    """GLU(W x + b) of each window of `kernel` positions: a · σ(b) for the two halves of W x (Dauphin et al. 2017).

    Written as a dense layer over the window, [kernel · D] to [2 D]. Site `pre` is what the gate is applied to.
    """

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.dense = Linear(kernel * d_model, 2 * d_model)
        self.taps = Taps("pre", "output")

    def forward(self, x: Float[Tensor, "B W D"]) -> Float[Tensor, "B T D"]:
        """One output for each whole window of `x`: T = W - kernel + 1."""
        count = x.shape[1] - self.kernel + 1
        windows = torch.cat([x[:, begin : begin + count] for begin in range(self.kernel)], -1)
        return self.taps.output(F.glu(self.taps.pre(self.dense(windows)), -1))
