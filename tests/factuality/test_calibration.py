"""Calibrations: what they say is what happens, on entities never seen; files that hold for one model only."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from factuality.labels import labels
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality.calibration import Asking, Labelled, fit, held_rows, identity, load, read
from glassformer.factuality.detection import auroc, brier_skill, ece
from glassformer.factuality.quality import draw, quality
from glassformer.factuality.questions import Question
from glassformer.tasks.running import at_precision

ASKING = Asking("few-shot", 1, 0, 8, (Question("s", "Who?", ("Ann",), entity="E", relation="r"),))


@pytest.fixture(scope="module")
def many():
    return labels(3000)


def fitted(given, **settings):
    return fit(given, "tiny", "abc", ASKING, **settings)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_risks_of_new_answers_are_what_happens(many, method):
    found = fitted(many, method=method)
    fresh = labels(4000, seed=9)
    risk, wrong = found.probabilities(fresh), np.array(fresh.wrong, dtype=float)
    assert ece(risk, wrong) < 0.04 and brier_skill(risk, wrong) > 0.3
    assert auroc(risk, wrong) == pytest.approx(auroc(found.all_combined(fresh), wrong), abs=0.01)


def test_relations_help_where_they_are_known_and_may_be_left_out(many):
    fresh = labels(4000, seed=9)
    wrong = np.array(fresh.wrong, dtype=float)
    with_them, without = fitted(many, features="relation"), fitted(many, features="scores")
    assert auroc(with_them.probabilities(fresh), wrong) > auroc(without.probabilities(fresh), wrong) + 0.03
    assert not without.combination.offsets and ece(without.probabilities(fresh), wrong) < 0.04


def test_what_is_answered_counts_where_it_was_answered_often():
    """Scores that tell nothing, and two answers of which one is mostly right: other entities' labels tell that."""
    given = labels(1200)
    texts = ["Rome." if number % 2 else "paris" for number in range(1200)]
    wrong = [(number % 10 < 9) == (number % 2 == 1) for number in range(1200)]
    given = replace(given, scores={"noise": given.scores["noise"]}, wrong=wrong, texts=texts)
    found = fitted(given)
    assert found.combination is not None and "hard → rome" in found.combination.offsets
    for text, risk in (("rome", 0.8), ("Rome!", 0.8), ("the Paris", 0.0)):
        assert found.probability({"noise": 0.0}, "hard", text) == pytest.approx(risk, abs=0.1)
    low, middle, high = (found.probability({"noise": 0.0}, "hard", text) for text in ("paris", "never said", "rome"))
    assert low < middle < high
    assert fitted(given, features="relation").threshold(0.2) is None
    assert found.threshold(0.2) is not None


def test_one_score_needs_no_combination(many):
    found = fitted(Labelled(many.questions, {"first": many.scores["first"]}, many.wrong), features="scores")
    assert found.combination is None
    assert found.combined(0.3) == 0.3 == found.combined({"first": 0.3, "other": 9.0})
    assert found.probability(-3) < 0.3 < 0.7 < found.probability(3)
    with pytest.raises(InputError, match="Did you mean 'firs'"):
        found.probability({"firs": 1.0})


def test_several_scores_are_given_by_name(many):
    found = fitted(many)
    row = {name: column[0] for name, column in many.scores.items()}
    expected = found.probabilities(many.take([0]))[0]
    assert found.probability(row, many.questions[0].relation) == pytest.approx(expected)
    with pytest.raises(InputError, match="by name"):
        found.probability(0.5)
    with pytest.raises(InputError, match="'noise' is missing"):
        found.probability({"first": 1.0, "second": 1.0})


def test_the_halves_share_no_entity():
    given = labels(600, per_entity=3)
    found = fitted(given)
    held = given.take(held_rows(given, found.seed))
    rest = given.take(sorted(set(range(600)) - set(held_rows(given, found.seed))))
    assert not set(held.entities) & set(rest.entities)
    assert found.held.wrong == tuple(held.wrong) and found.held.scores == pytest.approx(found.all_combined(held))
    assert found.fitted.wrong == tuple(rest.wrong) and found.n == 600


def test_a_held_label_has_no_say_in_the_risk():
    given = labels(600)
    wrong = list(given.wrong)
    for row in held_rows(given, 0)[:250]:
        wrong[row] = not wrong[row]
    turned = replace(given, wrong=wrong)
    one, other = fitted(given), fitted(turned)
    assert one.curve == other.curve and one.combination == other.combination and one.fitted == other.fitted
    assert one.held != other.held


def test_thresholds_hold_on_new_answers(many):
    found = fitted(many)
    limit = found.threshold(0.2)
    assert limit is not None and limit.coverage > 0.2
    fresh = labels(4000, seed=9)
    kept = found.all_combined(fresh) <= limit.score
    assert np.array(fresh.wrong)[kept].mean() < 0.22 and kept.mean() == pytest.approx(limit.coverage, abs=0.05)
    assert found.threshold(0.001) is None
    stricter = found.threshold(0.2, 0.99)
    assert stricter is not None and stricter.coverage <= limit.coverage


# --- Too little, or not right -----------------------------------------------------------------------------------------


def test_too_few_labels_are_refused():
    with pytest.raises(InputError, match="at least 300 labelled answers, got 299"):
        fitted(labels(299))
    fitted(labels(300))


def test_labels_of_one_kind_are_refused(many):
    with pytest.raises(InputError, match="right and wrong"):
        fitted(replace(many, wrong=[True] * 3000))


