"""What decides: paired differences over subjects, their intervals and p values, and one correction for all tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.tasks.intervals import Interval

RESAMPLES = 10_000
ALPHA = 0.05
"""The chance, over all tests of a study together, that any of them is called supported without an effect."""

Numbers = NDArray[np.float64]
Values = Sequence[float] | Numbers
Statistic = Callable[[Numbers], Numbers]
"""From weights of the subjects [R, n] (how often each was drawn) to the statistic of each draw, [R]."""


@dataclass(frozen=True)
class Test:
    """One test of a prediction, in the form in which it is kept: the statistic is above 0 where the prediction holds.

    `p` is the chance of a statistic as large or larger without the predicted effect; `measured` says in words and
    units what was measured. A test that could not be made has `missing`, the reason, and nothing else.
    """

    name: str
    n: int = 0
    estimate: float = 0.0
    low: float = 0.0
    high: float = 0.0
    p: float = 1.0
    measured: str = ""
    missing: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def untested(names: Sequence[str], why: str) -> list[dict[str, Any]]:
    """Tests of these names that could not be made."""
    return [Test(name, missing=why).to_json() for name in names]


def paired(
    name: str,
    differences: Values,
    measured: str,
    *,
    classes: Sequence[Any] | None = None,
    least: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Whether the mean of one difference a subject is above 0; with `classes`, the mean over classes of their means.

    The interval is a percentile bootstrap over subjects. p is that of a sign-flip permutation test (Fisher 1935): under
    the null a subject's difference has either sign alike. Fewer subjects than `least` are no test.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < least:
        return Test(name, len(values), missing=f"{len(values)} subjects are too few, {least} are needed").to_json()
    weights = balanced_weights(classes, len(values))
    low, high = interval(lambda drawn: weighted_mean(drawn * weights, values), len(values), seed)
    estimate = float((weights * values).sum() / weights.sum())
    return Test(name, len(values), estimate, low, high, sign_flip(values, weights, seed), measured).to_json()


def unpaired(
    name: str, first: Values, second: Values, measured: str, *, least: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Whether the mean of the first subjects is above that of the second, other ones: a bootstrap over both."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if min(len(a), len(b)) < least:
        why = f"{min(len(a), len(b))} subjects are too few, {least} are needed"
        return Test(name, min(len(a), len(b)), missing=why).to_json()
    one, other = draws(len(a), seed), draws(len(b), seed + 1)
    return _of_draws(name, len(a), a.mean() - b.mean(), weighted_mean(one, a) - weighted_mean(other, b), measured)


def bootstrapped(
    name: str, statistic: Statistic, n: int, measured: str, *, least: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Whether a statistic of n subjects is above 0: p is how often it is not when subjects are drawn anew."""
    if n < least:
        return Test(name, n, missing=f"{n} subjects are too few, {least} are needed").to_json()
    estimate = float(statistic(np.ones((1, n)))[0])
    return _of_draws(name, n, estimate, statistic(draws(n, seed)), measured)


def _of_draws(name: str, n: int, estimate: float, drawn: Numbers, measured: str) -> dict[str, Any]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    p = (1 + int((drawn <= 0).sum())) / (1 + len(drawn))
    return Test(name, n, float(estimate), float(low), float(high), float(p), measured).to_json()


def draws(n: int, seed: int = 0) -> Numbers:
    """How often each of n subjects is drawn when n are drawn with replacement, `RESAMPLES` times: [R, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)


def weighted_mean(weights: Numbers, values: Numbers) -> Numbers:
    """Σ w v / Σ w of each row of weights."""
    found: Numbers = weights @ values / np.maximum(weights.sum(-1), 1e-300)
    return found


def interval(statistic: Statistic, n: int, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval (Efron 1979) over n subjects."""
    low, high = np.quantile(statistic(draws(n, seed)), [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: Values, classes: Sequence[Any] | None = None, seed: int = 0) -> tuple[float, Interval]:
    """A mean over subjects, or over classes of their means, with its interval."""
    sample = np.asarray(values, dtype=np.float64)
    weights = balanced_weights(classes, len(sample))
    low, high = interval(lambda drawn: weighted_mean(drawn * weights, sample), len(sample), seed)
    return float((weights * sample).sum() / weights.sum()), Interval(low, high)


def balanced_weights(classes: Sequence[Any] | None, n: int) -> Numbers:
    """1 for each subject, or such that every class weighs the same."""
    if classes is None:
        return np.ones(n)
    counts: dict[Any, int] = {}
    for label in classes:
        counts[label] = counts.get(label, 0) + 1
    return np.array([1 / counts[label] for label in classes])


def sign_flip(values: Numbers, weights: Numbers, seed: int = 0) -> float:
    """How often random signs give as large a weighted mean: one-sided, the given signs counted among them."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (RESAMPLES, len(values)))
    product = weights * values
    observed = product.sum()
    return float((1 + int((signs @ product >= observed - 1e-12 * np.abs(product).sum()).sum())) / (1 + RESAMPLES))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """The p values corrected for their number m, by Holm 1979 ("A simple sequentially rejective multiple test
    procedure"): of the i-th smallest, the largest of (m − j + 1) p₍ⱼ₎ over j ≤ i, at most 1."""
    found: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p, key=lambda each: p[each])):
        largest = max(largest, min(1.0, (len(p) - place) * p[name]))
        found[name] = largest
    return {name: found[name] for name in p}


def shown(value: float, low: float, high: float, *, digits: int = 2) -> str:
    """`0.51 [0.40, 0.62]`."""
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def mean_shown(values: Values, classes: Sequence[Any] | None = None, digits: int = 2) -> str:
    """A mean with its interval, as text."""
    value, around = mean_interval(values, classes)
    return shown(value, around.low, around.high, digits=digits)
