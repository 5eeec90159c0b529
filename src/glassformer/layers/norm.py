"""Normalisation of the residual stream."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.sites import Taps


class LayerNorm(nn.Module):
    """(x - mean) / √(variance + ε) · weight + bias over the last axis (Ba et al. 2016).

    The site `scale` is the denominator's inverse, [*B, 1]; it is computed apart only when a plan names it.
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.taps = Taps("scale", "output")

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        if self.taps.scale.active:
            centred = x - x.mean(-1, keepdim=True)
            scale = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
            edited = self.taps.scale(scale)
            if edited is not scale:  # where it is only read, what flows on stays the same to the last bit
                return self.taps.output(centred * edited * self.weight + self.bias)
        return self.taps.output(F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps))


class RMSNorm(nn.Module):
    """x / √(mean of squares + ε) · weight over the last axis (Zhang & Sennrich 2019). `scale` as in `LayerNorm`."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.taps = Taps("scale", "output")

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        if self.taps.scale.active:
            scale = (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()
            edited = self.taps.scale(scale)
            if edited is not scale:
                return self.taps.output(x * edited * self.weight)
        return self.taps.output(F.rms_norm(x, self.weight.shape, self.weight, self.eps))


Norm = LayerNorm | RMSNorm
