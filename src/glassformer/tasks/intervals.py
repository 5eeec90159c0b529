"""Confidence intervals: how far a score may be from what an endless test set of the same kind would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError

# So many numbers are drawn at once (32 MB), whatever the number of values.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, in the units of the score."""

    low: float
    high: float


def bootstrap(
    values: Sequence[float],
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap interval (Efron 1979) of a statistic of independent values, one an example.

    Of every resample, n values drawn from the n given with replacement, the statistic is taken; the interval leaves out
    (1 − confidence) / 2 of these statistics on either side. Equal arguments give equal intervals.

    `statistic` is called as `statistic(samples, axis=-1)` with samples [R, n] and gives [R], as numpy's do. The
    interval is too narrow for few values (under about 30), and has no width where all are equal: for shares take
    `wilson`. An `InputError` if there are no values, or values that are not finite, or a confidence that is not between
    0 and 1.
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}.")
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise InputError(f"a bootstrap needs a list of one or more values, got the shape {sample.shape}.")
    if not np.isfinite(sample).all():
        raise InputError(f"a bootstrap needs finite values, got {sample[~np.isfinite(sample)][0]}.")
    random = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // sample.size)
    found: list[NDArray[np.float64]] = []
    for done in range(0, resamples, rows):
        drawn = random.integers(0, sample.size, (min(rows, resamples - done), sample.size))
        found.append(np.asarray(statistic(sample[drawn], axis=-1), dtype=np.float64))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval of Wilson 1927 for a share, `successes` of `n`; from 0 to 1, and of use for small n and shares of 0.

    With p = successes / n and z the normal quantile of (1 + confidence) / 2:
    (p + z²/2n ± z √(p (1 − p) / n + z²/4n²)) / (1 + z²/n). An `InputError` unless 0 ≤ successes ≤ n and n ≥ 1.
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"a share needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends that are 0 and 1 by algebra are so in spite of rounding.
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == n else (middle + half) / scale
    return Interval(low, high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"a confidence must be between 0 and 1, such as 0.95, got {confidence}.")
