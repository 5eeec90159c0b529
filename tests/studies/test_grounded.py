"""Grounding: refusals and planted errors, counted by hand on small sets; the part shows what it measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks.small_readers import local_reader, words

from glassformer.errors import InputError
from glassformer.factuality import judging, verifying
from glassformer.studies.hallucination import grounded, planted, refusals
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.planted import Seen
from glassformer.studies.hallucination.refusals import Judged
from glassformer.studies.running import run_parts
from glassformer.studies.study import Setting
from glassformer.tasks.model import Model
from glassformer.text.questions import Answer, Question
from glassformer.training.recipes import read_recipe

pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")

TITLES = ("Rhine", "Warsaw", "Oxygen")
PARAGRAPHS = ("bab deb fib gub kab lab mab.", "bib dob fub gyb kib lob mub.", "beb dab fob geb kob lib myb.")


def entry(title: str, missing: bool) -> dict[str, Any]:
    """An article of SQuAD's, each paragraph with a question, and one that it does not answer."""
    paragraphs = []
    for number, text in enumerate(PARAGRAPHS):
        start = text.split()[1]
        asked = [{"id": f"{title}{number}", "question": f"{text[:3]} what?", "is_impossible": False,
                  "answers": [{"text": start, "answer_start": 4}]}]  # fmt: skip
        if missing:
            asked.append(
                {"id": f"{title}{number}-", "question": f"{text[8:11]} who?", "is_impossible": True, "answers": []}
            )
        paragraphs.append({"context": text, "qas": asked})
    return {"title": title, "paragraphs": paragraphs}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    assert set(TITLES) <= set(read_recipe(refusals.RECIPE).data.test_titles)
    for name, missing in ((refusals.ONE, False), (refusals.ONE_HELD_OUT, False), (refusals.TWO, True)):
        (root / name).parent.mkdir(exist_ok=True)
        content = [entry(title, missing) for title in (*TITLES, "Black_Death", "Alloy", "Anthem")]
        (root / name).write_text(json.dumps({"version": "v2.0", "data": content}))
    return root


@pytest.fixture(scope="module")
def reader() -> Model:
    """Any word may be an answer, by a table."""
    torch.manual_seed(0)
    return local_reader(torch.randn(words().vocab_size, 2), threshold=0.0)


def write_claims(folder: Path) -> Path:
    """Two facts of each article: a true statement and two with another number."""
    lines = []
    for title in TITLES:
        for fact in range(2):
            for label, number in (("true", 5), ("a", 800), ("b", 7)):
                statement = f"bab has {number} deb."
                lines.append({"part": "test", "article": title, "question_id": f"{title}{fact}", "statement": statement,
                              "start": 8, "end": 8 + len(str(number)), "kind": "number", "label": label})  # fmt: skip
    path = folder / "claims.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_sets_hold_articles_out_and_pair_easy_questions_with_other_paragraphs(data: Path) -> None:
    own = refusals.questions_of("own", data.joinpath)
    assert {one.title for one in own} == set(TITLES) and len(own) == 18
    assert sum(not one.answers for one in own) == 9
    assert {one.title for one in refusals.questions_of("own", data.joinpath, "valid")} == {"Black_Death"}
    easy = refusals.questions_of("easy", data.joinpath)
    assert {one.title for one in easy} == {*TITLES, "Alloy", "Anthem"}
    assert {one.title for one in refusals.questions_of("easy", data.joinpath, "valid")} == {"Alloy"}
    easy = [one for one in easy if one.title in TITLES]
    right = {one.id: one for one in easy if one.answers}
    wrong = [one for one in easy if not one.answers]
    assert len(right) == len(wrong) == 9
    for one in wrong:
        before = right[one.id.removesuffix("-no")]
        assert one.question == before.question and one.context != before.context and one.title == before.title
        assert before.answers[0].text not in one.context


def test_some_questions_are_spread_over_all() -> None:
    items = [Question(str(number), "a", "b", ()) for number in range(10)]
    assert [one.id for one in refusals.spread(items, 4)] == ["0", "3", "6", "9"]
    assert refusals.spread(items, 0) == refusals.spread(items, 10) == items