def test_labels_that_do_not_fit_together(many):
    with pytest.raises(InputError, match="'first' must have a value a question, 3000, got 2"):
        Labelled(many.questions, {"first": [1.0, 2.0]}, many.wrong)
    with pytest.raises(InputError, match="at least one score"):
        Labelled(many.questions, {}, many.wrong)
    with pytest.raises(InputError, match="'first' must be a finite number"):
        fitted(Labelled(many.questions, {"first": [float("inf")] * 3000}, many.wrong))
    with pytest.raises(InputError, match="'isotonic' or 'platt'"):
        fitted(many, method="spline")


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_file_gives_the_same_calibration(tmp_path, method):
    model = writer()
    found = fit(labels(), "tiny", identity(model), ASKING, method=method)
    path = found.save(tmp_path / "new" / "risk.json")
    assert load(path, model, "tiny") == found == read(path)
    assert [each.name for each in path.parent.iterdir()] == ["risk.json"]


def test_one_score_in_a_file(tmp_path):
    given = labels()
    found = fitted(Labelled(given.questions, {"first": given.scores["first"]}, given.wrong), features="scores")
    assert read(found.save(tmp_path / "risk.json")) == found


def test_each_precision_is_a_model_of_its_own(tmp_path):
    """Also where weights of few bits are all that two models differ in."""
    model = writer()
    models = {bits: replace(model, network=at_precision(model.network, bits)) for bits in ("fp32", "int8", "int4")}
    models["bf16"] = replace(model, network=deepcopy(model.network).bfloat16())
    changed = deepcopy(model.network)
    with torch.no_grad():
        changed.stack.blocks[0].feed_forward.up.weight[0] *= -1
    models["another's int4"] = replace(model, network=at_precision(changed, "int4"))
    assert len({identity(each) for each in models.values()}) == 5
    assert identity(models["int4"]) == identity(replace(model, network=at_precision(model.network, "int4")))
    path = fit(labels(), "tiny", identity(models["int8"]), ASKING).save(tmp_path / "risk.json")
    for name, each in models.items():
        if name == "int8":
            assert load(path, each).n == len(labels())
            continue
        with pytest.raises(InputError, match="calibration of 'tiny'"):
            load(path, each, "tiny")


def test_another_models_calibration_is_refused_with_both_names(tmp_path):
    model = writer()
    path = fit(labels(), "my-model", identity(model), ASKING).save(tmp_path / "risk.json")
    other = writer(positions=32)
    assert identity(other) != identity(model)
    with pytest.raises(InputError, match="of 'my-model' .* not of 'yours'"):
        load(path, other, "yours")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: {"format": 1}, "no calibration"),
        (lambda content: {**content, "format": 2}, "no calibration"),
        (lambda content: {**content, "n": 3}, "checksum"),
        (lambda content: {k: v for k, v in content.items() if k not in ("checksum", "asking")}, "damaged"),
        (lambda content: _without(content, curve={**content["curve"], "ys": [3]}), "damaged"),
        (lambda content: _without(content, combination={"names": []}), "damaged"),
        (lambda content: _without(content, held=3), "damaged"),
        (lambda content: _without(content, features="all"), "damaged"),
    ],
)
def test_a_damaged_file(tmp_path, change, words):
    path = fitted(labels()).save(tmp_path / "risk.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=words):
        read(path)


def _without(content, **changes):
    return {**{key: value for key, value in content.items() if key != "checksum"}, **changes}


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read(tmp_path / "risk.json")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(InputError, match="JSON object"):
        read(tmp_path / "x.json")


# --- Quality ----------------------------------------------------------------------------------------------------------


def test_quality_is_of_held_out_answers_alone(many):
    found = fitted(many)
    measured = quality(found, many, resamples=50)
    held = many.take(held_rows(many, 0))
    wrong = np.array(held.wrong, dtype=float)
    assert measured.n == len(held) == 1500 and measured.entities == 1500
    assert measured.accuracy.value == pytest.approx(1 - wrong.mean())
    assert measured.auroc.value == pytest.approx(auroc(found.all_combined(held), wrong))
    assert measured.ece.value == pytest.approx(ece(found.probabilities(held), wrong))
    assert measured.brier_skill.value == pytest.approx(brier_skill(found.probabilities(held), wrong))
    assert measured.scores["noise"] == pytest.approx(auroc(held.scores["noise"], wrong))
    for name in ("accuracy", "auroc", "prr", "ece", "brier_skill"):
        interval = getattr(measured, name).interval
        assert interval.low < interval.high
    assert measured.limits[0.2] == found.threshold(0.2)
    told = json.loads(json.dumps(measured.to_json()))
    assert told["limits"]["0.2"]["n"] == measured.limits[0.2].n
    assert "AUROC" in measured.table() and "at most 20% wrong" in measured.table()


def test_what_is_out_of_reach_is_said():
    given = labels(300)
    measured = quality(
        fitted(Labelled(given.questions, {"noise": given.scores["noise"]}, given.wrong)), given, resamples=5
    )
    assert measured.limits[0.05] is None and "unreachable" in measured.table()
    assert measured.to_json()["limits"]["0.05"] is None


def test_pictures(tmp_path, many):
    paths = draw(fitted(many), many, tmp_path / "new", "risk")
    assert [path.name for path in paths] == ["risk-reliability.png", "risk-coverage.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
