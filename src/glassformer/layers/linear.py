"""The dense layer x Wᵀ + b, computed the way that is quickest for few rows."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from glassformer.layers.kernels import at_hand
from glassformer.layers.kernels.ops import dense_linear

FEW = 96
"""Up to so many rows without gradients, as in greedy decoding, a CPU computes W xᵀ instead of x Wᵀ."""

LARGE = 1 << 16
"""For one row and a weight of so many numbers, our own kernel is quicker still."""


def cast_once(x: Tensor) -> Tensor:
    """Under autocast, `x` in the type that it gives to dense layers: several that read the same then share one cast,
    and its gradient is summed before it is cast back."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class Linear(nn.Linear):
    """`torch.nn.Linear`: x Wᵀ + b over the last axis.

    The products of a greedy decoding step have about 64 rows of x and 500 to 8,000 of W. There the CPU's library is 10
    to 40 % quicker with W on the left; the result is the same, its memory laid out by columns. For a single
    row it reads W at half of what memory gives, and a plain loop of our own at all of it.
    """

    def forward(self, x: Float[Tensor, "*B i"]) -> Float[Tensor, "*B o"]:
        if x.device.type != "cpu" or torch.is_grad_enabled() or x.numel() > FEW * x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] == 1 and self._large(rows):
            product = dense_linear(rows, self.weight)
            product = product if self.bias is None else product + self.bias
        elif self.bias is None:
            product = (self.weight @ rows.t()).t()
        else:
            product = torch.addmm(self.bias[:, None], self.weight, rows.t()).t()
        return product.reshape(*x.shape[:-1], -1)

    def effective_weight(self) -> Float[Tensor, "o i"]:
        """The matrix by which x is multiplied: in layers that add to `weight`, the sum."""
        return self.weight

    def _large(self, rows: Tensor) -> bool:
        if type(rows) is not Tensor and not torch.compiler.is_exporting():  # a DTensor, which our kernel does not know
            return False
        known = rows.dtype == self.weight.dtype and rows.dtype in (torch.float32, torch.bfloat16)
        return self.weight.numel() >= LARGE and known and self.weight.is_contiguous() and at_hand("generation")