def rows() -> list[Judged]:
    """Two articles: 2 of 3 right answers given, 1 of them half right; 1 of 2 questions refused."""
    with_answer = [("A", "red fox", 2.0), ("A", "red", 1.0), ("B", "red fox", -3.0)]
    without = [("A", "x", -1.0), ("B", "y", 4.0)]
    found = [Judged(Question("", "", "", (Answer("red fox", 0),), title), text, score)
             for title, text, score in with_answer]  # fmt: skip
    return found + [Judged(Question("", "", "", (), title), text, score) for title, text, score in without]


def test_f1_and_refusals_by_hand() -> None:
    found = refusals.scored(rows(), 0.5)
    assert found["f1"]["value"] == pytest.approx(100 * (1 + 2 / 3 + 0) / 3) and found["f1"]["n"] == 3
    assert found["refused"]["value"] == 50 and found["silent"]["value"] == pytest.approx(100 / 3)
    never = refusals.scored(rows(), math.inf)
    assert never["refused"]["value"] == never["silent"]["value"] == 0
    assert never["f1"]["value"] == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)
    low, high = found["refused"]["interval"]
    assert (low, high) == (0, 100) and found["refused"]["articles"] == 2
    difference, low, high = refusals.refused_more(rows(), 0.5)
    assert difference == pytest.approx(50 - 100 / 3) and low <= difference <= high
    assert low >= -100 and high <= 100
    twice = [one._replace(question=replace(one.question, title=title)) for title in "AB" for one in rows()]
    assert refusals.refused_more(twice, 0.5) == pytest.approx([50 - 100 / 3] * 3)  # equal articles: no width
    with pytest.raises(InputError, match="with and without answers, got 3 and 0"):
        refusals.scored(rows()[:3], 0.5)


def test_the_curve_refuses_at_least_as_much_as_it_says() -> None:
    for level, one in zip(refusals.LEVELS, refusals.curve(rows()), strict=True):
        assert one["refused"] >= level
        again = refusals.scored(rows(), float(np.nextafter(one["threshold"], -math.inf)))
        assert again["f1"]["value"] == one["f1"]


# --- Planted errors ---------------------------------------------------------------------------------------------------


def value(score: float, start: int, present: bool = True) -> dict[str, Any]:
    """A value whose score is `score` by the weights in use."""
    margin = (score - judging.WEIGHTS["bias"]) / judging.WEIGHTS["margin"]
    features = dict.fromkeys(set(judging.WEIGHTS) - {"bias"}, 0.0) | {"margin": margin}
    return {"start": start, "end": start + 2, "features": features, "present": present}


def claim_at(label: str, article: str = "A", statement: str = "xx yy") -> dict[str, Any]:
    return {"label": label, "article": article, "start": 3, "end": 5, "statement": statement, "question_id": article}


def test_a_statement_is_as_good_as_its_worst_value() -> None:
    claims = [claim_at("true"), claim_at("a"), claim_at("b"), claim_at("b"), claim_at("b")]
    seen = [
        Seen([value(2.0, 0), value(1.0, 3)], 1.0),
        Seen([value(-2.0, 0), value(1.0, 3)], 1.0),
        Seen([value(2.0, 0), value(1.0, 3, present=False)], 1.0),
        Seen([value(2.0, 0), value(1.0, 3)], verifying.COVERED - 0.01),
        Seen([], 1.0),
    ]
    nowhere = planted.NOWHERE
    assert planted.scores(claims, seen, True).tolist() == pytest.approx([1, -2, nowhere, nowhere, nowhere])
    assert planted.scores(claims, seen, False).tolist() == pytest.approx([1, 1, nowhere, 1, nowhere])


def test_rates_and_the_peer_by_hand() -> None:
    claims = [claim_at("true"), claim_at("true", "B"), claim_at("a"), claim_at("b"), claim_at("b", "B", "xx zz")]
    found = planted.rates(claims, np.array([1.0, -1.0, -1.0, 1.0, -1.0]), 0.0)
    assert [found[label]["share"] for label in planted.LABELS] == [0.5, 1.0, 0.5]
    assert [found[label]["n"] for label in planted.LABELS] == [2, 1, 2]
    assert (found["true"]["low"], found["true"]["high"]) == (0.0, 1.0)
    match = planted.string_match(claims, {"A": "it is YY", "B": "nothing"})
    assert match.tolist() == [1, -1, 1, 1, -1]
    more = planted.found_more(claims, np.array([1.0, 1.0, 1.0, -1.0, -1.0]), match, "b")
    assert more[0] == 0.5 and more[1] <= 0.5 <= more[2]


