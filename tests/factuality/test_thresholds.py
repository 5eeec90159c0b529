"""When to abstain: exact binomial bounds, and by simulation that the error rate is kept as often as it is said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from glassformer.errors import InputError
from glassformer.factuality.thresholds import binomial_below, find_limit, upper_bound


@given(st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_the_binomial_sum(n, data):
    k, p = data.draw(st.integers(0, n)), data.draw(st.floats(0.01, 0.99))
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
    assert binomial_below(k, n, p) == pytest.approx(exact, rel=1e-9)


def test_the_binomial_sum_at_its_ends():
    assert binomial_below(3, 3, 0.2) == 1 == binomial_below(0, 3, 0)
    assert binomial_below(-1, 3, 0.2) == 0 == binomial_below(2, 3, 1)
    assert binomial_below(500, 5000, 0.1) == pytest.approx(0.5, abs=0.02)


def test_the_upper_bound():
    assert upper_bound(0, 29, 0.95) == pytest.approx(1 - 0.05 ** (1 / 29))  # closed form without errors
    assert upper_bound(0, 28) > 0.1 > upper_bound(0, 29)
    for wrong, n, confidence in ((3, 50, 0.95), (20, 200, 0.9), (1, 2, 0.99)):
        assert upper_bound(wrong, n, confidence) == pytest.approx(beta.ppf(confidence, wrong + 1, n - wrong), abs=1e-8)
    assert upper_bound(5, 5) == 1 == upper_bound(0, 0)


def world(n, seed, wrong_at):
    """Scores that are uniform, and answers that are wrong with the probability `wrong_at(score)`."""
    random = np.random.default_rng(seed)
    scores = random.random(n)
    return scores, random.random(n) < wrong_at(scores)


def broken(wrong_at, true_error, max_error, confidence, n=250, draws=120):
    """How often the threshold that is found has a true error above what it promises, and how often there is one."""
    bad = found = 0
    for seed in range(draws):
        limit = find_limit(world(n, seed, wrong_at), world(n, seed + 10_000, wrong_at), max_error, confidence)
        found += limit is not None
        bad += limit is not None and true_error(limit.score) > max_error
    return bad / draws, found / draws


# the true error of answering where the score is below t is the mean of `wrong_at` from 0 to t
WORLDS = [
    (lambda u: 0.201 + 0 * u, lambda t: 0.201, 0.2),  # just out of reach everywhere: any threshold is a failure
    (lambda u: u, lambda t: t / 2, 0.2),  # kept up to a coverage of 0.4
    (lambda u: 0.4 - 0.3 * u, lambda t: 0.4 - 0.15 * t, 0.2),  # the wrong way round: never kept
    (lambda u: np.where(u < 0.3, 0.05, 0.6), lambda t: (0.05 * min(t, 0.3) + 0.6 * max(t - 0.3, 0)) / t, 0.1),
]


@pytest.mark.parametrize("confidence", [0.95, 0.7])
@pytest.mark.parametrize(("wrong_at", "true_error", "max_error"), WORLDS)
def test_the_error_is_kept_as_often_as_it_is_said(wrong_at, true_error, max_error, confidence):
    allowed = 1 - confidence
    bad, _ = broken(wrong_at, true_error, max_error, confidence)
    assert bad <= allowed + 3 * math.sqrt(allowed * confidence / 120)


def test_it_finds_what_can_be_found():
    """Of the coverage of 0.4 that the second world allows, most, nearly always."""
    wrong_at, true_error, max_error = WORLDS[1]
    assert broken(wrong_at, true_error, max_error, 0.9, n=1000, draws=40)[1] >= 0.95
    limit = find_limit(world(4000, 0, wrong_at), world(4000, 1, wrong_at), max_error, 0.95)
    assert limit is not None and 0.3 < limit.score < 0.4
    assert limit.error <= limit.bound <= max_error
    scores, wrong = world(4000, 1, wrong_at)
    kept = scores <= limit.score
    assert limit.n == kept.sum() and limit.coverage == kept.mean() and limit.error == wrong[kept].mean()
    assert limit.bound == pytest.approx(upper_bound(int(wrong[kept].sum()), limit.n, 0.95))


def test_a_naive_threshold_would_break_its_promise():
    """The simulation can fail: the largest coverage whose own error is small enough is wrong far too often."""
    wrong_at, true_error, max_error = WORLDS[0]
    bad = 0
    for seed in range(60):
        scores, wrong = world(250, seed, wrong_at)
        order = np.argsort(scores)
        risk = np.cumsum(wrong[order]) / np.arange(1, 251)
        bad += bool((risk[20:] <= max_error).any())
    assert bad / 60 > 0.5


def test_out_of_reach_is_none():
    assert find_limit(([0.1] * 50, [True] * 50), ([0.1] * 50, [True] * 50), 0.1) is None
    assert find_limit(([0.1] * 9, [False] * 9), ([0.1] * 9, [False] * 9), 0.1) is None  # too few to be sure
    assert find_limit(([1.0] * 40, [False] * 40), ([2.0] * 40, [False] * 40), 0.1) is None  # nothing is kept
    limit = find_limit(([0.1] * 40, [False] * 40), ([0.1] * 40, [False] * 40), 0.1)
    assert limit is not None and limit.coverage == 1 and limit.error == 0


@pytest.mark.parametrize("share", [0, 1, -0.1, 10])
def test_bad_shares(share):
    with pytest.raises(InputError, match="max_error"):
        find_limit(([0.1], [True]), ([0.1], [True]), share)
    with pytest.raises(InputError, match="confidence"):
        find_limit(([0.1], [True]), ([0.1], [True]), 0.1, share)
    with pytest.raises(InputError, match="its label"):
        find_limit(([0.1], []), ([0.1], [True]), 0.1)
    with pytest.raises(InputError, match="successes"):
        upper_bound(3, 2)
