"""From a score to the probability of being wrong: two curves that never go down where the score goes up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError
from glassformer.factuality.combining import ridge_logistic, sigmoid

Method = Literal["isotonic", "platt"]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A monotone curve. "isotonic": `xs` and `ys` are its knots, with straight lines between and level ends. "platt":
    1 / (1 + e^−(a · score + b)) with `xs` = (a,) and `ys` = (b,). No probability is nearer to 0 or 1 than `least`."""

    method: Method
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    least: float

    def __call__(self, scores: Any) -> Array:
        """The probability of being wrong, for each score."""
        given = np.asarray(scores, dtype=np.float64)
        if self.method == "platt":
            found = sigmoid(self.xs[0] * given + self.ys[0])
        else:
            found = np.interp(given, self.xs, self.ys)
        return np.clip(found, self.least, 1 - self.least)

    def to_json(self) -> dict[str, Any]:
        """What `curve_of` reads back to an equal curve."""
        return {"method": self.method, "xs": self.xs, "ys": self.ys, "least": self.least}


def curve_of(content: Mapping[str, Any]) -> Curve:
    """A curve from JSON. `ValueError` for what is none: knots out of order, a method that does not exist."""
    curve = Curve(content["method"], tuple(content["xs"]), tuple(content["ys"]), float(content["least"]))
    xs, ys = np.array(curve.xs, dtype=np.float64), np.array(curve.ys, dtype=np.float64)
    sound = len(xs) == len(ys) > 0 and np.isfinite(xs).all() and np.isfinite(ys).all() and 0 <= curve.least <= 0.5
    if curve.method == "isotonic":
        sound = sound and bool((np.diff(xs) > 0).all() and (np.diff(ys) >= 0).all() and ys[0] >= 0 and ys[-1] <= 1)
    elif curve.method == "platt":
        sound = sound and len(xs) == 1 and xs[0] >= 0
    else:
        sound = False
    if not sound:
        raise ValueError("its curve is none")
    return curve


def fit_curve(method: Method, scores: Array, wrong: Array) -> Curve:
    """The curve of a kind through scores and labels. A rarely right end is not taken for a certainty: no probability is
    below 1 / (n + 2) or above 1 − that (the rule of succession of n equal labels, Laplace)."""
    least = 1 / (len(scores) + 2)
    if method == "platt":
        return _platt(scores, wrong, least)
    if method == "isotonic":
        return _isotonic(scores, wrong, least)
    raise InputError(f"a curve is 'isotonic' or 'platt', got '{method}'.")


def _platt(scores: Array, wrong: Array, least: float) -> Curve:
    """Platt 1999, "Probabilistic Outputs for Support Vector Machines": a logistic function of the score, fitted to
    labels that are drawn in to (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2). Where it would fall, it is level instead."""
    n_wrong = wrong.sum()
    targets = np.where(wrong > 0, (n_wrong + 1) / (n_wrong + 2), 1 / (len(wrong) - n_wrong + 2))
    mean, scale = float(scores.mean()), float(scores.std()) or 1.0
    slope, bias = ridge_logistic(((scores - mean) / scale)[:, None], targets, 0.0)
    if slope[0] <= 0:
        share = float(targets.mean())
        return Curve("platt", (0.0,), (float(np.log(share / (1 - share))),), least)
    return Curve("platt", (float(slope[0] / scale),), (float(bias - slope[0] * mean / scale),), least)


def _isotonic(scores: Array, wrong: Array, least: float) -> Curve:
    """Pool adjacent violators (Ayer et al. 1955), each block's share set at its mean score and joined by lines: without
    the lines' slope all answers of a block would be equal (centred isotonic regression, Oron & Flournoy 2017)."""
    blocks = pool_adjacent_violators(scores, wrong)
    return Curve("isotonic", tuple(x for x, _, _ in blocks), tuple(y for _, y, _ in blocks), least)


def pool_adjacent_violators(scores: Array, values: Array) -> list[tuple[float, float, int]]:
    """The blocks of the growing step function of the score that is nearest to the values in squares, as (mean score,
    mean value, n), by growing score. Equal scores are in one block."""
    found, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values) / counts
    blocks: list[tuple[float, float, int]] = []
    for block in zip(found.tolist(), means.tolist(), counts.tolist(), strict=True):
        while blocks and blocks[-1][1] >= block[1]:
            block = _joined(blocks.pop(), block)
        blocks.append(block)
    return blocks


def _joined(one: tuple[float, float, int], other: tuple[float, float, int]) -> tuple[float, float, int]:
    n = one[2] + other[2]
    return (one[0] * one[2] + other[0] * other[2]) / n, (one[1] * one[2] + other[1] * other[2]) / n, n
