"""Prompt design: outcomes and rates of hand-made answers, what the examples are, and verdicts from the rates alone."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality.questions import Question
from glassformer.factuality.values import find_values
from glassformer.studies.hallucination import prompting
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.prompting import (
    BARE,
    EVIDENCE,
    MAY,
    SHOWN,
    UNANSWERED,
    UNKNOWABLE,
    WAYS,
    WRONG,
    followed,
    measured,
    part,
)
from glassformer.studies.hallucination.rates import RATES, difference_of, outcome_of, percent, share_of
from glassformer.studies.hallucination.wrong_evidence import Case, cases_of
from glassformer.studies.study import Setting
from glassformer.tasks.intervals import wilson

R, A, W = "right", "abstains", "wrong"
WHEN = Question("w", "When was it built?", ("1503",), "It was built in 1503.", "it")


# --- Rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1503", R),
        ("It was built in 1503.", R),
        ("I don't know, but I think 1503.", R),
        ("I don't know.", A),
        ("I'm not sure.", A),
        ("The text does not say.", A),
        ("  ", A),
        ("1815", W),
        ("It was not built in 1503.", W),
    ],
)
def test_an_answer_is_right_abstains_or_is_wrong(text: str, expected: str) -> None:
    assert outcome_of(text, WHEN) == expected


def test_rates_are_shares_of_what_they_are_of() -> None:
    outcomes, entities = [R, R, A, W, W, W, A, A], [str(n) for n in range(8)]
    values = {rate: share_of(outcomes, rate, entities)[0] for rate in RATES}  # type: ignore[index]
    assert values == pytest.approx(
        {"accuracy": 2 / 8, "abstention": 3 / 8, "hallucination rate": 3 / 8, "wrong of the answers": 3 / 5}
    )
    assert share_of([A, A], "wrong of the answers", ["1", "2"]) is None and percent(None) == "no answer"
    assert difference_of([A, A], [R, W], "wrong of the answers", ["1", "2"]) is None
    assert difference_of([], [], "accuracy", []) is None
    around = wilson(3, 3)
    assert share_of([W] * 3, "hallucination rate", ["1", "1", "2"]) == [1.0, around.low, around.high]


def test_intervals_draw_entities_with_all_of_their_questions() -> None:
    """Against draws by a loop; what hangs together is not counted as many independent questions."""
    draw = random.Random(1)
    entities = [f"e{n // 5}" for n in range(60)]
    outcomes = [draw.choice((R, A, W) if n // 5 % 2 else (W, W, A)) for n in range(60)]
    others = [draw.choice((R, A, W)) for _ in range(60)]
    groups = [range(5 * n, 5 * n + 5) for n in range(12)]
    shares, differences = [], []
    for _ in range(4000):
        rows = [row for group in draw.choices(groups, k=12) for row in group]
        share = [outcomes[row] for row in rows if outcomes[row] != A].count(W) / max(
            1, sum(outcomes[row] != A for row in rows)
        )
        other = [others[row] for row in rows].count(R) / 60
        shares.append(share)
        differences.append([outcomes[row] for row in rows].count(R) / 60 - 0.5 * other)
    found = share_of(outcomes, "wrong of the answers", entities)
    assert found is not None and found[1:] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.015)
    found = difference_of(outcomes, others, "accuracy", entities, 0.5)
    assert found is not None and found[1:] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.015)
    assert found[0] == pytest.approx(outcomes.count(R) / 60 - 0.5 * others.count(R) / 60)
    together = share_of([R] * 30 + [W] * 30, "accuracy", ["a"] * 30 + ["b"] * 30)
    assert together == [0.5, 0.0, 1.0]


# --- What is measured -------------------------------------------------------------------------------------------------


def cases(n: int = 4) -> list[Case]:
    (right,), (wrong,) = find_values("1503"), find_values("1815")
    return [
        Case(
            Question(f"q{i}", "When was it built?", ("1503",), "Built in 1503.", f"A{i // 2}"),
            right, wrong, "Built in 1503.", "It is big.", "Built in 1815.", True,
        )
        for i in range(n)
    ]  # fmt: skip


def test_who_follows_wrong_evidence_says_the_planted_value() -> None:
    texts = {
        BARE: ["1815", "1503", "1700", "no idea"],
        EVIDENCE: ["1503", "1503", "in 1503", "1700"],
        WRONG: ["1815", "It was built in 1815.", "I don't know", "1503"],
    }
    found = followed(cases(), texts)
    assert [found[name][0] for name in ("given", "of answers", "by chance", "beyond half")] == pytest.approx(
        [2 / 4, 2 / 3, 1 / 4, 2 / 4 - 3 / 8]
    )


def test_no_answer_is_left_in_wrong_evidence() -> None:
    """A question with another right answer that its passage says too cannot be asked with wrong evidence."""
    texts = [f"Bridge {n} was opened in {1500 + 10 * n}, as the Grand Way." for n in range(4)]
    asked = [Question(f"q{n}", "What opened?", (str(1500 + 10 * n),), text, "Bridges") for n, text in enumerate(texts)]
    assert len(cases_of(asked, 4, 0)) == 4 and len(cases_of(asked, 3, 0)) == 3
    more = [replace(one, answers=(*one.answers, "the grand way")) for one in asked[:3]]
    assert [case.question.id for case in cases_of([*more, asked[3]], 4, 0)] == ["q3"]


def test_differences_are_to_the_same_questions_bare() -> None:
    asked = [one.question for one in cases()]
    found = measured(asked, {BARE: ["1503", "1", "2", "3"], MAY: ["1503", "unknown", "unknown", "3"]})
    assert found["n"] == 4 and found["entities"] == 2
    assert found["ways"][MAY]["counts"] == {R: 1, A: 2, W: 1}
    differences = found["ways"][MAY]["differences"]
    assert differences["hallucination rate"][0] == pytest.approx(-0.5) and differences["accuracy"] == [0.0, 0.0, 0.0]
    assert set(found["ways"][BARE]["differences"]["abstention"]) == {0.0}


def test_one_example_of_three_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def ids_of(model: Any, question: Question, shots: list[Question], style: str) -> list[int]:
        seen.append((question, shots, style))
        return [5, 6, 7]

    monkeypatch.setattr(prompting, "ids_of", ids_of)
    asked = [Question(f"r{n}", f"What of {n}?", (f"x{n % 4}",), entity=f"E{n}", relation="r") for n in range(12)]
    bench = Bench("tiny", writer())
    few = prompting.asking_of(asked, prompting.Asking("few-shot", 3, 0, 2))
    found = prompting._after_unanswered(bench, asked, few)
    assert len(found) == 12 and [question for question, _, _ in seen] == asked
    for question, shots, style in seen:
        usual = prompting.shots_for(question, few.shots, 3, 0)
        assert [shots[0], shots[2]] == [usual[0], usual[2]] and style == "few-shot"
        assert shots[1].question == UNKNOWABLE.question and shots[1].answers == ("I don't know",)


# --- The part ---------------------------------------------------------------------------------------------------------


def data(folder: Path) -> None:
    articles = []
    for title in ("Bridges", "Towers", "Roads", "Dams", "Canals"):
        paragraphs = []
        for n in range(4):
            year, name = 1500 + 37 * n + len(title), ("Anna Bell", "Carl Dorn", "Eva Fink", "Gerd Hahn")[n]
            context = f"The {n}th of the {title.lower()} was opened in {year} by {name}."
            asked = (("When was it opened?", str(year)), ("Who opened it?", name))
            qas = [
                {"id": f"{title}{n}{answer}", "question": question,
                 "answers": [{"text": answer, "answer_start": context.index(answer)}]}
                for question, answer in asked
            ]  # fmt: skip
            paragraphs.append({"context": context, "qas": qas})
        articles.append({"title": title, "paragraphs": paragraphs})
    _write(folder / "squad_v1.1/dev-v1.1.rebuilt.json", json.dumps({"version": "1.1", "data": articles}))
    samples = [{"subject": f"Land{n}", "object": f"City{n % 7}"} for n in range(20)]
    relation = {"name": "capital", "prompt_templates_zs": ["What is the capital of {}? It is"], "samples": samples}
    relation |= {"prompt_templates": ["The capital of {} is"]}
    _write(folder / "relations/factual/capital.json", json.dumps(relation))
    rows = "".join(f"X,Y,What is {n}?,It is {n},It is {n}; {n},It is {n + 1},here\n" for n in range(6))
    header = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    _write(folder / "truthfulqa/TruthfulQA.csv", header + rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


def test_the_part_asks_the_same_questions_in_all_ways(tmp_path: Path) -> None:
    data(tmp_path)
    bench = Bench("tiny", writer(positions=700), tmp_path, tmp_path / "out", relations=("capital",))
    made = part(bench)
    result = json.loads(json.dumps(made.run(Setting("toy", data_root=tmp_path)), allow_nan=False))
    sets = result["sets"]
    assert {name: (each["n"], each["entities"]) for name, each in sets.items()} == {
        "squad": (10, 5),
        "relations": (8, 8),
        "truthfulqa": (4, 4),
    }
    assert tuple(sets["squad"]["ways"]) == WAYS and tuple(sets["relations"]["ways"]) == (BARE, MAY, SHOWN, UNANSWERED)
    assert all(sum(way["counts"].values()) == each["n"] for each in sets.values() for way in each["ways"].values())
    assert all(set(one["said"]) == set(WAYS) and one["planted"] != one["answer"] for one in result["examples"])
    (picture,) = made.draw(result, tmp_path)
    assert "n = 10" in picture.caption and (tmp_path / picture.file).read_bytes().startswith(b"\x89PNG")
    assert all(len(row) == len(table.columns) for table in made.tables(result) for row in table.rows)
    assert len(made.claims(result)) == 7 and all(one.rule and one.measured for one in made.claims(result))


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        part(Bench("tiny", writer(), tmp_path)).run(Setting("toy", data_root=tmp_path))


def test_verdicts_follow_from_the_rates_alone() -> None:
    """Evidence helps, leave to abstain is taken where the answer would be wrong; wrong evidence is followed."""
    n = 40
    asked = [Question(f"q{i}", "When?", ("1503",), "In 1503.", f"A{i}") for i in range(n)]
    own = [Case(each, *find_values("1503"), *find_values("1815"), "", "", "", True) for each in asked]

    def said(right: int, abstains: int) -> list[str]:
        return ["1503"] * right + ["I don't know"] * abstains + ["1700"] * (n - right - abstains)

    relations = {BARE: said(10, 0), MAY: said(10, 20), SHOWN: said(20, 0), UNANSWERED: said(10, 0)}
    texts = {**relations, EVIDENCE: said(30, 5), WRONG: ["1815"] * 20 + ["1700"] * 20}
    result = {
        "sets": {"squad": measured(asked, texts), "relations": measured(asked, relations)},
        "planted": {WRONG: followed(own, texts)},
    }
    verdicts = [one.verdict == "supported" for one in prompting._claims(result)]
    assert verdicts == [True, True, True, True, False, False, True]
    texts[WRONG] = ["1815"] * 30 + ["1503"] * 10
    result["planted"][WRONG] = followed(own, texts)
    assert prompting._claims(result)[5].verdict == "supported"
    result["sets"]["relations"] = measured(asked, {**relations, MAY: said(0, n)})
    assert prompting._claims(result)[2].verdict == "not testable here"
