"""Which share of the neurons, or how many of the heads, makes up which share of an effect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassformer.studies.fact_recall.statistics import Numbers, interval, weighted_mean


def crossing(effects: Numbers, counts: Sequence[int], level: float, *, of_most: bool = False) -> Numbers:
    """The smallest share of all at which the effect is `level` of that of all: effects [R, K] of sets of `counts`, of
    which the last holds all. Between two sizes the effect is taken to be a line over log(count); what is reached by the
    smallest set is given as its share. 0 where all together have no effect above 0.

    Sets need not grow in effect: some neurons work against the others. `of_most` takes the largest effect of any set
    for that of all.
    """
    whole = effects.max(1, keepdims=True) if of_most else effects[:, -1:]
    shares = np.array(counts) / counts[-1]
    relative = np.where(whole > 0, effects / np.where(whole > 0, whole, 1.0), 0.0)
    first = (relative >= level - 1e-12).argmax(1)
    rows, before = np.arange(len(effects)), np.maximum(first - 1, 0)
    low, high = relative[rows, before], relative[rows, first]
    inside = (first > 0) & (high > low)
    part = np.where(inside, (level - low) / np.where(inside, high - low, 1.0), 1.0)
    found = np.exp(np.log(shares[before]) + part * (np.log(shares[first]) - np.log(shares[before])))
    return np.asarray(np.where(whole[:, 0] > 0, found, 0.0), dtype=np.float64)


def share_of(
    curve: Sequence[Sequence[float]], counts: Sequence[int], level: float, weights: Numbers, *, of_most: bool = False
) -> Numbers:
    """`crossing` of the mean effects [K] of facts that weigh so much, [R, n]; the curve is [K][n]."""
    values = np.asarray(curve, dtype=np.float64)
    means = np.stack([weighted_mean(weights, row) for row in values], -1)
    return crossing(means, counts, level, of_most=of_most)


def share_interval(
    curve: Sequence[Sequence[float]], counts: Sequence[int], level: float, *, of_most: bool = False
) -> tuple[float, float, float]:
    """The share with its 95 % interval over facts."""
    n = len(curve[0])

    def statistic(weights: Numbers) -> Numbers:
        return share_of(curve, counts, level, weights, of_most=of_most)

    return float(statistic(np.ones((1, n)))[0]), *interval(statistic, n)


def heads_for(effects: Numbers, share: float, weights: Numbers) -> Numbers:
    """How many of all heads, of each draw of facts, have `share` of the positive mean effects: effects [n, H], the
    largest first; weights [R, n]. As a share of all heads; 1 where no effect is positive."""
    means = np.maximum(weights @ effects / np.maximum(weights.sum(-1, keepdims=True), 1e-300), 0)
    ordered = -np.sort(-means, axis=1)
    summed = ordered.cumsum(1)
    enough = summed >= share * summed[:, -1:] * (1 - 1e-12)
    found = (enough.argmax(1) + 1) / effects.shape[1]
    return np.where(summed[:, -1] > 0, found, 1.0)
