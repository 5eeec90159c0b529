"""What can be said of the sinusoidal table without training anything."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.layers.positions import sinusoidal

STARTS = (0, 10, 50)
"""Positions from which dot products are taken, as far as the table has them."""


def table(length: int, width: int) -> Float[Tensor, "T D"]:
    """The table that the models use, as double-precision numbers."""
    return sinusoidal(length, width).double()


def dot_products(width: int, length: int) -> dict[str, list[float]]:
    """PE(p) · PE(p + k) / (D / 2) for k = 0, 1, …, half the table, from each start p: 1 at k = 0."""
    vectors, reach = table(length, width), length // 2
    starts = [start for start in STARTS if start + reach < length]
    return {str(p): [float(x) for x in vectors[p : p + reach + 1] @ vectors[p] / (width / 2)] for p in starts}


def neighbours(width: int, length: int) -> int:
    """Up to which distance k the dot product has only fallen: the first rise comes after."""
    values = next(iter(dot_products(width, length).values()))
    rises = (later > earlier for earlier, later in zip(values, values[1:], strict=False))
    return next((k for k, rise in enumerate(rises) if rise), len(values) - 1)


def largest_errors(width: int, length: int) -> dict[str, float]:
    """The largest differences from two laws, over all positions p and offsets k of the table.

    `dot_error`: PE(p) · PE(p + k) - Σ_i cos(k ω_i), relative to D / 2, so that the product depends on k alone.
    `turn_error`: PE(p + k) - R_k PE(p) for the matrix R_k that turns each pair (sine, cosine) by k ω_i, so that a step
    of k is one linear map wherever it begins (Vaswani et al. 2017, section 3.5).
    """
    vectors, frequency = table(length, width), frequencies(width)
    offsets = torch.arange(length, dtype=torch.float64)
    expected = (offsets[:, None] * frequency).cos().sum(1)
    place = torch.arange(length)
    distance = (place[:, None] - place).abs()
    dot_error = (vectors @ vectors.T - expected[distance]).abs().max() / (width / 2)
    turn_error = max(
        float((turned(vectors[: length - k], k) - vectors[k:]).abs().max()) for k in (1, 7, length // 2, length - 1)
    )
    return {"dot_error": float(dot_error), "turn_error": turn_error}


def frequencies(width: int) -> Tensor:
    """ω_i = 10000^(-2i/D), radians a position."""
    return 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def turned(vectors: Float[Tensor, "T D"], k: int) -> Float[Tensor, "T D"]:
    """Each pair (sin a, cos a) turned to (sin(a + k ω), cos(a + k ω))."""
    angle = k * frequencies(vectors.shape[1])
    sine, cosine = vectors[:, 0::2], vectors[:, 1::2]
    pairs = (sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin())
    return torch.stack(pairs, -1).flatten(1)
