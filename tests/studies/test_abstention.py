"""Calibration and abstention as parts of the study: on made answers whose risk is known, and asked of a tiny model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factuality.labels import labels
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality import calibration
from glassformer.factuality.calibration import Asking, Labelled
from glassformer.factuality.detection import ece
from glassformer.factuality.questions import Question, is_right
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.studies.hallucination import abstention, calibrating, splits
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.splits import Split, around, splits_of
from glassformer.studies.running import run_parts
from glassformer.studies.study import Setting
from glassformer.tasks.intervals import wilson


def known(n: int = 1200, seed: int = 0, overconfident: float = 0.0) -> Labelled:
    """The answer "a" is right nine times in ten, "b" once; p(answer) of either is logistic in a score."""
    random = np.random.default_rng(seed)
    texts = np.where(random.random(n) < 0.4, "a", "b")
    score = random.normal(size=n)
    risk = 1 / (1 + np.exp(-(2 * score + np.where(texts == "a", -3, 2))))
    wrong = random.random(n) < risk
    nll = np.logaddexp(0, 2 * score) * (1 - overconfident)
    questions = [
        Question(f"q{i}", "Who?", ("x",), entity=f"E{i // 2}", relation="even" if i % 2 else "odd") for i in range(n)
    ]
    scores = {"sequence probability": nll.tolist(), "perplexity": random.normal(size=n).tolist()}
    return Labelled(questions, scores, wrong.tolist(), texts.tolist())


@pytest.fixture(scope="module")
def given() -> Labelled:
    return known(overconfident=0.8)


@pytest.fixture(scope="module")
def calibrated(given: Labelled) -> dict:
    return json.loads(json.dumps(calibrating.measured(given)))


@pytest.fixture(scope="module")
def abstaining(given: Labelled) -> dict:
    return json.loads(json.dumps(abstention.measured(given) | {"zero": None}))


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> object:
    """Fewer resamples than a study takes."""
    patch = pytest.MonkeyPatch()
    patch.setattr(around, "__defaults__", (40,))
    patch.setattr(calibrating.perfect, "__defaults__", (20,))
    yield
    patch.undo()


# --- Splits -----------------------------------------------------------------------------------------------------------


def test_no_entity_is_in_both_parts_and_splits_differ(given: Labelled) -> None:
    found = splits_of(given, 0.57)
    for split in found:
        assert not set(split.fitting.entities) & set(split.test.entities)
        assert len(split.test) == pytest.approx(0.57 * len(given), abs=3)
        assert [given.questions[row].id for row in split.rows] == [one.id for one in split.test.questions]
    assert len({tuple(split.rows) for split in found}) == 5
    with pytest.raises(InputError, match="leave 150 to fit"):
        splits_of(given.take(range(300)), 0.5)


def test_an_interval_of_a_mean_is_that_of_its_entities() -> None:
    random, n = np.random.default_rng(1), 900
    values = random.normal(size=n)
    entities = np.arange(n) // 3  # three answers an entity, alike: the deviation is that of 300 values
    values = values[3 * entities]
    both = [Split(0, labels(3), labels(3), list(range(n)), entities) for _ in range(2)]
    value, low, high = around(lambda i, rows: float(values[rows].mean()), both, 2000)
    assert value == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 300**0.5, rel=0.1)
    assert (high + low) / 2 == pytest.approx(value, abs=0.02)


def test_a_split_without_a_figure_is_left_out() -> None:
    both = [Split(0, labels(3), labels(3), [0, 1], np.array([0, 1])) for _ in range(2)]
    assert around(lambda i, rows: 1.0 if i else float("nan"), both, 5) == [1.0, 1.0, 1.0]
    assert np.isnan(around(lambda i, rows: float("nan"), both, 5)).all()


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_what_helps_is_found(calibrated: dict) -> None:
    figures = calibrated["figures"]
    assert list(figures) == list(calibrating.WAYS)
    skill = {way: each["skill"][0] for way, each in figures.items()}
    assert abs(skill[calibrating.BASE]) < 0.01 < skill[calibrating.ONE] < skill[calibrating.ANSWER]
    assert skill[calibrating.RAW] < 0 < calibrated["against raw"][1]  # made overconfident
    assert calibrated["answer helps"][1] > 0 and calibrated["scores help"][1] > 0
    assert figures[calibrating.ANSWER]["ece"][0] < 0.06
    assert figures[calibrating.ANSWER]["auroc"] > figures[calibrating.BASE]["auroc"] == 0.5
    verdicts = [one.verdict for one in calibrating._claims(calibrated)]
    assert verdicts == [*["not testable here"] * 2, *["supported"] * 3]
    enough = {**calibrated, "test": [1500] * 5}
    assert calibrating._claims(enough)[0].verdict == "supported"
    own = figures[calibrating.ANSWER]
    worse = {**enough, "figures": {**figures, calibrating.ANSWER: {**own, "ece": [0.051, 0.04, 0.06]}}}
    assert calibrating._claims(worse)[0].verdict == "not supported"


def test_raw_risk_is_one_less_the_probability(given: Labelled) -> None:
    split = splits_of(given, 0.5)[0]
    raw = calibrating.risk_of(calibrating.RAW, split)
    assert raw == pytest.approx(1 - np.exp(-np.array(split.test.scores["sequence probability"])))
    assert set(calibrating.risk_of(calibrating.BASE, split)) == {np.mean(split.fitting.wrong)}
    assert len(set(calibrating.risk_of(calibrating.BLIND, split))) <= 4  # two relations, two answers


def test_an_exact_risk_has_the_error_of_its_bins() -> None:
    risks = np.linspace(0.499, 0.501, 1000)
    found = calibrating.perfect(risks, 300)
    assert found == pytest.approx(0.8 * (0.25 * 10 / 1000) ** 0.5, rel=0.1)  # E|x| of a normal x
    assert found > 10 * ece(risks, np.tile([0.0, 1.0], 500))


# --- Abstention -------------------------------------------------------------------------------------------------------


def test_the_error_is_kept_and_the_answer_pays(given: Labelled, abstaining: dict) -> None:
    assert min(abstaining["test"]) >= 0.56 * len(given)
    own = abstaining["kept"][abstention.RISK]
    coverage = [own[str(error)]["coverage"][0] for error in abstention.MAX_ERRORS]
    assert coverage == sorted(coverage) and coverage[1] > 0.12
    for error in abstention.MAX_ERRORS:
        kept = own[str(error)]
        assert kept["above"] == sum(each > error for each in kept["errors"] if each is not None)
        assert kept["coverage"][0] == pytest.approx(np.mean(kept["coverages"]))
        assert own["0.1"]["error"][0] <= 0.1
    assert abstaining["more"][1] > 0
    assert abstaining["more"][0] == pytest.approx(
        own["0.1"]["coverage"][0] - abstaining["kept"][abstention.PROBABILITY]["0.1"]["coverage"][0]
    )
    for curve in abstaining["curves"].values():
        assert len(curve) == 100 and curve[-1] == pytest.approx(abstaining["wrong"], abs=0.03)


def test_kept_is_counted_as_by_hand() -> None:
    given = labels(4)
    test = replace(given, wrong=[True, False, False, True])
    both = [Split(0, given, test, [0, 1, 2, 3], np.arange(4)) for _ in range(2)]
    answers = [np.array([True, True, False, False]), np.zeros(4, bool)]
    kept = abstention._kept(answers, both, 0.4)
    assert kept["coverages"] == [0.5, 0.0] and kept["errors"] == [0.5, None]
    assert kept["coverage"][0] == 0.25 and kept["error"][0] == 0.5 and kept["reached"] == 1 == kept["above"]
    nothing = abstention._kept([np.zeros(4, bool)] * 2, both, 0.4)
    assert nothing["error"] is None and nothing["reached"] == 0 and nothing["coverage"] == [0.0, 0.0, 0.0]


def test_transfer_is_of_relations_that_were_not_seen(given: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fitted(labelled: Labelled, *more: object) -> calibration.Calibration:
        seen.append({one.relation for one in labelled.questions})
        return splits.fitted(labelled, *more)

    monkeypatch.setattr(abstention, "fitted", fitted)
    random, score = np.random.default_rng(2), np.array(given.scores["sequence probability"])
    told = random.random(len(given)) < 1 / (1 + np.exp(-20 * (score - np.median(score))))
    alike = replace(given, wrong=told.tolist(), texts=[""] * len(given))
    for labelled, low, high in ((alike, 0.05, 0.25), (given, 0.25, 0.6)):
        found = abstention._transfer(labelled, abstention.RISK)
        for relations in found.values():
            assert [asked for asked, _, _ in relations.values()] == [600, 600]
            assert all(asked >= kept >= wrong for asked, kept, wrong in relations.values())
        # where answers made the risk, those of another relation are not known, and what was promised is not kept
        asked, kept, wrong = abstention._pooled(found["0.2"])
        assert asked == 1200 and low * kept < wrong <= high * kept
    assert seen == 2 * [{"odd"}, {"even"}]


def test_one_relation_has_no_transfer(given: Labelled) -> None:
    alone = given.take([row for row, one in enumerate(given.questions) if one.relation == "odd"])
    found = abstention._transfer(alone, abstention.RISK)
    assert found == {"0.05": {}, "0.1": {}, "0.2": {}}
    assert abstention._transferred({"transfer": {abstention.RISK: found}}).verdict == "not testable here"


def test_where_nothing_can_be_told_all_is_out_of_reach() -> None:
    random = np.random.default_rng(3)
    given = replace(known(800), texts=[""] * 800, wrong=(random.random(800) < 0.6).tolist())
    result = abstention._plain(given, splits_of(given, 0.5))
    kept = result["kept"][abstention.RISK]["0.1"]
    assert kept["reached"] == 0 and kept["error"] is None
    said = abstention._zero(result)
    assert said.verdict == "supported" and said.measured.startswith("out of reach")
    assert abstention._zero(None).verdict == "not testable here"
    assert abstention._reaches(kept, 0.04, 2000).verdict == "not supported"
    assert abstention._reaches(kept, 0.04, 1999).verdict == "not testable here"
    some = {**kept, "coverage": [0.05, 0.04, 0.06], "error": [0.1, 0.08, 0.12], "reached": 4}
    assert [abstention._reaches(some, least, 2000).verdict for least in (0.04, 0.12)] == ["supported", "not supported"]


# --- Shown, and asked -------------------------------------------------------------------------------------------------


def test_parts_show_what_they_measured(calibrated: dict, abstaining: dict, tmp_path: Path) -> None:
    zero = {**abstaining, "wrong": 0.9}
    for module, result in ((calibrating, calibrated), (abstention, {**abstaining, "zero": zero})):
        pictures = module._draw(result, tmp_path)
        assert [(tmp_path / one.file).stat().st_size > 5000 for one in pictures] == [True]
        for table in module._tables(result):
            assert {len(row) for row in table.rows} == {len(table.columns)}
        for one in module._claims(result):
            assert one.measured and one.rule
    title = abstention._tables({**abstaining, "zero": zero})[-2].title
    assert title.startswith("No examples: 1200 answers, 90.0% of them wrong")


@pytest.mark.slow
def test_a_model_is_asked_once_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "relations" / "factual"
    folder.mkdir(parents=True)
    samples = [{"subject": f"N{i}", "object": ["red", "blue", "green"][i % 3]} for i in range(710)]
    relation = {"name": "has colour", "prompt_templates": ["{} is"], "samples": samples}
    (folder / "colours.json").write_text(json.dumps(relation))
    model, told = writer(positions=96), []
    bench = Bench("tiny", model, tmp_path / "data", tmp_path / "out", relations=("colours",))
    setting = Setting("full", say=told.append)
    monkeypatch.setattr(abstention, "ZERO", 620)
    monkeypatch.setattr(splits, "SEEDS", (200, 201))
    parts = [calibrating.part(bench), abstention.part(bench)]
    first = run_parts(parts, setting, tmp_path / "out")
    # a model that knows nothing: all answers are of one kind, and the part says so
    assert all("right and wrong answers" in done.missing for done in first)
    assert len((tmp_path / "out" / "answers" / "few-shot-3.jsonl").read_text().splitlines()) == 710
    again = Bench("tiny", model, tmp_path / "data", tmp_path / "out", relations=("colours",))
    told.clear()
    questions = again.relation_questions(setting)
    answered = again.answered(questions, again.asking(questions), setting)
    assert told[0].startswith("   710 of 710 answers are in") and len(answered) == 710
    wrong_ones = [replace(one, right=number % 2 == 0) for number, one in enumerate(answered)]
    monkeypatch.setattr(Bench, "answered", lambda self, questions, asking, setting: wrong_ones[: len(questions)])
    done = run_parts([calibrating.part(again), abstention.part(again)], setting, tmp_path / "out")
    assert all(one.result for one in done)
    assert done[1].result["zero"]["n"] == 620
    few = run_parts(parts, Setting("toy"), tmp_path / "toy")
    assert all("take the scale quick or full" in one.missing for one in few)


def test_the_audit_is_whole_and_its_page_says_what_it_has() -> None:
    folder = Path(__file__).parents[2] / "docs" / "hallucination"
    rows = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert len(rows) == 100 == len({row["id"] for row in rows})
    kinds: Counter[tuple[bool, str]] = Counter()
    for row in rows:
        assert set(row) == {"id", "question", "answer", "right", "expected", "judged", "note"}
        assert row["judged"] in ("true", "false", "unclear") and row["expected"]
        relation = row["id"].rpartition("-")[0].replace("_", " ")
        question = Question(row["id"], row["question"], tuple(row["expected"]), relation=relation)
        assert row["right"] is is_right(row["answer"], question)
        assert row["note"] or row["judged"] == ("true" if row["right"] else "false")
        kinds[row["right"], row["judged"]] += 1
    text = " ".join((folder / "README.md").read_text().split())
    table = [" | ".join(str(kinds[right, each]) for each in ("true", "false", "unclear")) for right in (True, False)]
    assert f"| labelled right | {table[0]} |" in text and f"| labelled wrong | {table[1]} |" in text
    same = kinds[True, "true"] + kinds[False, "false"]
    clear = same + kinds[True, "false"] + kinds[False, "true"]
    interval = wilson(same, clear)
    assert f"Of the {clear} that are clear, {same} labels agree: {same / clear:.1%}".replace("%", " %") in text
    assert f"interval {100 * interval.low:.1f} to {100 * interval.high:.1f}" in text


def test_scores_that_the_parts_name_are_there() -> None:
    assert calibrating.MSP in ONE_PASS and abstention.MSP in ONE_PASS
    assert Asking().style == "few-shot"
