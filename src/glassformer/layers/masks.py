"""Attention masks: boolean, True = may attend, combined with `&`. They are made here and nowhere else."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def padding_mask(real: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1 1 K"]:
    """Every query may attend to every position that is `real`: not padding."""
    return real[:, None, None, :]


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "Q K"]:
    """Query i may attend to key j ≤ i. Queries are the last of the keys (section 3.2.3, masked self-attention)."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def slots_mask(slots: Int[Tensor, "R W K"]) -> Bool[Tensor, "R 1 W K*W"]:
    """Where W rows share a context that holds W slots a position: row w may see slot `slots[r, w, k]` of position k."""
    own = torch.arange(slots.shape[1], device=slots.device)
    return (slots[..., None] == own).flatten(2)[:, None]


def seen_mask(positions: Int[Tensor, "B Q"], keys: int) -> Bool[Tensor, "B 1 Q K"]:
    """Query at position p of its row may attend to cached keys 0 … p; what lies beyond is not written yet."""
    return (torch.arange(keys, device=positions.device) <= positions[..., None])[:, None]


def document_mask(documents: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Where several documents share a row, a position may attend to those of its own document."""
    return (documents[:, :, None] == documents[:, None, :])[:, None]
