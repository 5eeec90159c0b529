"""Answers with what they are worth, over HTTP: from documents, of a model's own, by a reader; no path is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from serving.api_server import Running, serving
from tasks.small_readers import local_reader, reader, words
from tasks.small_writers import writer

import glassformer as gf
from glassformer.factuality import calibration
from glassformer.factuality.calibration import Asking, Labelled
from glassformer.factuality.documents import read_documents
from glassformer.factuality.questions import Question
from glassformer.factuality.retrieval import Index
from glassformer.models.config import Spans
from glassformer.serving.api.limits import Limits
from glassformer.serving.api.service import Grounds
from glassformer.serving.views import make_view
from glassformer.tasks.model import Model

TEXTS = {"one.txt": "Bab fib gub.", "two.txt": "Bab lab.", "sub/three.txt": "Bab fib. It was 1503."}


def table_reader() -> Model:
    """It finds "fib" anywhere, "lab" where there is none."""
    tokenizer = words()
    table = torch.full((tokenizer.vocab_size, 2), -2.5)
    for word, score in {"fib": 3.0, "lab": 2.0}.items():
        table[tokenizer.encode(word)[0]] = score / 2
    table[tokenizer.cls_id] = 0.0
    return local_reader(table, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("secret-place") / "papers"
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def calibrated(model: Model) -> calibration.Calibration:
    random = np.random.default_rng(0)
    entropies = random.uniform(0, 6, 600)
    wrong = random.random(600) < np.where(entropies < 2, 0.01, 0.9)
    questions = [Question(f"q{i}", f"What is {i}?", ("x",), entity=f"E{i}") for i in range(600)]
    labelled = Labelled(questions, {"mean entropy": entropies.tolist()}, wrong.tolist())
    return calibration.fit(labelled, "tiny", calibration.identity(model), Asking("bare", max_new_tokens=4))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    model = writer(positions=600)
    index = Index(read_documents(folder).told_by([folder]))
    grounds = Grounds(index, table_reader(), calibrated(model), "writer")
    served = {"writer": model, "other": writer(positions=500), "reader": reader(Spans(0.0))}
    with serving(served, Limits(new_tokens=64), grounds) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    with running.client() as one:
        yield one


def asked(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/ask", json=body)
    assert answer.status_code == 200, answer.text
    assert "secret-place" not in answer.text and "papers" not in answer.text
    return dict(answer.json())


def test_documents_answer_and_tell_their_names_only(running: Running, client: httpx.Client, folder: Path) -> None:
    grounds = running.service.grounds
    found = asked(client, question="bab?")  # grounded as soon as there are documents
    wanted = gf.ask(None, "bab?", documents=grounds.documents, reader=grounds.reader)
    assert found == {"object": "answer", "model": "writer", **wanted.to_json()}
    assert found["answer"] == "fib" and found["disagreeing"] == 1
    for each in found["evidence"]:
        text = TEXTS[each["document"]]
        assert text[each["start"] : each["end"]] == each["quote"]
        assert text[each["answer_start"] : each["answer_end"]] == each["answer"]
    assert {each["document"] for each in found["evidence"]} >= {"one.txt", "two.txt"}
    assert asked(client, question="mob?")["answer"] is None
    assert asked(client, question="bab?", model="reader")["answer"] == "fib"  # the model is not needed


def test_an_answer_is_written_from_documents(running: Running, client: httpx.Client) -> None:
    grounds, model = running.service.grounds, running.service.models["writer"]
    found = asked(client, question="bab?", write=True, max_tokens=5)
    settings: Any = {"documents": grounds.documents, "reader": grounds.reader, "max_new_tokens": 5}
    wanted = gf.ask(model, "bab?", write=True, **settings).to_json()
    assert found["written"] and found["draft"] == wanted["draft"] and found["why"] == wanted["why"]
    assert 0 < len(found["tokens"]) <= 5


def test_a_model_s_own_answer_has_the_risk_of_its_calibration(running: Running, client: httpx.Client) -> None:
    grounds, model = running.service.grounds, running.service.models["writer"]
    found = asked(client, question="Who is it?", grounded=False)
    wanted = gf.ask(model, "Who is it?", risk=grounds.risk)
    assert found["draft"] == wanted.draft and found["risk"] == pytest.approx(wanted.risk) and len(found["tokens"]) <= 4
    strict = asked(client, question="Who is it?", grounded=False, max_error=0.001)
    assert strict["answer"] is None and strict["why"] and strict["draft"] == wanted.draft
    other = asked(client, question="Who is it?", grounded=False, model="other", max_tokens=3)
    assert other["risk"] is None and len(other["tokens"]) <= 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_error": 0.1}, "max_error"),
        ({"max_error": 0.1, "grounded": False, "model": "other"}, "max_error"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_tokens": 5, "grounded": False}, "max_tokens"),
        ({"max_tokens": 65, "write": True}, "max_tokens"),
        ({"write": True, "grounded": False}, "write"),
        ({"write": True, "model": "reader"}, "model"),
        ({"grounded": False, "model": "reader"}, "model"),
    ],
)
def test_what_could_not_be_kept_is_refused(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/ask", json={"question": "bab?", **body})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text


def test_a_document_that_changed_does_not_tell_where_it_lies(folder: Path, tmp_path: Path) -> None:
    from glassformer.errors import InputError

    path = tmp_path / "secret-place" / "a.txt"
    path.parent.mkdir()
    path.write_text("Bab.", encoding="utf-8")
    for change in (lambda: path.write_text("Bub.", encoding="utf-8"), path.unlink):
        [document] = read_documents(path.parent, kept=1).told_by([path.parent])
        document._texts._texts.clear()
        change()
        with pytest.raises(InputError, match=r"^a\.txt") as caught:
            _ = document.text
        assert "secret-place" not in str(caught.value)


def test_documents_of_several_places_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("x/docs/a", "x/docs/b", "y/docs/a", "y/one", "docs/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
    given = [tmp_path / name for name in ("x/docs", "y/docs", "y/one", "docs")]
    found = read_documents(given).told_by(given)
    assert {each.name: each.text for each in found} == {
        "docs/a": "text of x/docs/a",
        "docs/b": "text of x/docs/b",
        "2-docs/a": "text of y/docs/a",
        "one": "text of y/one",
        "4-docs/a": "text of docs/a",
    }
    assert [each.document.name for each in found.passages] == [each.name for each in found]
    [alone] = read_documents(given[2]).told_by([given[2]])
    assert alone.name == "one"


def test_a_reader_answers(running: Running, client: httpx.Client) -> None:
    model = running.service.models["reader"]
    body = {"model": "reader", "question": "bab?", "context": "Bab lab gub."}
    for context in ("Bab lab gub.", "Mob.", "Fib fab dub. " * 30):
        found = client.post("/v1/answer", json={**body, "context": context}).json()
        wanted = asdict(model.answer("bab?", context))
        assert found["model"] == "reader" and found["object"] == "list"
        assert found["data"] == [{"index": 0, **wanted, "score": pytest.approx(wanted["score"], abs=1e-5)}]
    for wrong in ({"question": ""}, {"context": ""}, {"context": None}, {"model": "writer"}):
        assert client.post("/v1/answer", json={**body, **wrong}).status_code == 400


def test_the_view_of_truth_is_checked_by_the_server_s_reader(
    running: Running, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Model:
        raise AssertionError("a request loads no model")

    monkeypatch.setattr("glassformer.tasks.model.load", load)
    grounds, model = running.service.grounds, running.service.models["writer"]
    body = {"model": "writer", "view": "truth", "text": "bab?", "target": "It was 1503."}
    answer = client.post("/v1/trace", json=body)
    options = {"documents": grounds.documents, "risk": grounds.risk, "reader": grounds.reader}
    assert answer.json() == make_view(model, "truth", "bab?", target=body["target"], name="writer", options=options)
    assert answer.json()["spans"] and "papers" not in answer.text
