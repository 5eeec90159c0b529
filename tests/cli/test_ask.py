"""`glassformer ask`: lines for pipes, JSON, shades for people; bad input is one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from processes import Glassformer, run_inside
from tasks.small_writers import writer

import glassformer as gf
from glassformer.cli.ask import _for_people, _line, _shaded
from glassformer.factuality.asking import Reply, Token
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import Evidence

MONA_LISA = "The Mona Lisa hangs in the Louvre. It was painted by Leonardo da Vinci between 1503 and 1519.\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writer(positions=96).save(tmp_path_factory.mktemp("ask") / "tiny")


def test_a_line_or_an_object_for_each_question(tiny: Path) -> None:
    asked = ["Who is it?", "Where?"]
    done = run_inside("ask", "--model", tiny, "--max-new-tokens", 5, stdin="\n".join(asked).encode())
    assert done.code == 0, done.err
    replies = [gf.ask(gf.load(tiny), question, max_new_tokens=5) for question in asked]
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == [" ".join((reply.answer or "").split()) for reply in replies]
    assert all(row[1] == "-" for row in rows)
    told = run_inside("ask", "--model", tiny, "--max-new-tokens", 5, "--json", *asked)
    records = [json.loads(line) for line in told.out.splitlines()]
    assert [record["question"] for record in records] == asked
    assert records[0]["scores"].keys() == replies[0].scores.keys() and records[0]["tokens"]


def test_the_mona_lisa_from_a_document(glassformer: Glassformer, tmp_path: Path) -> None:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    try:
        gf.load("squad-minilm")
    except gf.InputError:
        pytest.skip("the reader's weights are not installed (make models)")
    (tmp_path / "mona.txt").write_text(MONA_LISA, encoding="utf-8")
    done = glassformer("ask", "--documents", tmp_path, "When was the Mona Lisa painted?")
    assert done.code == 0, done.err
    answer, place, quote = done.out.rstrip("\n").split("\t")
    assert "1503" in answer and "1519" in answer
    name, start, end = place.rsplit(":", 2)
    assert name.endswith("mona.txt") and MONA_LISA[int(start) : int(end)] == quote
    silent = glassformer("ask", "--documents", tmp_path, "What is the population of Norway?")
    assert silent.out == "-\t-\tthe documents do not say\n"


def reply(answer: str | None, why: str = "", **more: object) -> Reply:
    return replace(Reply("Who?", answer, why, answer or "Bob"), **more)  # type: ignore[arg-type]


def test_tokens_are_shaded_by_their_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    shades = [_shaded(Token("x", p, 1.0)) for p in (0.9, 0.3, 0.1, 0.01)]
    assert shades[0] == "x" and len(set(shades)) == 4 and all(shade.endswith("\x1b[0m") for shade in shades[1:])
    assert "\x1b[31m" not in _shaded(Token("\x1b[31m", 0.9, 1.0))  # what a model writes does not reach the terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert _shaded(Token("x", 0.01, 1.0)) == "x"


def test_what_people_read() -> None:
    tokens = (Token(" An", 0.9, 0.1), Token("n", 0.1, 2.0))
    lines = _for_people(reply("Ann", tokens=tokens))
    assert "An" in lines[0] and "least probable: n (10 %)" in lines[1] and "only a calibration says" in lines[1]
    assert _for_people(reply("Ann", tokens=tokens, risk=0.25))[1] == "  risk of being wrong: 25 %"
    refused = _for_people(reply(None, "its risk is 90 %", tokens=tokens, risk=0.9))
    assert refused[0].startswith("No answer: its risk is 90 %. It would have said: ")
    document = Documents.of_texts({"a": "It is Ann. It is Bob."})[0]
    evidence = (
        Evidence("It is Ann.", document, 0, 10, 2.0, (6, 9)),
        Evidence("It is Bob.", document, 11, 21, 1.0, (17, 20)),
    )
    shown = _for_people(reply("Ann", evidence=evidence))
    assert shown == ["Ann", "  “It is Ann.” (a, 0–10)", "  but: “It is Bob.” (a, 11–21)"]
    assert _line(reply("Ann", evidence=evidence)) == "Ann\ta:0:10\tIt is Ann."
    assert _line(reply("Ann", risk=0.25)) == "Ann\t0.250\t"
    assert _line(reply(None, "why not")) == "-\t-\twhy not"


def test_bad_input_is_one_line(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, message in (
        (["Who?"], "say who is asked: --model NAME, or --documents FILES"),
        (["--model", tiny, "?!"], "must have at least one word"),
        (["--model", tiny, "--max-error", 0.1, "Who?"], "a largest error needs a calibration"),
        (["--model", tiny, "--risk", tmp_path / "none.json", "Who?"], "none.json"),
        (["--documents", tmp_path / "empty", "Who?"], "empty"),
    ):
        done = run_inside("ask", *given)
        assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err