def test_what_was_seen_is_kept(tmp_path: Path, reader: Model) -> None:
    claims = planted.read_claims("test", write_claims(tmp_path))
    assert [one["question_id"] for one in planted.some(claims, 2)] == ["Rhine0"] * 3 + ["Oxygen1"] * 3
    texts = {title: "bab has 5 deb. bib has 7 dob." for title in TITLES}
    lines: list[str] = []
    seen = planted.seen_of(claims, texts, reader, tmp_path / "cache", lines.append)
    assert lines[-1].startswith("3 of 3 statements") and len(seen) == 18
    assert [len(one.values) for one in seen] == [1] * 18
    again = planted.seen_of(claims, texts, reader, tmp_path / "cache", lines.append)
    assert again == seen and len(lines) == 1
    assert planted.scores(claims, seen, True)[1] == planted.NOWHERE  # 800 stands nowhere


# --- The part ---------------------------------------------------------------------------------------------------------


def test_the_part_measures_draws_and_tells(
    data: Path, reader: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")
    path = write_claims(tmp_path)
    monkeypatch.setattr(planted, "claims_file", lambda: path)
    part = grounded.part(Bench("small", reader, data), reader, None)
    (done,) = run_parts([part], Setting("toy"), tmp_path)
    assert done.result is not None, done.missing
    result = json.loads(json.dumps(done.result, allow_nan=False))
    assert [picture.file for picture in part.draw(result, tmp_path)] == [
        "grounding_refusals.png",
        "grounding_planted.png",
    ]
    assert all((tmp_path / one.file).is_file() and "n = " in one.caption for one in part.draw(result, tmp_path))
    answers, errors = part.tables(result)
    assert len(answers.rows) == 4 and len(errors.rows) == 3
    assert all(len(row) == len(table.columns) for table in (answers, errors) for row in table.rows)
    assert len(part.claims(result)) == 4 and all(one.measured for one in part.claims(result))


def test_without_the_claims_the_rest_is_reported(
    data: Path, reader: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise InputError("they are not here")

    monkeypatch.setattr(planted, "claims_file", missing)
    part = grounded.part(Bench("small", reader, data), reader, None)
    result = part.run(Setting("toy"))
    assert [row for row in part.tables(result)[1].rows] == [("they are not here",)]
    assert [one.verdict for one in part.claims(result)][2:] == ["not testable here"] * 2
    with pytest.raises(InputError, match="is missing"):
        grounded.part(Bench("small", reader, tmp_path), reader, None).run(Setting("toy"))


def shares(true: float, a: float, b: float) -> dict[str, Any]:
    return {label: {"share": share, "low": share - 0.01, "high": share + 0.01, "n": 100}
            for label, share in (("true", true), ("a", a), ("b", b))}  # fmt: skip


@pytest.mark.parametrize(
    ("true", "a", "b", "verdicts"),
    [
        (0.05, 0.95, 0.6, ["supported", "supported"]),
        (0.05, 0.90, 0.6, ["not supported", "supported"]),
        (0.10, 0.95, 0.6, ["not supported", "not supported"]),
        (0.05, 0.95, 0.5, ["supported", "not supported"]),
    ],
)
def test_verdicts_follow_from_the_rules(true: float, a: float, b: float, verdicts: list[str]) -> None:
    one = {"value": 60.0, "interval": [55.0, 65.0], "n": 9}
    high = {"value": 80.0, "interval": [75.0, 85.0], "n": 9}
    sets = {
        "own": {"default": {"f1": one, "refused": one}, "refused more": [40.0, 30.0, 50.0]},
        "easy": {"default": {"f1": one, "refused": high}},
    }
    errors = {
        "checks": {"whole statement": shares(true, a, b)},
        "more than string match": {"a": [0.1, 0.05, 0.2], "b": [0.5, 0.4, 0.6]},
    }
    found = grounded.claims({"sets": sets, "planted": errors})
    assert [one.verdict for one in found] == ["supported", "supported", *verdicts]
    sets["own"]["default"]["refused"] = high
    assert grounded.claims({"sets": sets, "planted": errors})[1].verdict == "not supported"
