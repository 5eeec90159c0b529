"""What a head of self-attention does in one text, in a word: for the badges beside its picture.

What a head does in general, on random tokens that stand twice, is measured by `interpret.heads`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SHARE = 0.4
FEWEST = 2

RULE = (
    f"tokens give at least {100 * SHARE:.0f} % of their attention, on average, to the one before (“previous token”), "
    "to earlier ones that are the same (“duplicate”), to what came after these (“induction”)"
)


def head_tags(pattern: Float[Tensor, "H T T"], ids: Sequence[int]) -> list[list[str]]:
    """The tags of each head, by where the tokens of this text look (Elhage et al. 2021; Olsson et al. 2022):

    - "previous token": at the one before;
    - "duplicate": at earlier ones that are the same;
    - "induction": at what came after earlier ones that are the same.

    The mean is over the tokens that have such a place to look at. It is about this text, not about the head in general.
    """
    named = {name: _share(pattern, where) for name, where in _places(ids).items()}
    return [[name for name, share in named.items() if share[head] >= SHARE] for head in range(len(pattern))]


def _places(ids: Sequence[int]) -> dict[str, Bool[Tensor, "T T"]]:
    """Where each query would look: rows are queries."""
    given = torch.tensor(ids)
    places = torch.arange(len(ids))
    earlier = places[:, None] > places
    same = (given[:, None] == given) & earlier
    after = torch.zeros_like(same)
    after[:, 1:] = same[:, :-1]
    return {"previous token": places[:, None] == places + 1, "duplicate": same, "induction": after & earlier}


def _share(pattern: Float[Tensor, "H T T"], where: Bool[Tensor, "T T"]) -> list[float]:
    asked = where.any(-1)
    if asked.sum() < FEWEST:
        return [0.0] * len(pattern)
    return (pattern * where).sum(-1)[:, asked].mean(-1).tolist()
