"""Curves from scores to risks, and scores combined: against scikit-learn, closed forms and plain checks."""

import numpy as np
import pytest
from factuality.labels import labels
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from glassformer.errors import InputError
from glassformer.factuality.combining import FOLDS, combine, ridge_logistic, sigmoid
from glassformer.factuality.curves import curve_of, fit_curve, pool_adjacent_violators
from glassformer.factuality.detection import auroc

POINTS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40)


def arrays(rows):
    return np.array([score for score, _ in rows], dtype=float), np.array([wrong for _, wrong in rows], dtype=float)


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_blocks_are_those_of_isotonic_regression(rows):
    scores, wrong = arrays(rows)
    blocks = pool_adjacent_violators(scores, wrong)
    expected = IsotonicRegression().fit_transform(scores, wrong)
    assert sum(n for _, _, n in blocks) == len(rows)
    means = np.repeat([y for _, y, _ in blocks], [n for _, _, n in blocks])
    assert means == pytest.approx(np.sort(expected))
    middles = [x for x, _, _ in blocks]
    assert middles == sorted(set(middles)) and np.average(middles, weights=[n for *_, n in blocks]) == pytest.approx(
        scores.mean()
    )


@given(POINTS, st.sampled_from(["isotonic", "platt"]))
@settings(max_examples=60, deadline=None)
def test_a_curve_never_falls_and_is_never_certain(rows, method):
    curve = fit_curve(method, *arrays(rows))
    found = curve(np.linspace(-5, 15, 81))
    assert (np.diff(found) >= -1e-12).all()
    assert found.min() >= 1 / (len(rows) + 2) - 1e-12 and found.max() <= 1 - 1 / (len(rows) + 2) + 1e-12
    again = curve_of({**curve.to_json(), "xs": list(curve.xs), "ys": list(curve.ys)})
    assert again == curve


def test_isotonic_by_hand():
    curve = fit_curve("isotonic", np.array([1.0, 2, 3, 4, 5, 6, 7, 8]), np.array([0.0, 0, 0, 1, 0, 1, 1, 1]))
    assert curve.xs == (1, 2, 3, 4.5, 6, 7, 8) or curve.xs == (2, 4.5, 7)
    assert curve(4.5) == pytest.approx(0.5) and curve(0) == pytest.approx(0.1) and curve(99) == pytest.approx(0.9)


def test_platt_finds_the_logistic_curve_that_made_the_labels():
    random = np.random.default_rng(0)
    scores = random.normal(3, 2, 20_000)
    wrong = (random.random(20_000) < sigmoid(0.8 * scores - 2)).astype(float)
    curve = fit_curve("platt", scores, wrong)
    assert (curve.xs[0], curve.ys[0]) == pytest.approx((0.8, -2), abs=0.08)


def test_platt_of_perfectly_parted_labels_stays_finite():
    curve = fit_curve("platt", np.arange(20.0), (np.arange(20) >= 10).astype(float))
    assert 0 < curve.xs[0] < 100 and curve(0) == pytest.approx(1 / 22, abs=0.03) and curve(9.5) == pytest.approx(0.5)


def test_a_score_the_wrong_way_round_tells_nothing():
    scores, wrong = np.arange(10.0), np.array([1.0] * 5 + [0.0] * 5)
    for method in ("isotonic", "platt"):
        assert fit_curve(method, scores, wrong)(scores) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "other"},
        {"xs": [2, 1]},
        {"ys": [0.9, 0.1]},
        {"ys": [0.1, 1.2]},
        {"xs": [1], "ys": [1, 2]},
        {"xs": [], "ys": []},
        {"xs": [1, float("nan")]},
        {"least": 0.7},
        {"method": "platt"},
        {"method": "platt", "xs": [-1], "ys": [0]},
    ],
)
def test_a_damaged_curve(changes):
    with pytest.raises(ValueError):
        curve_of({"method": "isotonic", "xs": [1, 2], "ys": [0.1, 0.9], "least": 0.1, **changes})


def test_no_such_curve():
    with pytest.raises(InputError, match="isotonic"):
        fit_curve("spline", np.array([0.0, 1]), np.array([0.0, 1]))


# --- Several scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.5, 10.0])
def test_ridge_is_that_of_scikit_learn(penalty):
    random = np.random.default_rng(1)
    features = random.normal(size=(200, 4))
    happened = (random.random(200) < sigmoid(features @ [1, -2, 0, 0.5] + 0.3)).astype(float)
    weights, bias = ridge_logistic(features, happened, penalty)
    other = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(features, happened)
    assert weights == pytest.approx(other.coef_[0], abs=1e-5) and bias == pytest.approx(other.intercept_[0], abs=1e-5)


def combined(n=3000, seed=0):
    given = labels(n, seed)
    folds = np.arange(n) % FOLDS
    names = tuple(given.scores)
    wrong = np.array(given.wrong, dtype=float)
    return given, wrong, combine(names, given.matrix(names), given.tags("relation"), wrong, folds)


def test_a_combination_finds_what_made_the_labels():
    _, _, (found, _) = combined()
    raw = np.array(found.weights) / np.array(found.scales)
    assert raw == pytest.approx([1, 1, 0], abs=0.2)
    assert found.offsets["hard"] - found.offsets["easy"] == pytest.approx(3, abs=0.4)


def test_a_combination_is_better_than_each_of_its_scores_and_honest_out_of_fold():
    given, wrong, (found, out_of_fold) = combined(800)
    fresh = labels(4000, 1)
    truth = np.array(fresh.wrong, dtype=float)
    scores = found.of_all(fresh.matrix(found.names), fresh.tags("relation"))
    assert auroc(scores, truth) > max(auroc(column, truth) for column in fresh.scores.values()) + 0.05
    assert auroc(out_of_fold, wrong) == pytest.approx(auroc(scores, truth), abs=0.04)


def test_one_answer_is_as_one_of_many():
    given, _, (found, _) = combined(400)
    row = {name: column[3] for name, column in given.scores.items()}
    everything = found.of_all(given.matrix(found.names), given.tags("relation"))
    assert found(row, given.tags("relation")[3]) == pytest.approx(everything[3])
    assert found({**row, "more": 1.0}, ["never seen"]) == pytest.approx(found(row))
    with pytest.raises(InputError, match="Did you mean"):
        found({"firsts": 1.0, "second": 1.0, "noise": 0.0})


def test_out_of_fold_a_label_has_no_say_in_its_own_score():
    given, wrong, (_, scores) = combined(300)
    turned = wrong.copy()
    fold = np.arange(300) % FOLDS == 0
    turned[fold] = 1 - turned[fold]
    names = tuple(given.scores)
    other = combine(names, given.matrix(names), given.tags("relation"), turned, np.arange(300) % FOLDS)[1]
    # of the fold whose labels were turned, scores come from the others' labels alone, whatever penalty was chosen
    assert np.corrcoef(scores[fold], other[fold])[0, 1] > 0.95
    assert np.corrcoef(scores[~fold], other[~fold])[0, 1] < 0.999


def test_what_is_always_the_same_is_no_harm():
    given, wrong, _ = combined(300)
    matrix = np.hstack([given.matrix(("first",)), np.ones((300, 1))])
    found, scores = combine(("first", "constant"), matrix, [()] * 300, wrong, np.arange(300) % FOLDS)
    assert np.isfinite(scores).all() and found.weights[1] == pytest.approx(0) and not found.offsets
