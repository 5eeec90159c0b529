"""How well a score tells wrong answers from right ones, and how well probabilities mean what they say.

Scores are uncertainties: the higher, the more likely is the answer wrong. `wrong` and `happened` hold true or false for
each. Among equal scores no order is made up: every figure is what a random order of them would give on average.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError
from glassformer.tasks.intervals import Interval, bootstrap

Numbers = Sequence[float] | NDArray[Any]
Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Estimate:
    """A figure, and the interval in which it would be for an endless set of the same kind."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class RiskCoverage:
    """The share of wrong answers (`risk`) among the k least uncertain of n, and k / n (`coverage`), for k = 1 … n.
    `area` is the mean risk over all coverages: 0 is perfect, the error rate is what chance gives."""

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    area: float


@dataclass(frozen=True)
class Bin:
    """Of `n` cases of like probability: the mean probability, and the share in which it happened."""

    probability: float
    share: float
    n: int


def auroc(scores: Numbers, wrong: Numbers) -> float:
    """The probability that a wrong answer has a higher score than a right one, equal ones counted half: 0.5 is chance.

    The area under the curve of true over false positives, by ranks (Mann & Whitney 1947). Raises `InputError` where all
    answers are right, or all wrong.
    """
    values, labels = _checked(scores, wrong, both=True)
    order, counts = np.unique(values, return_inverse=True, return_counts=True)[1:]
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    n = labels.sum()
    return float((ranks[labels > 0].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def prr(scores: Numbers, wrong: Numbers, max_rejection: float = 1.0) -> float:
    """The prediction-rejection ratio: 0 is what rejecting at random gives, 1 what rejecting wrong answers first gives.

    Let a(k) be the share of right answers among the k least uncertain of n, and A its mean over the last r values of k,
    r = ⌊`max_rejection` · n⌋, as up to r answers are rejected. The ratio is (A − share of right answers) / (A of the
    order by `wrong` itself − share of right answers): Malinin et al. 2021, "Uncertainty Estimation in Autoregressive
    Structured Prediction", as lm-polygraph 0.7 computes it, but with the exact mean over random orders where that draws
    1,000. Raises `InputError` where all answers are right, or all wrong.
    """
    values, labels = _checked(scores, wrong, both=True)
    n_rejected = int(max_rejection * len(labels))
    if not 0 < max_rejection <= 1 or not n_rejected:
        raise InputError(f"'max_rejection' must be above 0, at most 1, and reject an answer, got {max_rejection}.")
    chance = 1 - labels.mean()
    best = _mean_kept(labels, labels, n_rejected)
    return float((_mean_kept(values, labels, n_rejected) - chance) / (best - chance))


def _mean_kept(scores: NDArray[np.float64], wrong: NDArray[np.float64], n_rejected: int) -> float:
    """The share of right answers among those kept, averaged over how many of the last `n_rejected` are rejected."""
    return float(1 - _cumulative(scores, wrong)[-n_rejected:].mean())


def risk_coverage(scores: Numbers, wrong: Numbers) -> RiskCoverage:
    """What remains wrong where only the least uncertain answers are given: El-Yaniv & Wiener 2010."""
    risk = _cumulative(*_checked(scores, wrong))
    return RiskCoverage(np.arange(1, len(risk) + 1) / len(risk), risk, float(risk.mean()))


def _cumulative(scores: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of wrong ones among the k least uncertain, k = 1 … n; equal scores share what they have."""
    return np.cumsum(_in_order(scores, wrong)[1]) / np.arange(1, len(wrong) + 1)


def _in_order(values: NDArray[np.float64], happened: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sorted values with what happened; where values are equal, with the mean of what did."""
    found, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=happened) / counts
    return np.repeat(found, counts), np.repeat(means, counts)


# --- Probabilities ----------------------------------------------------------------------------------------------------


def ece(probabilities: Numbers, happened: Numbers, bins: int = 10) -> float:
    """The expected calibration error: Σ n_b / n · |mean probability − share that happened| over bins b of as many cases
    each, in order of probability (equal mass: Nguyen & O'Connor 2015; Naeini et al. 2015 for the error itself).

    Even a perfect probability has one, of about 0.8 √(p (1 − p) bins / n), for the bins are finite. It is the same for
    the probability of the contrary.
    """
    found = reliability(probabilities, happened, bins)
    total = sum(each.n for each in found)
    return sum(each.n * abs(each.probability - each.share) for each in found) / total


def reliability(probabilities: Numbers, happened: Numbers, bins: int = 10) -> list[Bin]:
    """Bins of as many cases each (one more in the first where it does not come out even), by growing probability."""
    given, labels = _probable(probabilities, happened)
    if bins < 1:
        raise InputError(f"'bins' must be at least 1, got {bins}.")
    values, shares = (np.array_split(each, min(bins, len(labels))) for each in _in_order(given, labels))
    return [Bin(float(v.mean()), float(s.mean()), len(v)) for v, s in zip(values, shares, strict=True)]


def brier(probabilities: Numbers, happened: Numbers) -> float:
    """The mean squared difference of probability and what happened, 0 or 1: Brier 1950."""
    given, labels = _probable(probabilities, happened)
    return float(((given - labels) ** 2).mean())


def brier_skill(probabilities: Numbers, happened: Numbers, base: float | None = None) -> float:
    """1 − Brier score / that of always saying `base`: 0 is no more than the base rate, 1 is perfect, below 0 misleads.

    `base` is the share that happened here unless given, which no constant can beat. Raises `InputError` where all
    happened, or none.
    """
    given, labels = _probable(probabilities, happened, both=True)
    constant = np.full(len(labels), labels.mean() if base is None else base)
    return 1 - brier(given, labels) / brier(constant, labels)


# --- Intervals --------------------------------------------------------------------------------------------------------


def with_interval(
    metric: Metric,
    values: Numbers,
    happened: Numbers,
    entities: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A figure of this module with its percentile bootstrap interval (Efron 1979) over entities.

    Answers about one entity hang together, so entities are drawn with replacement, each with all of its answers
    (Field & Welsh 2007); without `entities` every answer is one. A draw with right or wrong answers only, of which a
    figure may not be defined, counts with the figure of all.
    """
    given, labels = _checked(values, happened)
    rows = _rows_of(range(len(given)) if entities is None else entities, len(given))
    value = metric(given, labels)

    def statistic(samples: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.array([_drawn(metric, given, labels, rows, sample.astype(int), value) for sample in samples])

    return Estimate(value, bootstrap(range(len(rows)), statistic, confidence, resamples, seed))


def _rows_of(entities: Sequence[Hashable], n: int) -> list[NDArray[np.intp]]:
    if len(entities) != n:
        raise InputError(f"every answer needs its entity, got {n} and {len(entities)}.")
    groups: dict[Hashable, list[int]] = {}
    for row, entity in enumerate(entities):
        groups.setdefault(entity, []).append(row)
    return [np.array(group) for group in groups.values()]


def _drawn(
    metric: Metric, values: Any, happened: Any, rows: list[NDArray[np.intp]], sample: NDArray[Any], value: float
) -> float:
    """The figure of the entities drawn. One that is not defined for them takes the value of all: it is rare, and says
    nothing of the spread."""
    chosen = np.concatenate([rows[each] for each in sample])
    mean = happened[chosen].mean()
    if mean in (0.0, 1.0) and metric in (auroc, prr, brier_skill):
        return value
    return metric(values[chosen], happened[chosen])


def _probable(probabilities: Any, happened: Any, both: bool = False) -> tuple[Any, Any]:
    probabilities, happened = _checked(probabilities, happened, both)
    if probabilities.min() < 0 or probabilities.max() > 1:
        wrong = next(p for p in probabilities if not 0 <= p <= 1)
        raise InputError(f"a probability must be from 0 to 1, got {wrong}: a score is none before it is calibrated.")
    return probabilities, happened


def _checked(values: Any, happened: Any, both: bool = False) -> tuple[Any, Any]:
    values, happened = np.asarray(values, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    if values.ndim != 1 or values.shape != happened.shape or not values.size:
        raise InputError(
            f"every answer needs its score and its label, got the shapes {values.shape}, {happened.shape}."
        )
    if not np.isfinite(values).all():
        raise InputError(f"scores must be finite numbers, got {values[~np.isfinite(values)][0]}.")
    if not np.isin(happened, (0.0, 1.0)).all():
        raise InputError("a label must be true or false (1 or 0).")
    if both and happened.mean() in (0.0, 1.0):
        raise InputError(f"this figure needs right and wrong answers, these {len(values)} are all of one kind.")
    return values, happened
