"""The view "truth": tokens as the model gave them, verdicts as `verify` gives them, and both in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from serving.harness import chromium, exported, opened_table, panel
from serving.small_views import SOURCES, predecessor, reader, translator, writer
from tasks.small_readers import local_reader, words

import glassformer as gf
from glassformer.errors import InputError
from glassformer.factuality import calibration
from glassformer.factuality.calibration import Asking, Calibration, Labelled
from glassformer.factuality.documents import Documents
from glassformer.factuality.questions import Question
from glassformer.factuality.records import record
from glassformer.models.config import MaskedLM, RecurrentConfig
from glassformer.serving.readings import reading
from glassformer.serving.truth import VERDICTS, _short_names, truth_document
from glassformer.tasks.model import Model

QUESTION = "Who is it?"
LOUVRE = "The Mona Lisa was painted between 1503 and 1519, and has hung in the Louvre in Paris since 1797."
STATEMENT = "The Mona Lisa was painted in 1503. It hangs in Berlin."


@pytest.fixture(scope="module")
def model() -> Model:
    return writer(positions=160)


@pytest.fixture(scope="module")
def plain() -> Model:
    """One that goes on from a text, and does not converse."""
    return writer(template="", positions=160)


@pytest.fixture(scope="module")
def index() -> Any:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    from glassformer.factuality.retrieval import Index

    return Index(Documents.of_texts({"louvre.txt": LOUVRE, "other.txt": "Berlin is a city. So is Rome."}))


def dull() -> Model:
    """A reader to which every word is worth the same."""
    return local_reader(torch.zeros(words().vocab_size, 2))


def joined(document: dict[str, Any]) -> str:
    return "".join(token["text"] for token in document["tokens"])


def spectrum(model: Model, prompt: list[int], answer: list[int]) -> Any:
    """Probabilities and entropies of an answer's ids, by one bare pass."""
    with torch.no_grad():
        probabilities = model.network(torch.tensor([prompt + answer])).logits[0].double().softmax(-1)
    rows = probabilities[len(prompt) - 1 : -1]
    own = [float(row[i]) for row, i in zip(rows, answer, strict=True)]
    return own, (-(rows * rows.log()).sum(-1)).tolist()


# --- Documents --------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_tokens_that_ask_gives(model: Model) -> None:
    document, reply = truth_document(model, QUESTION), gf.ask(model, QUESTION, max_new_tokens=48)
    assert joined(document) == document["statement"] and document["statement"].strip() == reply.draft
    found = [(one["text"], one["probability"], one["entropy"]) for one in document["tokens"]]
    assert found == [(one.text, round(one.probability, 4), round(one.entropy, 4)) for one in reply.tokens]
    assert (document["asked"], document["begins"], document["risk"]) == (QUESTION, 0, None)
    assert "calibration" in document["risk_says"] and "no documents" in document["checked"]


def test_a_text_that_goes_on(plain: Model) -> None:
    document = truth_document(plain, "a dog in 1503 and")
    assert document["asked"] == "" and document["begins"] == len("a dog in 1503 and")
    assert document["statement"] == "a dog in 1503 and" + joined(document)
    (one,) = record(plain, ["a dog in 1503 and"], max_new_tokens=48, stop="\n")
    np.testing.assert_allclose(
        [each["probability"] for each in document["tokens"]][:5], np.exp(one.logprobs[:5]), atol=6e-5
    )
    year = next(span for span in document["spans"] if span["text"] == "1503")
    assert (year["start"], year["end"], year["verdict"], year["says"]) == (9, 13, "not checked", "not checked")


def test_an_answer_that_is_given_is_judged_by_the_model(plain: Model) -> None:
    document = truth_document(plain, "a dog is", " in blue")
    assert document["statement"] == "a dog is in blue" and joined(document) == " in blue"
    prompt, answer = plain.tokenizer.encode("a dog is"), plain.tokenizer.encode(" in blue")
    own, entropies = spectrum(plain, prompt, answer)
    np.testing.assert_allclose([one["probability"] for one in document["tokens"]], own, atol=1e-4)
    np.testing.assert_allclose([one["entropy"] for one in document["tokens"]], entropies, atol=1e-3)
    assert truth_document(plain, "a dog is", "in blue") == document  # the space is added


def test_a_calibration_gives_a_risk(model: Model) -> None:
    random = np.random.default_rng(0)
    entropies = random.uniform(0, 6, 600)
    wrong = random.random(600) < np.where(entropies < 2, 0.01, 0.9)
    questions = [Question(f"q{i}", f"What is {i}?", ("x",), entity=f"E{i}") for i in range(600)]
    labelled = Labelled(questions, {"mean entropy": entropies.tolist()}, wrong.tolist())
    risk: Calibration = calibration.fit(labelled, "tiny", calibration.identity(model), Asking("bare", max_new_tokens=4))
    document, reply = truth_document(model, QUESTION, risk=risk), gf.ask(model, QUESTION, risk=risk)
    assert reply.risk is not None and document["risk"] == round(reply.risk, 4)
    assert f"{100 * reply.risk:.0f} % are wrong" in document["risk_says"]
    given = truth_document(model, QUESTION, reply.draft, risk=risk)
    assert given["risk"] is not None and given["whose"].startswith("the answer that was given")
    with pytest.raises(InputError, match="decoder"):
        truth_document(translator(), SOURCES[0], risk=risk)


