"""How good a score is: against scikit-learn, brute force over pairs and orders, and closed forms."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from glassformer.errors import InputError
from glassformer.factuality.detection import (
    auroc,
    brier,
    brier_skill,
    ece,
    prr,
    reliability,
    risk_coverage,
    with_interval,
)
from glassformer.tasks.intervals import bootstrap

CASES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=30).filter(
    lambda rows: len({wrong for _, wrong in rows}) == 2
)


def columns(rows):
    return [float(score) for score, _ in rows], [wrong for _, wrong in rows]


def drawn(n=200, seed=0):
    random = np.random.default_rng(seed)
    risk = random.random(n)
    return risk, (random.random(n) < risk).astype(float)


# --- Orders -----------------------------------------------------------------------------------------------------------


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_auroc_is_the_share_of_pairs_in_order(rows):
    scores, wrong = columns(rows)
    pairs = [(a, b) for a, bad in rows if bad for b, other in rows if not other]
    expected = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)
    assert auroc(scores, wrong) == pytest.approx(expected)
    assert auroc(scores, wrong) == pytest.approx(roc_auc_score(wrong, scores))
    assert auroc([-s for s in scores], wrong) == pytest.approx(1 - expected)


def by_the_book(scores, wrong, max_rejection):
    """lm-polygraph 0.7, PredictionRejectionArea with quality 1 − wrong, for scores that are all different."""
    quality = 1 - np.array(wrong, dtype=float)
    n = len(scores)
    rejected = int(max_rejection * n)

    def area(order):
        return np.sum((np.cumsum(quality[order])[-rejected:] / np.arange(n - rejected + 1, n + 1))[::-1]) / rejected

    chance = quality.mean()  # the mean of `area` over all orders
    return (area(np.argsort(scores)) - chance) / (area(np.argsort(-quality, kind="stable")) - chance)


@pytest.mark.parametrize("max_rejection", [1.0, 0.5, 0.3])
def test_prr_as_lm_polygraph_has_it(max_rejection):
    scores, wrong = drawn(57)
    assert prr(scores, wrong, max_rejection) == pytest.approx(by_the_book(scores, wrong, max_rejection))


def test_prr_of_the_best_and_of_no_order():
    wrong = np.array([0, 1, 0, 1, 1, 0, 0])
    assert prr(wrong, wrong) == pytest.approx(1) and prr(wrong + 5.0, wrong, 0.5) == pytest.approx(1)
    assert prr(np.zeros(7), wrong) == pytest.approx(0)
    assert prr(-wrong, wrong) < 0


@pytest.mark.parametrize("max_rejection", [1.0, 0.6])
def test_chance_in_prr_is_the_mean_over_all_orders_and_so_is_a_tie(max_rejection):
    wrong = np.array([1.0, 0, 0, 1, 0])
    every = [prr(np.array(order, dtype=float), wrong, max_rejection) for order in permutations(range(5))]
    assert np.mean(every) == pytest.approx(0)
    tied = np.array([0.0, 1, 1, 1, 2])
    broken = [tied + np.array([0, *order, 0]) / 100 for order in permutations(range(3))]
    assert prr(tied, wrong, max_rejection) == pytest.approx(np.mean([prr(one, wrong, max_rejection) for one in broken]))


@given(CASES)
@settings(max_examples=40, deadline=None)
def test_what_stays_wrong_by_coverage(rows):
    scores, wrong = columns(rows)
    scores = [score + place / 1000 for place, score in enumerate(scores)]  # all different
    found = risk_coverage(scores, wrong)
    order = sorted(range(len(scores)), key=lambda row: scores[row])
    for k in range(1, len(scores) + 1):
        assert found.coverage[k - 1] == pytest.approx(k / len(scores))
        assert found.risk[k - 1] == pytest.approx(sum(wrong[row] for row in order[:k]) / k)
    assert found.area == pytest.approx(np.mean(found.risk))


def test_equal_scores_share_what_is_wrong():
    found = risk_coverage([1, 1, 1, 0], [1, 0, 0, 0])
    assert found.risk == pytest.approx([0, 1 / 6, 2 / 9, 1 / 4])


# --- Probabilities ----------------------------------------------------------------------------------------------------


def test_ece_by_hand():
    probabilities = [0.1, 0.2, 0.3, 0.4, 0.8, 0.9]
    happened = [0, 0, 1, 0, 1, 1]
    assert ece(probabilities, happened, 3) == pytest.approx((abs(0.15 - 0) + abs(0.35 - 0.5) + abs(0.85 - 1)) / 3)
    assert ece(probabilities, happened, 1) == pytest.approx(abs(2.7 / 6 - 0.5))
    assert [each.n for each in reliability(range_of(7), [0, 1] * 3 + [0], 3)] == [3, 2, 2]


def range_of(n):
    return (np.arange(n) + 0.5) / n


def test_ece_against_brute_force():
    risk, wrong = drawn(103, 3)
    order = np.argsort(risk)
    bins = np.array_split(order, 10)
    expected = sum(len(rows) * abs(risk[rows].mean() - wrong[rows].mean()) for rows in bins) / 103
    assert ece(risk, wrong) == pytest.approx(expected)
    assert ece(1 - risk, 1 - wrong, 1) == pytest.approx(ece(risk, wrong, 1))


def test_a_perfect_probability_has_no_more_than_the_noise_of_its_bins():
    found = [ece(*drawn(2000, seed)) for seed in range(20)]
    noise = 0.8 * np.sqrt(1 / 6 * 10 / 2000)  # the mean of p (1 - p) is 1/6
    assert np.mean(found) == pytest.approx(noise, rel=0.25)


def test_equal_probabilities_fall_into_bins_in_no_order():
    wrong = np.array([1.0] * 5 + [0.0] * 5)
    assert ece([0.5] * 10, wrong) == pytest.approx(0) == ece([0.5] * 10, wrong[::-1], 3)


def test_more_bins_than_answers_are_one_each():
    assert ece([0.25, 0.75], [0, 1], 10) == pytest.approx(0.25)


def test_brier():
    risk, wrong = drawn()
    assert brier(risk, wrong) == pytest.approx(brier_score_loss(wrong, risk))
    assert brier([0.3] * 4, [0, 0, 0, 1]) == pytest.approx((3 * 0.09 + 0.49) / 4)


def test_brier_skill():
    risk, wrong = drawn()
    base = wrong.mean()
    assert brier_skill(wrong, wrong) == 1
    assert brier_skill(np.full(200, base), wrong) == pytest.approx(0)
    assert brier_skill(risk, wrong) == pytest.approx(1 - brier_score_loss(wrong, risk) / (base * (1 - base)))
    assert brier_skill(risk, wrong, 0.9) > brier_skill(risk, wrong)  # a worse constant is easier to beat
    assert brier_skill(1 - risk, wrong) < 0


# --- Intervals --------------------------------------------------------------------------------------------------------


def mean(values, happened):
    return float(np.mean(happened))


def test_without_entities_it_is_the_bootstrap_of_answers():
    risk, wrong = drawn(50)
    found = with_interval(mean, risk, wrong, resamples=300, seed=4)
    assert found.value == pytest.approx(wrong.mean())
    expected = bootstrap(wrong, resamples=300, seed=4)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("metric", [mean, auroc, brier_skill])
def test_saying_all_three_times_does_not_make_it_surer(metric):
    risk, wrong = drawn(60)
    once = with_interval(metric, risk, wrong, resamples=200)
    entities = [number % 60 for number in range(180)]
    thrice = with_interval(metric, np.tile(risk, 3), np.tile(wrong, 3), entities, resamples=200)
    assert thrice.interval.low == pytest.approx(once.interval.low)
    assert thrice.interval.high == pytest.approx(once.interval.high)
    alone = with_interval(metric, np.tile(risk, 3), np.tile(wrong, 3), resamples=200)
    assert alone.interval.high - alone.interval.low < 0.8 * (once.interval.high - once.interval.low)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    # AUROC of a probability u, uniform, for an event of that probability: 5/6
    held = 0
    for seed in range(60):
        interval = with_interval(auroc, *drawn(150, seed), confidence=0.8, resamples=100).interval
        held += interval.low <= 5 / 6 <= interval.high
    assert 36 <= held <= 58


def test_draws_of_one_kind_do_not_break_it():
    found = with_interval(auroc, [1.0, 2, 3, 4], [0, 0, 0, 1], resamples=50)
    assert found.value == 1 == found.interval.high


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [auroc, prr, brier_skill])
@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_kind_have_no_such_figure(metric, label):
    with pytest.raises(InputError, match="right and wrong"):
        metric([0.1, 0.2], [label] * 2)


@pytest.mark.parametrize(
    ("values", "happened", "words"),
    [
        ([0.1], [0, 1], "its label"),
        ([], [], "its label"),
        ([np.nan, 0.1], [0, 1], "finite"),
        ([0.1, 0.2], [0, 0.5], "true or false"),
        ([0.1, 1.2], [0, 1], "from 0 to 1, got 1.2"),
    ],
)
def test_bad_values(values, happened, words):
    with pytest.raises(InputError, match=words):
        ece(values, happened)


def test_other_bad_input():
    with pytest.raises(InputError, match="max_rejection"):
        prr([0.1, 0.2], [0, 1], 0)
    with pytest.raises(InputError, match="bins"):
        ece([0.1, 0.2], [0, 1], 0)
    with pytest.raises(InputError, match="its entity"):
        with_interval(auroc, [0.1, 0.2], [0, 1], ["a"])
