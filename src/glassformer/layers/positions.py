"""Where a token stands: sinusoidal or learned vectors, rotations of queries and keys, numbers added to the scores."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from glassformer.layers.sites import Tap

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the angles by which each position's queries and keys are turned, each [(B,) T, d / 2]."""


def sinusoidal(length: int, d_model: int, halves: bool = False) -> Float[Tensor, "T D"]:
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)) (Vaswani et al. 2017, section 3.5).

    With `halves` the same numbers in another order: all sines, then all cosines.
    """
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angle = position * frequency
    parts = (angle.sin(), angle.cos())
    table = torch.cat(parts, 1) if halves else torch.stack(parts, dim=-1).flatten(1)
    return table[:, :d_model].to(torch.get_default_dtype())


def rotary(length: int, d_head: int, base: float) -> Rotation:
    """Angles p · base^(-2i/d) of every position p (Su et al. 2021, equation 15): cosines, sines [length, d / 2]."""
    frequency = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().to(torch.get_default_dtype()), angle.sin().to(torch.get_default_dtype())


def rotate(x: Float[Tensor, "B H T d"], rotation: Rotation) -> Float[Tensor, "B H T d"]:
    """Turn coordinates i and i + d/2 of every vector together, as a point in the plane; in the type of `x`."""
    cos, sin = (part[..., None, :, :].to(x.dtype) for part in rotation)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def relative_buckets(
    distance: Int[Tensor, "*Q"], buckets: int, max_distance: int, both_ways: bool
) -> Int[Tensor, "*Q"]:
    """The bucket of a key `distance` positions after its query (before it: negative), as in T5.

    Half the buckets are for single distances, the others for ranges that grow geometrically up to `max_distance`.
    Looking `both_ways`, one half of all is for keys after the query; else those count as distance 0.
    """
    offset = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        offset = (distance > 0) * buckets
        away = distance.abs()
    else:
        away = (-distance).clamp_min(0)
    single = buckets // 2
    # in T5's order of operations: where a range ends, another order may round to the other side
    grown = (away.clamp_min(1).float() / single).log() / math.log(max_distance / single) * (buckets - single)
    ranges = single + grown.long()
    return offset + torch.where(away < single, away, ranges.clamp_max(buckets - 1))


class RelativeBias(nn.Module):
    """A trained number for each head and each bucket of distances, added to the scores (T5, section 2.1)."""

    def __init__(self, n_heads: int, buckets: int, max_distance: int, both_ways: bool) -> None:
        super().__init__()
        self.buckets, self.max_distance, self.both_ways = buckets, max_distance, both_ways
        self.weight = nn.Parameter(torch.zeros(buckets, n_heads))
        self.bias = Tap()

    def forward(self, queries: Int[Tensor, "R Q"], keys: int) -> Float[Tensor, "R H Q K"]:
        """For queries at those positions and keys at 0 … keys - 1."""
        distance = torch.arange(keys, device=queries.device) - queries[..., None]
        buckets = relative_buckets(distance, self.buckets, self.max_distance, self.both_ways)
        return self.bias(self.weight[buckets].permute(0, 3, 1, 2))