def test_verdicts_are_those_of_verify(plain: Model, index: Any) -> None:
    text, answer = "The Mona Lisa was painted", " in 1503. It hangs in Berlin."
    document = truth_document(plain, text, answer, documents=index, reader=dull())
    assert document["statement"] == STATEMENT and document["checked"] == "Checked against 2 documents."
    result = gf.verify(STATEMENT, index, reader=dull())
    found = sorted([*document["spans"], *document["sentences"]], key=lambda one: (one["start"], one["end"]))
    wanted = sorted(result.claims, key=lambda one: (one.start, one.end))
    assert [(one["text"], one["verdict"], one["found"]) for one in found] == [
        (one.text, one.verdict, one.found) for one in wanted
    ]
    assert {one["text"] for one in document["spans"]} >= {"1503", "Berlin"}
    for one in found:
        assert STATEMENT[one["start"] : one["end"]] == one["text"] and one["says"].startswith(VERDICTS[one["verdict"]])
        for quote in one["evidence"]:
            source = {each.name: each.text for each in [passage.document for passage in index.passages]}
            assert source[quote["document"]][quote["start"] : quote["end"]] == quote["quote"]
            if quote["answer"]:
                assert quote["quote"][slice(*quote["answer"])]


def test_an_answer_is_checked_as_an_answer(model: Model, index: Any) -> None:
    document = truth_document(model, "When was the Mona Lisa painted?", "In 1503.", documents=index, reader=dull())
    assert [(span["text"], span["start"]) for span in document["spans"]] == [("1503", 3)]
    assert document["statement"] == "In 1503." and document["sentences"] == []


def test_a_page_does_not_tell_where_documents_lie(model: Model) -> None:
    pytest.importorskip("bm25s", reason="the extra 'ground' is not installed")
    from glassformer.factuality.retrieval import Index

    for folder, wanted in (("/home/me/art/", "a/louvre.txt"), ("art/", "a/louvre.txt"), ("", "a/louvre.txt")):
        texts = {f"{folder}a/louvre.txt": LOUVRE, f"{folder}b.txt": "Rome is a city."}
        asked = ("When was the Mona Lisa painted?", "In 1503.")
        document = truth_document(model, *asked, documents=Index(Documents.of_texts(texts)), reader=dull())
        assert {quote["document"] for span in document["spans"] for quote in span["evidence"]} == {wanted}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["/home/me/a/x.txt", "/srv/b/y.txt"], ["x.txt", "y.txt"]),
        (["/home/me/a/x.txt", "/srv/b/x.txt"], ["a/x.txt", "b/x.txt"]),
        (["/home/me/a/x.txt", "notes/x.txt"], ["a/x.txt", "notes/x.txt"]),
        (["/x.txt"], ["x.txt"]),
    ],
)
def test_names_with_nothing_in_common_are_their_ends(names: list[str], wanted: list[str]) -> None:
    assert [_short_names(set(names))[name] for name in names] == wanted


def test_an_encoder_has_documents_or_nothing(index: Any) -> None:
    model = reader(MaskedLM())
    assert "no documents" in truth_document(model, "the dog")["missing"]
    document = truth_document(model, "the dog 1503", documents=index, reader=dull())
    assert document["tokens"] == [] and document["statement"] == "the dog 1503"
    assert [span["text"] for span in document["spans"]] == ["1503"]


@pytest.mark.parametrize("make", [translator, lambda: predecessor(RecurrentConfig(30, None, 16))], ids=["new", "old"])
def test_a_translation(make: Any) -> None:
    model = make()
    document = truth_document(model, SOURCES[0], "the dog runs")
    given = reading(model, SOURCES[0], "the dog runs")
    with torch.no_grad():
        logits = model.network(torch.tensor([given.ids]), torch.tensor([given.read])).logits[0].double()
    rows = logits.softmax(-1)
    own = [float(row[i]) for row, i in zip(rows, given.written, strict=True)]
    np.testing.assert_allclose([one["probability"] for one in document["tokens"]], own, atol=6e-5)
    entropies = (-(rows * rows.log()).sum(-1)).tolist()
    np.testing.assert_allclose([one["entropy"] for one in document["tokens"]], entropies, atol=1e-4)
    assert document["statement"].split() == ["the", "dog", "runs", "</s>"]
    assert document["spans"] == [] and "translation" in document["checked"]


def test_it_is_json(plain: Model, index: Any) -> None:
    document = truth_document(plain, "The Louvre is", " in Rome \N{GRINNING FACE} 1503", documents=index, reader=dull())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    for span in document["spans"]:
        assert document["statement"][span["start"] : span["end"]] == span["text"]


