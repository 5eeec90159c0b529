"""What a linear probe reads: fitted to states as they are, it reads others of the same, held-out subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from glassformer.interpret.controls import bag
from glassformer.interpret.discriminants import Space, held_out

FOLDS = 5


def folds_of(truth: Int[Tensor, n], count: int, seed: int = 0) -> Int[Tensor, n]:
    """A fold for each row, with like counts of each class."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.zeros_like(truth)
    for label in truth.unique():
        rows = (truth == label).nonzero()[:, 0]
        order = rows[torch.randperm(len(rows), generator=draw)]
        found[order] = (torch.arange(len(rows)) + int(label)) % count
    return found


def read(
    fitted: Float[Tensor, "n D"], others: Mapping[str, Float[Tensor, "n D"]], labels: Sequence[str], seed: int = 0
) -> dict[str, list[bool]]:
    """Whether the probe is right about each subject, read off the states of each name in `others`.

    In every fold the probe (`interpret.discriminants`) is fitted to `fitted` of the other folds' subjects, its ridge
    chosen among these; it reads the states of those left out. One subject a row: none is in two folds.
    """
    names = sorted(set(labels))
    truth = torch.tensor([names.index(label) for label in labels])
    parts = folds_of(truth, FOLDS, seed)
    rows = fitted.double()
    right = {name: torch.zeros(len(truth), dtype=torch.bool) for name in others}
    for fold in parts.unique().tolist():
        left = parts == fold
        inner = folds_of(truth[~left], FOLDS - 1, seed)
        _, strength = held_out(rows[~left], truth[None, ~left], inner)
        weight, bias = Space(rows[~left]).reader(truth[~left], len(names), strength)
        for name, states in others.items():
            guess = (states[left].double() @ weight.T + bias).argmax(-1)
            right[name][left] = guess == truth[left]
    return {name: each.tolist() for name, each in right.items()}


def bag_of(rows: Sequence[Sequence[int]]) -> Float[Tensor, "n W"]:
    """How often each row has each of the tokens that are in two rows at least."""
    return bag(rows, np.arange(len(rows)))[0].float()
