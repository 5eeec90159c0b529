"""What a softmax of dot products does to random queries and keys of a width."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def measured(width: int, keys: int, sets: int, seed: int) -> dict[str, Any]:
    """Variance of q · k over d_k, then entropy and gradients with the scaling and without.

    `sets` times as many queries as keys, all coordinates N(0, 1).
    """
    random = torch.Generator().manual_seed(seed)
    query, key, arriving = (
        torch.randn(sets, keys, size, generator=random, dtype=torch.float64) for size in (width, width, keys)
    )
    products = query @ key.mT
    found: dict[str, Any] = {"variance": float(products.var()) / width}
    for name, scale in (("scaled", width**-0.5), ("unscaled", 1.0)):
        pattern = (products * scale).softmax(-1)
        at_scores = score_gradient(pattern, arriving)
        found[name] = {
            "entropy": float(entropy(pattern, torch.tensor(float(keys))).mean()),
            "at_scores": spread(at_scores.norm(dim=-1)),
            "at_query": spread((at_scores @ key * scale).norm(dim=-1)),
        }
    return found


def entropy(pattern: Float[Tensor, "*B K"], keys: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """-Σ p log p / log n: 1 where all of the n keys get the same, 0 where one gets all."""
    return -torch.special.xlogy(pattern, pattern).sum(-1) / keys.log()


def score_gradient(pattern: Float[Tensor, "*B K"], arriving: Float[Tensor, "*B K"]) -> Float[Tensor, "*B K"]:
    """What a gradient g at the weights p = softmax(s) becomes at the scores: p (g - Σ p g)."""
    return pattern * (arriving - (pattern * arriving).sum(-1, keepdim=True))


def spread(norms: Tensor) -> dict[str, float]:
    """Mean and median of the queries."""
    return {"mean": float(norms.mean()), "median": float(norms.median())}


def chance_loss() -> float:
    """Nats an answer where the three words of a sentence are known and their order is not: log 3."""
    return math.log(3)
