"""What tests of edits share: texts, runs with edits, and runs in which functions act at sites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from interpret.all_families import Case, real
from torch import Tensor

import glassformer as gf
from glassformer.layers.sites import edges, planned, sites


def other(this: Case) -> Case:
    """As many other texts of the same lengths."""
    return Case(this.network, *([[(i * 7) % 35 + 4 for i in row] for row in side] if side else None
                                for side in (this.rows, this.targets)))  # fmt: skip


def traced(this: Case, *expressions: str, **settings: Any) -> Any:
    return gf.trace(this.network, this.rows, *expressions, target=this.targets, **settings)


def logits_of(this: Case, *edits: Any) -> Tensor:
    return traced(this, "logits", edits=edits)["logits"]


def by_hand(this: Case, plan: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """The logits of a run in which functions act at sites, zeros at padding."""
    with torch.no_grad():
        logits = planned(this.network, plan)(*this.batch).logits
    return logits if logits.ndim == 2 else torch.where(real(this.text_lengths)[..., None], logits, 0.0)


def untouched(network: Any) -> bool:
    return not any(tap.active for tap in (*sites(network).values(), *edges(network).values()))


FACTS = gf.Facts(
    (gf.Fact("1", "blue shirt", "r", "a blue shirt on", ("x",)), gf.Fact("2", "man", "r", "the man in", ("x",)))
)
