"""`ask`: an answer with its scores and risk, or quotes, or none and why."""

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
from tasks.small_writers import writer

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality import calibration
from glassformer.factuality.asking import Reply, ask_all, tokens_of
from glassformer.factuality.calibration import Asking, Calibration, Labelled
from glassformer.factuality.documents import Documents
from glassformer.factuality.grounding import Evidence
from glassformer.factuality.questions import Question
from glassformer.factuality.records import record
from glassformer.factuality.retrieval import Index
from glassformer.factuality.writing import NOT_SAID
from glassformer.tasks.model import Model

ASKED = ["Who is it?", "And where?", "Why so?"]


@pytest.fixture(scope="module")
def model() -> Model:
    return writer(positions=160)


@pytest.fixture(scope="module")
def risk(model: Model) -> Calibration:
    """Of which the answers with little entropy are right, but for a few."""
    random = np.random.default_rng(0)
    entropies = random.uniform(0, 6, 600)
    wrong = random.random(600) < np.where(entropies < 2, 0.01, 0.9)
    questions = [Question(f"q{i}", f"What is {i}?", ("x",), entity=f"E{i}") for i in range(600)]
    labelled = Labelled(questions, {"mean entropy": entropies.tolist()}, wrong.tolist())
    return calibration.fit(labelled, "tiny", calibration.identity(model), Asking("bare", max_new_tokens=4))


def test_a_model_s_own_answer_has_its_tokens_and_scores(model: Model) -> None:
    reply = gf.ask(model, ASKED[0], max_new_tokens=6)
    asked = model.chat([{"role": "user", "content": f"Answer in a few words.\n{ASKED[0]}"}], max_new_tokens=6)
    assert reply.answer == reply.draft == asked.text.strip() and reply.why == "" and reply.risk is None
    assert "".join(token.text for token in reply.tokens) == asked.text
    for token, logprob in zip(reply.tokens, asked.logprobs, strict=False):
        assert math.isclose(token.probability, math.exp(logprob), rel_tol=1e-4)
    assert math.isclose(reply.scores["sequence probability"], -sum(asked.logprobs), rel_tol=1e-4)
    assert json.loads(json.dumps(reply.to_json()))["answer"] == reply.answer
    assert [one.draft for one in ask_all(model, ASKED, max_new_tokens=6)] == [
        gf.ask(model, question, max_new_tokens=6).draft for question in ASKED
    ]


def test_what_ended_an_answer_is_no_token_of_it(model: Model) -> None:
    [whole] = record(model, ["a road"], max_new_tokens=8)
    stop = whole.text[3:5]
    [cut] = record(model, ["a road"], max_new_tokens=8, stop=(stop,))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert "".join(token.text for token in tokens_of(model, cut)) == cut.text


def test_a_calibration_gives_the_risk_and_decides_what_is_said(model: Model, risk: Calibration) -> None:
    for question in ASKED:
        free = gf.ask(model, question, risk=risk)
        assert (
            free.risk == risk.probability(free.scores, "", free.draft)
            and free.answer == free.draft
            and free.limit is None
        )
        held = gf.ask(model, question, risk=risk, max_error=0.1)
        assert held.limit == risk.threshold(0.1) and held.limit is not None
        combined = risk.combined(held.scores, "", held.draft)
        assert (held.answer is not None) == (combined <= held.limit.score)
        if held.answer is None:
            assert held.why.startswith("its risk is") and "at most 10 %" in held.why and held.draft == free.draft
    never = gf.ask(model, ASKED[0], risk=risk, max_error=0.001)
    assert never.answer is None and never.limit is None and "out of reach with this calibration" in never.why


def test_no_error_is_assured_for_questions_of_another_kind(model: Model, risk: Calibration) -> None:
    shots = (Question("s", "Who made Kodo?", ("Acme",), entity="Kodo", relation="maker"),)
    told = replace(risk, asking=replace(risk.asking, shots=shots))
    other, own = (gf.ask(model, question, risk=told, max_error=0.5) for question in ("Why so?", "Who made Lumi?"))
    assert other.answer is None and "no questions like this one" in other.why and other.risk is not None
    assert "no questions like this one" not in own.why


