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


def within_band(query: Int[Tensor, "*Q"], key: Int[Tensor, "*K"], width: int) -> Bool[Tensor, "..."]:
    """The rule of locally banded attention: a query at position i sees keys at i - width + 1 … i, itself the newest."""
    return (key <= query) & (key > query - width)


def band_mask(queries: int, keys: int, width: int, device: torch.device | None = None) -> Bool[Tensor, "Q K"]:
    """`within_band` where the queries are the last of the keys: what `causal_mask` allows, `width` keys of it."""
    places = torch.arange(keys, device=device)
    return within_band(places[keys - queries :, None], places, width)


def recent_mask(positions: Int[Tensor, "B Q"], keys: int, width: int) -> Bool[Tensor, "B 1 Q K"]:
    """`within_band` for queries at positions of their row and cached keys 0 … keys - 1."""
    return within_band(positions[..., None], torch.arange(keys, device=positions.device), width)[:, None]


def slots_mask(slots: Int[Tensor, "R W K"]) -> Bool[Tensor, "R 1 W K*W"]:
    """Where W rows share a context that holds W slots a position: row w may see slot `slots[r, w, k]` of position k."""
    own = torch.arange(slots.shape[1], device=slots.device)
    return (slots[..., None] == own).flatten(2)[:, None]


def seen_mask(positions: Int[Tensor, "B Q"], keys: int) -> Bool[Tensor, "B 1 Q K"]:
    """Query at position p of its row may attend to cached keys 0 … p; what lies beyond is not written yet."""
    return (torch.arange(keys, device=positions.device) <= positions[..., None])[:, None]


def document_mask(documents: Int[Tensor, "B Q"], keys: Int[Tensor, "B K"] | None = None) -> Bool[Tensor, "B 1 Q K"]:
    """Where several documents share a row, a position may attend to those of its own document. `keys` are the documents
    of what may be seen; the same positions unless given."""
    return (documents[:, :, None] == (documents if keys is None else keys)[:, None, :])[:, None]
