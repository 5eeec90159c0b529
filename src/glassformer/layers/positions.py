"""Where a token stands: sinusoidal or learned position vectors."""

import torch
from jaxtyping import Float
from torch import Tensor


def sinusoidal(length: int, d_model: int) -> Float[Tensor, "T D"]:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)) (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = position * frequency
    table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :d_model]
    return table.to(torch.get_default_dtype())
