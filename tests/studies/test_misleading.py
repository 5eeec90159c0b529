"""Wrong evidence: it is wrong in the one way that is meant; outcomes, halved or not, are told from the rows alone."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tasks.small_readers import local_reader, words
from tasks.small_writers import writer

from glassformer.errors import InputError
from glassformer.factuality.questions import Question
from glassformer.factuality.values import find_values, same
from glassformer.studies.hallucination import misleading
from glassformer.studies.hallucination.bench import Bench
from glassformer.studies.hallucination.misleading import METHODS, agree, claims, part
from glassformer.studies.hallucination.wrong_evidence import (
    KINDS,
    TITLES,
    Case,
    cases_of,
    outcome,
    replaced,
)
from glassformer.studies.study import Setting

PARAGRAPHS = {
    "Bridges": [
        ("The old bridge was opened in 1815 by Anna Bell. It has 40 arches; since 1815 it was never closed.",
         [("When was the old bridge opened?", "1815"), ("Who opened the old bridge?", "Anna Bell")]),
        ("The new bridge was opened in 1971 by Carl Dorn. It has 12 arches.",
         [("How many arches has the new bridge?", "12"), ("What is a bridge?", "a way over water")]),
    ],
    "Towers": [
        ("The tall tower was begun in 1620 by Eva Fink.", [("When was the tall tower begun?", "in 1620")]),
        ("The small tower was begun in 1733 by Gerd Hahn.", [("Who began the small tower?", "Gerd Hahn")]),
    ],
}  # fmt: skip


def questions() -> list[Question]:
    return [
        Question(f"{title} {text}", text, (answer,), context, title)
        for title, paragraphs in PARAGRAPHS.items()
        for context, asked in paragraphs
        for text, answer in asked
    ]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return cases_of(questions(), 5, 0)


def test_evidence_is_wrong_as_it_is_meant_to_be(cases: list[Case]) -> None:
    assert len(cases) == 5  # "a way over water" is no value
    for case in cases:
        texts = [context for context, _ in PARAGRAPHS[case.question.entity]]
        assert case.true == case.question.context and case.absent in texts and case.absent != case.true
        assert case.right.text not in case.altered and case.wrong.text in case.altered
        assert (
            case.wrong.text in case.absent and case.wrong.text not in case.true and case.right.kind == case.wrong.kind
        )
        assert case.altered.replace(case.wrong.text, case.right.text) == case.true
        assert case.right.text not in case.absent
        assert sorted(case.texts("both")) == sorted([case.true, case.altered])
    [bridge] = [case for case in cases if case.right.text == "1815"]
    assert bridge.altered.count("1971") == 2
    assert len({case.first for case in cases_of(questions(), 5, 3)}) <= 2
    assert cases == cases_of(questions(), 5, 0)


def test_articles_that_were_held_out_are_those_of_the_recipe() -> None:
    recipe = tomllib.loads(Path("recipes/squad-refusal.toml").read_text(encoding="utf-8"))
    assert sorted(TITLES) == sorted(recipe["data"]["test_titles"])
    mixed = [*questions(), Question("x", "When did it rain?", ("1815",), "It rained in 1815.", "Warsaw"),
             Question("y", "When did it snow?", ("1971",), "It snowed in 1971.", "Warsaw")]  # fmt: skip
    assert {case.question.entity for case in cases_of(mixed, 5, 0)} == {"Warsaw"}


def test_nothing_to_alter_is_said() -> None:
    with pytest.raises(InputError, match="no question's answer is a number, date or name"):
        cases_of([Question("x", "What is it?", ("a way",), "It is a way.", "A")], 5, 0)


@given(st.lists(st.integers(1000, 2100), min_size=1, max_size=6), st.integers(0, 5))
def test_all_places_of_a_value_are_replaced_and_no_other(years: list[int], at: int) -> None:
    right = years[at % len(years)]
    text = " Then ".join(f"it rained in {year}." for year in years)
    values = find_values(text)
    [value] = find_values(f"in {right}")
    expected = text.replace(str(right), "999 BC")
    assert replaced(text, values, value, "999 BC") == expected
    assert all(not same(one, value) for one in find_values(replaced(text, values, value, "2222")))


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("In 1815.", "altered", "right"),
        ("It was opened in 1971.", "altered", "misled"),
        ("1971 or 1815", "both", "misled"),
        ("1815, not 1971", "both", "right"),
        ("1640", "true", "another"),
        ("1640", "absent", "misled"),
        ("1815", "absent", "right"),
        ("in […]", "absent", "misled"),
        ("I don't know", "absent", "abstains"),
        ("", "true", "abstains"),
        (None, "both", "abstains"),
    ],
)
def test_outcomes(cases: list[Case], text: str | None, kind: Any, expected: str) -> None:
    [case] = [case for case in cases if case.right.text == "1815"]
    assert outcome(text, case, kind) == expected


def test_a_witness_says_the_same_value() -> None:
    assert agree("in 1815", "It was 1815.") and agree("Anna Bell", "Bell")
    assert not agree("in 1815", "in 1971") and not agree("water", "water") and not agree("", "1815")


# --- The part ---------------------------------------------------------------------------------------------------------


def squad(folder: Path) -> None:
    articles = []
    for title, paragraphs in PARAGRAPHS.items():
        rows = []
        for number, (context, asked) in enumerate(paragraphs):
            qas = [
                {"id": f"{title} {number} {n}", "question": text,
                 "answers": [{"text": answer, "answer_start": context.index(answer)}]}
                for n, (text, answer) in enumerate(asked) if answer in context
            ]  # fmt: skip
            rows.append({"context": context, "qas": qas})
        articles.append({"title": title, "paragraphs": rows})
    path = folder / misleading.DATA
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")


def test_the_part_measures_draws_and_tells(tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    squad(tmp_path)
    torch.manual_seed(0)
    reader = local_reader(torch.randn(words().vocab_size, 2))
    bench = Bench("tiny", writer(positions=600), tmp_path, tmp_path / "out")
    made = part(bench, reader, None)
    result = json.loads(json.dumps(made.run(Setting("toy", data_root=tmp_path)), allow_nan=False))
    assert result["n"] == 4 and result["articles"] == 2 and len(result["rows"]) == 4 * len(KINDS)
    pictures = made.draw(result, tmp_path)
    assert [one.file for one in pictures] == ["misleading.png"] and "n = 4" in pictures[0].caption
    assert (tmp_path / "misleading.png").read_bytes().startswith(b"\x89PNG")
    rates, reasons = made.tables(result)
    assert len(rates.rows) == len(KINDS) * len(METHODS) and len(reasons.rows) == len(KINDS)
    assert all(len(row) == len(table.columns) for table in (rates, reasons) for row in table.rows)
    assert len(made.claims(result)) == 6 and all(one.rule and one.measured for one in made.claims(result))


def test_missing_data_is_said(tmp_path: Path) -> None:
    made = part(
        Bench("tiny", writer(), tmp_path, tmp_path / "out"), local_reader(torch.randn(words().vocab_size, 2)), None
    )
    with pytest.raises(InputError, match="is missing"):
        made.run(Setting("toy", data_root=tmp_path))


def rows(kind: str, model: list[str], checks: list[str], own: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of ten articles with the same outcomes in each."""
    return [
        {"article": f"A{n}", "kind": kind, "model": m, "checks": c, "own": o}
        for n in range(10)
        for m, c, o in zip(model, checks, own or checks, strict=True)
    ]


def test_verdicts_follow_from_the_rows() -> None:
    told = [
        *rows("absent", ["misled"] * 4, ["misled", "abstains", "abstains", "abstains"]),
        *rows("altered", ["misled"] * 4, ["misled"] * 4, ["abstains"] * 4),
        *rows("both", ["right"] * 4, ["right"] * 4),
        *rows("true", ["right"] * 10, ["right"] * 9 + ["abstains"], ["right"] * 6 + ["abstains"] * 4),
    ]
    verdicts = [one.verdict for one in claims({"rows": told})]
    # (a) 1 of 4 is below half; (b) all of 4 is not; (c) nobody was misled; together 5 of 8 are more than half;
    # 9 of 10 are more than 0.8; as a witness: none misled, and 6 of 10 more than half.
    assert verdicts == ["supported", "not supported", "not testable here", "not supported", "supported", "supported"]
    told = [row | ({"own": "abstains"} if row["kind"] == "true" else {}) for row in told]
    assert claims({"rows": told})[-1].verdict == "not supported"
