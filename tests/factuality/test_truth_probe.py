"""The truth probe: its optimum, that held-out scores have not seen their entity, and its files."""

import json
from pathlib import Path

import numpy
import pytest
import torch
from factuality.small_records import made
from torch import Tensor

from glassformer.errors import InputError
from glassformer.factuality.records import Record
from glassformer.factuality.truth_probe import TruthProbe, features, fit, fit_logistic, folds_of


def data(n: int = 160, width: int = 6, seed: int = 0) -> tuple[list[Record], list[bool], list[int]]:
    """Answers that are wrong where the last state's first number is high, but for noise; the first state is noise."""
    random = torch.Generator().manual_seed(seed)
    states = torch.randn(n, 2, width, generator=random) * 3 + 5
    wrong = states[:, 1, 0] - 5 + torch.randn(n, generator=random) > 0
    return [made(states=each) for each in states], (~wrong).tolist(), [place // 2 for place in range(n)]


def pairs_in_order(scores: list[float], right: list[bool]) -> float:
    """The share of pairs of a wrong and a right answer in which the wrong one has the higher score."""
    pairs = [(a, b) for a, one in zip(scores, right, strict=True) if not one
             for b, other in zip(scores, right, strict=True) if other]  # fmt: skip
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def test_it_finds_what_is_there_and_the_question_does_not_know() -> None:
    records, right, entities = data()
    probe = fit(records, right, entities)
    assert pairs_in_order(list(probe.held_out), right) > 0.9
    fresh, truth, _ = data(seed=1)
    assert pairs_in_order(probe.predict(fresh), truth) > 0.9
    assert (probe.n, probe.n_entities, probe.n_wrong) == (160, 80, right.count(False))
    question = fit(records, right, entities, part="question")
    assert 0.35 < pairs_in_order(list(question.held_out), right) < 0.65
    assert (
        question.score.paper == ""
        and probe.score.paper
        and probe.score.function(records[3]) == pytest.approx(probe.predict(records)[3])
    )


@pytest.mark.slow
def test_held_out_scores_of_chance_are_chance() -> None:
    """With more numbers than rows every probe fits what it has seen; entities that repeat would be recognised."""
    random = torch.Generator().manual_seed(3)
    base = torch.randn(30, 2, 40, generator=random)
    states = base.repeat_interleave(4, 0) + 0.01 * torch.randn(120, 2, 40, generator=random)
    right = (torch.rand(30, generator=random) > 0.5).repeat_interleave(4).tolist()
    records, entities = [made(states=each) for each in states], [place // 4 for place in range(120)]
    probe = fit(records, right, entities)
    assert pairs_in_order(list(probe.held_out), right) < 0.7
    leaky = fit(records, right, list(range(120)))
    assert pairs_in_order(list(leaky.held_out), right) > 0.95


def test_the_optimum_is_that_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(90, 5, generator=random, dtype=torch.float64)
    truth = (rows[:, 0] + torch.randn(90, generator=random) > 0.3).double()
    strengths = [1.0, 0.1, 0.001]
    for strength, (weight, bias) in zip(strengths, fit_logistic(rows, truth, strengths), strict=True):
        other = linear.LogisticRegression(C=1 / (90 * strength), tol=1e-10, max_iter=1000).fit(
            rows.numpy(), truth.numpy()
        )
        numpy.testing.assert_allclose(weight.numpy(), other.coef_[0], atol=1e-4)
        assert float(bias) == pytest.approx(other.intercept_[0], abs=1e-4)


def test_scale_and_place_of_states_do_not_matter() -> None:
    records, right, entities = data()
    stretch = torch.tensor([1.0, 10, 0.1, 5, 1, 1])
    moved = [made(states=one.states * stretch + 100) for one in records if one.states is not None]
    one, other = fit(records, right, entities), fit(moved, right, entities)
    assert one.predict(records) == pytest.approx(other.predict(moved), abs=1e-3)


def test_folds_keep_entities_together_and_are_even() -> None:
    entities = [f"person {place * 7 % 31}" for place in range(200)]
    folds = folds_of(entities, 5, seed=0)
    for entity in set(entities):
        assert len({int(folds[place]) for place in range(200) if entities[place] == entity}) == 1
    counts = folds.bincount()
    assert len(counts) == 5 and int(counts.max() - counts.min()) <= 7
    assert torch.equal(folds, folds_of(entities, 5, seed=0)) and not torch.equal(folds, folds_of(entities, 5, seed=1))


def test_parts() -> None:
    states = torch.arange(6.0).view(3, 2)
    one = [made(states=states)]
    assert features(one, "question").tolist() == [[0, 1]] and features(one, "answer").tolist() == [[4, 5]]
    assert features(one, "both").tolist() == [[0, 1, 4, 5]]
    with pytest.raises(InputError, match="question"):
        features(one, "questions")  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    records, right, entities = data(60)
    probe = fit(records, right, entities, folds=3, part="both", model="tiny", site="last")
    about = probe.save(tmp_path / "probe")
    assert about == tmp_path / "probe.json" and (tmp_path / "probe.safetensors").exists()
    loaded = TruthProbe.load(about)
    assert loaded.predict(records) == probe.predict(records) and loaded.held_out == probe.held_out
    assert (loaded.part, loaded.model, loaded.site, loaded.n) == ("both", "tiny", "last", 60)
    loaded.check("tiny", "last")
    with pytest.raises(InputError, match="model 'tiny', not of 'large'"):
        loaded.check("large", "last")
    content = json.loads(about.read_text())
    for broken in ({"format": 2}, {**content, "part": "x"}, {**content, "n": 3}, {**content, "odd": 1}, {"format": 1}):
        about.write_text(json.dumps(broken))
        with pytest.raises(InputError, match="truth probe"):
            TruthProbe.load(about)
    with pytest.raises(InputError):
        TruthProbe.load(tmp_path / "nothing")


def without(states: Tensor | None) -> list[Record]:
    return [made(states=states)] * 20


def test_what_cannot_be() -> None:
    records, right, entities = data(20)
    with pytest.raises(InputError, match="keep='ends'"):
        fit(without(None), right, entities)
    with pytest.raises(InputError, match="NaN"):
        fit(without(torch.full((2, 3), torch.nan)), right, entities)
    with pytest.raises(InputError, match="label and its entity"):
        fit(records, right[:3], entities)
    with pytest.raises(InputError, match="only 0 are wrong"):
        fit(records, [True] * 20, entities)
    with pytest.raises(InputError, match="an entity for each: got 5 and 1"):
        fit(records, right, [0] * 20)
    with pytest.raises(InputError, match="3 folds or more"):
        fit(records, right, entities, folds=2)
    with pytest.raises(InputError, match="there are none"):
        fit([], [], [])
    with pytest.raises(InputError, match="reads 6 numbers a record, these have 3"):
        fit(records * 3, right * 3, list(range(60))).predict([made(states=torch.zeros(2, 3))])