def test_a_calibration_s_file_must_be_of_this_model(model: Model, risk: Calibration, tmp_path: Path) -> None:
    file = risk.save(tmp_path / "risk.json")
    assert gf.ask(model, ASKED[0], risk=file).risk == gf.ask(model, ASKED[0], risk=risk).risk
    other = replace(model, network=writer(positions=161).network)
    with torch.no_grad():
        next(other.network.parameters()).add_(1.0)
    with pytest.raises(InputError, match="is a calibration of 'tiny' .* not of 'this model'"):
        gf.ask(other, ASKED[0], risk=file)


def table_reader(scores: dict[str, float]) -> Model:
    tokenizer = words()
    table = torch.full((tokenizer.vocab_size, 2), -2.5)
    for word, score in scores.items():
        [token] = tokenizer.encode(word)
        table[token] = score / 2
    table[tokenizer.cls_id] = 0.0
    return local_reader(table, 0.0)


def test_documents_answer_with_quotes_and_may_disagree() -> None:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    index = Index(Documents.of_texts({"one": "Bab fib gub.", "two": "Bab lab.", "three": "Bab fib.", "four": "Mob."}))
    reader = table_reader({"fib": 3.0, "lab": 2.0, "dub": -9.0})
    reply = gf.ask(None, "bab?", documents=index, reader=reader)
    assert reply.answer == "fib" and reply.evidence[0].document.name in ("one", "three") and not reply.tokens
    assert [each.document.name for each in reply.disagreeing] == ["two"]
    said = reply.to_json()
    assert said["disagreeing"] == 1 and said["evidence"][0]["answer"] == "fib"
    text = {"one": "Bab fib gub.", "two": "Bab lab.", "three": "Bab fib."}
    for each in said["evidence"]:
        assert text[each["document"]][each["start"] : each["end"]] == each["quote"]
        assert text[each["document"]][each["answer_start"] : each["answer_end"]] == each["answer"]
    none = gf.ask(None, "mob?", documents=index, reader=table_reader({"fib": 3.0}))
    assert none.answer is None and none.why == NOT_SAID and none.evidence == ()


def test_evidence_that_gives_another_value_about_as_surely_is_in_conflict() -> None:
    texts = {"one": "It was 1503.", "two": "It was 1815.", "three": "It was long ago."}
    places = [(7, 11), (7, 11), (7, 15)]
    evidence = tuple(
        Evidence(one.text, one, 0, len(one.text), score, place)
        for one, score, place in zip(Documents.of_texts(texts), (6.0, 5.0, 4.0), places, strict=True)
    )
    reply = Reply("When?", "1503", "", "1503", evidence=evidence)
    assert {each.document.name for each in reply.disagreeing} == {"two", "three"}
    assert [each.document.name for each in reply.conflict] == ["two"]  # "long ago" is no value
    [other] = json.loads(json.dumps(reply.to_json(), allow_nan=False))["conflict"]
    assert other["answer"] == "1815" and texts[other["document"]][other["start"] : other["end"]] == other["quote"]
    surer = replace(evidence[0], score=15.0)
    assert replace(reply, evidence=(surer, *evidence[1:])).conflict == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"question": "?!"}, "must have at least one word"),
        ({"model": None}, "say which model is asked, or give documents"),
        ({"max_error": 0.1}, "a largest error needs a calibration"),
        ({"write": True}, "an answer is written from documents"),
        ({"model": None, "documents": {"one": "Bab."}, "write": True}, "say which model is to write the answer"),
        ({"documents": {"one": "Bab."}, "max_error": 0.1}, "a risk is of what a model says by itself"),
    ],
)
def test_errors(model: Model, settings: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": model, "question": "Who?", **settings}
    with pytest.raises(InputError, match=message):
        gf.ask(given.pop("model"), given.pop("question"), **given)