# --- In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def example() -> dict[str, Any]:
    """A document with every level and every verdict, and a character of two code units before all of them."""
    statement = "\N{GRINNING FACE} Raphael painted it in 1503, in Rome, for 12 ducats."
    quote = {"quote": LOUVRE, "document": "louvre.txt", "start": 10, "end": 10 + len(LOUVRE)}

    def span(text: str, verdict: str, evidence: list[Any], found: str | None = None) -> dict[str, Any]:
        start = statement.index(text)
        says = VERDICTS[verdict] + (f": {found}" if found else "")
        place = {"text": text, "start": start, "end": start + len(text), "kind": "name", "verdict": verdict}
        return place | {"says": says, "found": found, "evidence": evidence}

    at = LOUVRE.index("1503")
    spans = [
        span("Raphael", "contradicted", [{**quote, "answer": None}], "Leonardo"),
        span("1503", "supported", [{**quote, "answer": [at, at + 4]}]),
        span("Rome", "not found", []),
        span("12", "not checked", []),
    ]
    pieces = [" Raphael", " painted it in", " 15", "03,", " in Rome, for 12 ducats."]
    shares = [0.001, 0.1, 0.9, 0.3, 0.5]
    tokens = [{"text": text, "probability": p, "entropy": 1.25} for text, p in zip(pieces, shares, strict=True)]
    return {
        "view": "truth", "version": 1, "model": "", "family": "decoder", "shape": "", "text": "Who?", "asked": "Who?",
        "statement": statement, "whose": "the model’s own answer", "begins": 1, "tokens": tokens, "risk": 0.25,
        "levels": [{"least": 0.5, "name": "sure"}, {"least": 0.2, "name": "less sure"},
                   {"least": 0.05, "name": "unsure"}, {"least": 0.0, "name": "very unsure"}],
        "risk_says": "Of answers like this 25 % are wrong.", "checked": "Checked against 2 documents.",
        "spans": spans, "sentences": [], "verdicts": VERDICTS,
    }  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_level_and_verdict_in_a_browser(browser: Any, width: int, dark: bool) -> None:
    document = example()
    with panel(browser, "truth", document, width=width, dark=dark) as page:
        box = page.locator(".statement")
        signs = page.locator(".statement sup").all_text_contents()
        assert signs == ["✗", "✓", "?", "–"]  # readable without colour
        shown = box.evaluate("box => [...box.childNodes].map((each) => each.firstChild.textContent).join('')")
        assert shown == document["statement"]
        for token, level in zip(document["tokens"], (3, 2, 0, 1, 0), strict=True):
            place = document["tokens"].index(token)
            own = page.locator(f'.statement [data-token="{place}"]')
            assert "".join(own.evaluate_all("all => all.map((each) => each.firstChild.textContent)")) == token["text"]
            assert all(
                f"level-{level}" in each for each in own.evaluate_all("all => all.map((each) => each.className)")
            )
        style = "all => all.map((each) => getComputedStyle(each).borderBottomStyle)"
        assert page.locator(".legend [class*=level-]").evaluate_all(style) == ["none", "dotted", "dashed", "double"]
        box.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert "“painted it in”: probability 10 % (unsure), entropy 1.25" in page.locator(".said").text_content()
        rows = opened_table(page, "truth")[1:]
        assert [(row[0], float(row[1]), float(row[2])) for row in rows] == [
            (token["text"], token["probability"], token["entropy"]) for token in document["tokens"]
        ]
        assert rows[0][4] == "the documents say something else: Leonardo"
        assert "25 %" in page.locator(".risk").text_content()


@pytest.mark.browser
def test_evidence_by_pointer_and_keyboard(browser: Any, tmp_path: Path) -> None:
    with panel(browser, "truth", example()) as page:
        evidence = page.locator(".evidence")
        page.locator('.statement [data-mark="1"]').first.click()
        assert evidence.locator("mark").text_content() == "1503"
        assert evidence.locator("blockquote").text_content() == LOUVRE
        assert evidence.locator("cite").text_content() == f"louvre.txt, characters 10–{10 + len(LOUVRE)}"
        page.locator('[data-button="2"]').focus()
        page.keyboard.press("Enter")
        assert "No evidence found" in evidence.text_content()
        assert page.locator('[data-button="2"]').get_attribute("aria-pressed") == "true"
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert "not checked" in evidence.text_content() and "not looked up" in evidence.text_content()
        page.locator('[data-button="0"]').click()
        assert "something else: Leonardo" in evidence.locator("h3").text_content()
        svg = ElementTree.fromstring(exported(page, "truth", "SVG", tmp_path))
        told = "".join(each.text or "" for each in svg.iter() if each.get("font-family") == "monospace")
        assert told == example()["statement"]
        assert json.loads(exported(page, "truth", "JSON", tmp_path)) == example()


@pytest.mark.browser
def test_a_real_document_without_documents(browser: Any, plain: Model) -> None:
    document = truth_document(plain, "a dog in 1503 and")
    with panel(browser, "truth", document) as page:
        assert page.locator(".checked").text_content() == document["checked"]
        assert page.locator(".statement .given").first.text_content() == "a dog in "
        assert "1503: not checked" in page.locator('[data-button="0"]').text_content()
