"""Linear discriminants with a ridge, fitted for many label sets and strengths at once, and read where held out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

STRENGTHS = tuple(10.0**power for power in range(-3, 4))
"""The ridges λ that are tried, in units of a feature's variance."""


class Space:
    """Rows to fit to, standardised and turned to their principal axes: made once for all labels and strengths."""

    def __init__(self, rows: Float[Tensor, "m D"]) -> None:
        self.mean = rows.mean(0)
        centred = rows - self.mean
        spread = centred.square().mean(0).sqrt()
        noise = 1e-5 * rows.square().mean(0).sqrt()  # what is constant but for rounding tells nothing
        self.scale = torch.where(spread > noise, 1 / spread.clamp_min(1e-300), 0.0)
        centred = centred * self.scale
        m, width = centred.shape
        if width <= m:
            variances, axes = torch.linalg.eigh(centred.T @ centred / m)
        else:
            variances, axes = torch.linalg.eigh(centred @ centred.T / m)
            axes = centred.T @ axes / (m * variances.clamp_min(1e-300)).sqrt()
        real = variances > 1e-9 * max(1.0, float(variances.sum()))
        self.variances, self.axes = variances[real], axes[:, real]
        self.rows = centred @ self.axes

    def turned(self, rows: Float[Tensor, "n D"]) -> Float[Tensor, "n r"]:
        """Other rows along the same axes."""
        return (rows - self.mean) * self.scale @ self.axes

    def fit(self, truth: Tensor, n_classes: int, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """w [λ, C, r] and b [λ, C] of the discriminants along the axes.

        The covariance within classes is the whole S (diagonal here) less that of the class means, MᵀΠM. By Woodbury's
        identity (S + λ − MᵀΠM)⁻¹Mᵀ = (S + λ)⁻¹Mᵀ(1 − ΠG)⁻¹ with G = M(S + λ)⁻¹Mᵀ: a system of C equations.
        """
        chosen = torch.nn.functional.one_hot(truth, n_classes).double()
        counts = chosen.sum(0)
        means = chosen.T @ self.rows / counts.clamp_min(1)[:, None]
        scaled = means / (self.variances + torch.tensor(strengths, dtype=torch.float64)[:, None, None])
        between = scaled @ means.T
        weight = torch.linalg.solve(torch.eye(n_classes) - between * (counts / len(truth)), scaled)
        bias = -0.5 * (weight * means).sum(-1)
        return weight, bias.masked_fill(counts == 0, float("-inf"))

    def reader(self, truth: Tensor, n_classes: int, strength: float) -> tuple[Tensor, Tensor]:
        """w [C, D] and b [C] for rows as they come."""
        weight, bias = (each[0] for each in self.fit(truth, n_classes, [strength]))
        whole = weight @ self.axes.T * self.scale
        return whole, bias - whole @ self.mean


def held_out(rows: Tensor, answers: Int[Tensor, "P n"], parts: Tensor) -> tuple[Int[Tensor, "P n"], float]:
    """For each set of labels what is read off rows that were held out, and the λ that read the first set best.

    `parts` are the rows' folds 0, 1, …: each is read by a probe of the others, with the λ that is best among these.
    """
    n_classes, folds = int(answers.max()) + 1, int(parts.max()) + 1
    inner = torch.zeros(len(answers), folds, len(STRENGTHS), n_classes, dtype=torch.float64)

    def predicted(left: Bool[Tensor, n]) -> list[Tensor]:
        """Per set of labels [λ, left out]: what a probe of the other rows reads in those left out."""
        space = Space(rows[~left])
        turned = space.turned(rows[left])
        fits = [space.fit(each[~left], n_classes, STRENGTHS) for each in answers]
        return [(turned @ weight.transpose(-2, -1) + bias[:, None]).argmax(-1) for weight, bias in fits]

    # A probe that has seen neither of two folds helps to choose λ for each of them by what it reads in the other.
    for first, second in combinations(range(folds), 2):
        left = (parts == first) | (parts == second)
        where = parts[left]
        for number, found in enumerate(predicted(left)):
            for fold, other in ((first, where == second), (second, where == first)):
                inner[number, fold] += hits(found[:, other], answers[number][left][other], n_classes)
    result, all_hits = torch.zeros_like(answers), torch.zeros(len(STRENGTHS), n_classes, dtype=torch.float64)
    for fold in range(folds):
        left = parts == fold
        for number, found in enumerate(predicted(left)):
            totals = torch.bincount(answers[number][~left], minlength=n_classes)
            result[number, left] = found[_best(inner[number, fold], totals)]
            if number == 0:
                all_hits += hits(found, answers[0][left], n_classes)
    return result, STRENGTHS[_best(all_hits, torch.bincount(answers[0], minlength=n_classes))]


def hits(found: Int[Tensor, "S m"], truth: Int[Tensor, m], n_classes: int) -> Float[Tensor, "S C"]:
    """How many rows of each class are read rightly."""
    right = (found == truth).double()
    return right @ torch.nn.functional.one_hot(truth, n_classes).double()


def _best(right: Float[Tensor, "S C"], totals: Int[Tensor, C]) -> int:
    """The strength with the highest balanced accuracy; the strongest of equal ones."""
    scores = (right / totals.clamp_min(1)).mean(-1)
    return int((scores >= scores.max() - 1e-12).nonzero()[-1])
