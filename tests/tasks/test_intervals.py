"""An interval of 95 % holds the true value in about 95 of 100 samples, and one of 50 % in about half."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.tasks import intervals
from glassformer.tasks.intervals import Interval, bootstrap, wilson


def test_of_every_resample_by_hand() -> None:
    # Two values have three means: 0, 1/2, 1 with odds 1 : 2 : 1; a tail of 20 % is 0, one of 30 % is 1/2.
    assert bootstrap([0, 1], confidence=0.6) == Interval(0, 1)
    assert bootstrap([0, 1], confidence=0.4) == Interval(0.5, 0.5)


def test_equal_arguments_give_equal_intervals() -> None:
    values = list(np.random.default_rng(3).normal(size=50))
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)
    assert bootstrap(values, confidence=0.5).low > bootstrap(values, confidence=0.95).low


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_agrees_with_scipy(statistic: object) -> None:
    values = np.random.default_rng(5).exponential(size=200)
    theirs = scipy.stats.bootstrap(
        (values,), statistic, method="percentile", n_resamples=20_000, rng=np.random.default_rng(6)
    ).confidence_interval
    ours = bootstrap(list(values), statistic, resamples=20_000)  # type: ignore[arg-type]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_few_at_once_or_many(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(range(30))
    whole = bootstrap(values, resamples=500)
    monkeypatch.setattr(intervals, "_AT_ONCE", 7)  # fewer than the values: one resample at a time
    assert bootstrap(values, resamples=500) == whole


@pytest.mark.parametrize(("confidence", "least", "most"), [(0.95, 0.91, 0.97), (0.5, 0.44, 0.56)])
def test_coverage_of_the_bootstrap(confidence: float, least: float, most: float) -> None:
    random = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        found = bootstrap(random.exponential(size=60), confidence=confidence, resamples=400, seed=trial)  # type: ignore[arg-type]
        held += found.low <= 1 <= found.high
    assert least < held / 400 < most


@settings(deadline=None)  # scipy's first call is slow
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999))
def test_wilson_is_scipys(share: tuple[int, int], confidence: float) -> None:
    theirs = scipy.stats.binomtest(*share).proportion_ci(confidence, method="wilson")
    ours = wilson(*share, confidence=confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours.low <= share[0] / share[1] <= ours.high <= 1


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_coverage_of_wilson(confidence: float) -> None:
    """Exact: the probability of the counts whose interval holds p, on average over p (finely, or p and count beat)."""
    n = 40
    found = [wilson(successes, n, confidence) for successes in range(n + 1)]
    covered = [
        sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if found[k].low <= p <= found[k].high)
        for p in np.linspace(0.02, 0.98, 500)
    ]
    assert np.mean(covered) == pytest.approx(confidence, abs=0.015)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="one or more values"):
        bootstrap([])
    with pytest.raises(InputError, match="finite values, got nan"):
        bootstrap([1.0, math.nan])
    with pytest.raises(InputError, match="resamples must be at least 1, got 0"):
        bootstrap([1.0], resamples=0)
    for successes, n in [(0, 0), (3, 2), (-1, 2)]:
        with pytest.raises(InputError, match=f"got {successes} of {n}"):
            wilson(successes, n)
    for confidence in (0.0, 1.0, 95.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            wilson(1, 2, confidence)
        with pytest.raises(InputError, match="between 0 and 1"):
            bootstrap([1.0], confidence=confidence)
