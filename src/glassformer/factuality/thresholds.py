"""At which uncertainty to abstain, so that at most a given share of the answers that remain is wrong.

Angelopoulos et al. 2021, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control": every candidate
threshold t is a hypothesis "of the answers with a score of at most t, more than `max_error` are wrong", tested by the
exact binomial p-value of labels that were not used for anything else. The candidates are tested in a sequence that was
fixed before (its section 4 calls it fixed sequence testing, here ordered by another part of the data): the first that
is not rejected ends it, and no further correction for many tests is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glassformer.errors import InputError

CANDIDATES = 100
"""Candidates are the hundredths of the fitting part's scores: coverages of 1 %, 2 %, … there."""


@dataclass(frozen=True)
class Limit:
    """Answer where the score is at most `score`, abstain above.

    On the labels that tested it: `coverage` is the share of questions that are answered, `n` how many that were,
    `error` the share of wrong answers among them, and `bound` its upper confidence bound (Clopper & Pearson 1934).
    """

    score: float
    coverage: float
    error: float
    bound: float
    n: int


def binomial_below(successes: int, n: int, p: float) -> float:
    """P(X ≤ successes) for X binomial with n draws of probability p, from 0 to 1: the sum of its terms."""
    if successes >= n or p <= 0:
        return 1.0
    if successes < 0 or p >= 1:
        return 0.0
    k = np.arange(successes + 1)
    logs = _log_factorials(1 << n.bit_length())
    terms = logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p)
    return min(1.0, math.fsum(np.exp(terms)))


@lru_cache(maxsize=32)
def _log_factorials(count: int) -> NDArray[np.float64]:
    """log 0!, log 1!, … log count!"""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


def upper_bound(successes: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided upper confidence bound of a share of which `successes` of n were drawn: Clopper & Pearson 1934.

    The p with P(X ≤ successes) = 1 − confidence, to 1e-9; 1 where n is 0. It holds the true share in at least
    `confidence` of draws, whatever that is.
    """
    _check_share("confidence", confidence)
    if n < 0 or not 0 <= successes <= n:
        raise InputError(f"a share needs 0 ≤ successes ≤ n, got {successes} of {n}.")
    if successes == n:
        return 1.0
    low, high = successes / n, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_below(successes, n, middle) > 1 - confidence else (low, middle)
    return high


def find_limit(
    fitted: tuple[Sequence[float], Sequence[bool]],
    held: tuple[Sequence[float], Sequence[bool]],
    max_error: float,
    confidence: float = 0.95,
) -> Limit | None:
    """The threshold of the largest coverage in the sequence whose error is at most `max_error` with `confidence`; None
    where the first one fails already: such an error rate is out of reach with these scores and so many labels.

    `fitted` and `held` are scores with whether the answer was wrong, of questions that share no entity. The first part
    fixes the sequence: the candidates are its hundredths, beginning at the one that is the most significant there (its
    binomial p-value is the least), and going on to ever larger coverages. The second part tests, each candidate at the
    level 1 − confidence: P(X ≤ wrong ones | n kept, `max_error`). So with `confidence` over draws of the second part,
    the true error of the threshold that is given, over questions of the same kind, is at most `max_error`. This takes
    questions as independent draws: where many questions hang on few entities, the real confidence is less.
    """
    _check_share("max_error", max_error)
    _check_share("confidence", confidence)
    fitted_scores, fitted_wrong = _arrays(*fitted)
    scores, wrong = _arrays(*held)
    best: tuple[float, int, int] | None = None
    for candidate in _sequence(fitted_scores, fitted_wrong, max_error):
        kept = scores <= candidate
        n, errors = int(kept.sum()), int(wrong[kept].sum())
        if not n or binomial_below(errors, n, max_error) > 1 - confidence:
            break
        best = float(candidate), n, errors
    if best is None:
        return None
    score, n, errors = best
    return Limit(score, n / len(scores), errors / n, upper_bound(errors, n, confidence), n)


def _sequence(scores: NDArray[np.float64], wrong: NDArray[np.bool_], max_error: float) -> NDArray[np.float64]:
    """The candidates in the order of testing; it depends on the fitting part only."""
    shares = np.arange(1, CANDIDATES + 1) / CANDIDATES
    candidates = np.unique(np.quantile(scores, shares, method="higher"))
    kept = [scores <= candidate for candidate in candidates]
    values = [binomial_below(int(wrong[each].sum()), int(each.sum()), max_error) for each in kept]
    return candidates[int(np.argmin(values)) :]


def _arrays(scores: Sequence[float], wrong: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if len(scores) != len(wrong) or not len(scores):
        raise InputError(f"every score needs its label, got {len(scores)} and {len(wrong)}.")
    return np.asarray(scores, dtype=np.float64), np.asarray(wrong, dtype=bool)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"'{name}' must be between 0 and 1, such as 0.1, got {value}.")
