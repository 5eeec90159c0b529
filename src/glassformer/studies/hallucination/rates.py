"""What comes of questions that are put in one way or another: outcomes, their rates, and how much these differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.factuality.questions import Question, is_refusal, is_right
from glassformer.studies.fact_recall.statistics import shown
from glassformer.tasks.intervals import wilson

OUTCOMES = ("right", "abstains", "wrong")
RATES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accuracy": (("right",), OUTCOMES),
    "abstention": (("abstains",), OUTCOMES),
    "hallucination rate": (("wrong",), OUTCOMES),
    "wrong of the answers": (("wrong",), ("right", "wrong")),
}
"""Each rate is the share of the first outcomes in the second."""

RESAMPLES = 2000

Around = list[float] | None
"""A share with the ends of its 95 % interval; None where there is nothing to take a share of."""

Numbers = NDArray[np.float64]


def outcome_of(text: str, question: Question) -> str:
    """What an answer does: "right" if it gives the answer somewhere, "abstains" if it says nothing or says that it does
    not know, else "wrong"."""
    if is_right(text, question, lenient=True):
        return "right"
    return "abstains" if not text.strip() or is_refusal(text) else "wrong"


def share_of(outcomes: Sequence[str], rate: str, entities: Sequence[str]) -> Around:
    """A rate with its interval: a bootstrap over entities, or Wilson's where the share is 0 or 1."""
    part, whole = _counted(outcomes, rate, entities)
    if not whole.sum():
        return None
    if part.sum() in (0, whole.sum()):
        around = wilson(int(part.sum()), int(whole.sum()))
        return [float(part.sum() / whole.sum()), around.low, around.high]
    return _around(lambda weights: _ratio(weights, part, whole), len(part))


def difference_of(
    outcomes: Sequence[str], others: Sequence[str], rate: str, entities: Sequence[str], weight: float = 1.0
) -> Around:
    """A rate less `weight` times that of other outcomes of the same questions, with its interval over entities."""
    part, whole = _counted(outcomes, rate, entities)
    less, of = _counted(others, rate, entities)
    if not whole.sum() or not of.sum():
        return None
    return _around(lambda weights: _ratio(weights, part, whole) - weight * _ratio(weights, less, of), len(part))


def percent(around: Around, sign: bool = False) -> str:
    """`12.3 [10.0, 14.6]`, of a share."""
    if around is None:
        return "no answer"
    text = shown(*(100 * each for each in around), digits=1)
    return f"+{text}" if sign and around[0] > 0 else text


def _counted(outcomes: Sequence[str], rate: str, entities: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Of each entity, how many outcomes are of the rate's first kinds, and how many of its second."""
    place = np.unique(np.array(entities, dtype=str), return_inverse=True)[1]
    size = int(place.max(initial=-1)) + 1
    first, second = (
        np.bincount(place, [float(one in kinds) for one in outcomes], size).astype(np.float64) for kinds in RATES[rate]
    )
    return first, second


def _ratio(weights: Numbers, part: Numbers, whole: Numbers) -> Numbers:
    """The share in each draw; one that has nothing to take a share of counts with the share of all."""
    below = weights @ whole
    found: Numbers = np.where(below > 0, weights @ part / np.maximum(below, 1e-300), part.sum() / whole.sum())
    return found


@cache
def _draws(n: int) -> Numbers:
    """How often each of n entities is drawn when n are drawn with replacement, [R, n]."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)


def _around(statistic: Callable[[Any], Numbers], n: int) -> list[float]:
    low, high = np.quantile(statistic(_draws(n)), [0.025, 0.975])
    return [float(statistic(np.ones((1, n)))[0]), float(low), float(high)]
