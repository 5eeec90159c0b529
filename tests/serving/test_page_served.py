"""The page before the real server: every view of every family, long work, documents, a key, two models, links."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import torch
from serving.api_server import Running, serving
from serving.browser import cells, chromium, exported, opened, plain_table, until
from serving.small_views import SOURCES, WRITER_TEXTS, predecessor, reader, translator, writer
from tasks.small_readers import local_reader, words

from glassformer.factuality.asking import index_of
from glassformer.models.config import MaskedLM
from glassformer.models.convolutional import ConvolutionalConfig
from glassformer.models.recurrent import RecurrentConfig
from glassformer.serving import patches
from glassformer.serving.api.service import Grounds
from glassformer.serving.views import VIEWS, make_view
from glassformer.tasks.model import Model

pytestmark = pytest.mark.browser
TABS = [view for view in VIEWS if view != "tokens"]
CLAIMS = "the dog 1503 on road 1815"
DOCUMENTS = {"dogs.txt": "The dog ran on the road in 1503."}
Document = dict[str, Any]
BARE = """panel => [...panel.querySelectorAll("svg, canvas, [role=grid]")].filter(
    (picture) => !picture.closest("figure.frame")?.querySelector(".bar-of-tools")
).length"""
"""How many pictures have no table and no ways to keep them beside them."""

TEXTS = {
    "decoder": WRITER_TEXTS,
    "bert": ("the [MASK] runs", "a [MASK] runs"),
    "translator": SOURCES,
    "lstm": SOURCES,
    "convs2s": SOURCES,
}


def models() -> dict[str, Model]:
    small = {"d_model": 16, "max_length": 24}
    return {
        "decoder": writer(),
        "bert": reader(MaskedLM()),
        "translator": translator(),
        "lstm": predecessor(RecurrentConfig(60, tie_head=False, **small)),
        "convs2s": predecessor(ConvolutionalConfig(60, n_decoder_layers=2, tie_head=False, **small)),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def grounds() -> Grounds:
    """Documents, and a reader to which every word is worth the same."""
    return Grounds(index_of(DOCUMENTS), local_reader(torch.zeros(words().vocab_size, 2)))


@pytest.fixture(scope="module")
def server(grounds: Grounds) -> Iterator[Running]:
    with serving(models(), grounds=grounds) as running:
        yield running


def ask(page: Any, model: str, text: str, patch_from: str = "", other: str = "") -> None:
    page.get_by_label("Model").select_option(model)
    page.get_by_label("compare with").select_option(other)
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_label("patch from").fill(patch_from)
    page.get_by_role("button", name="Look inside").click()


def shown(page: Any, view: str) -> Any:
    """The panel of a view, when it is drawn."""
    page.locator(f"#tab-{view}").click()
    panel = page.locator(f"#panel-{view}")
    panel.locator("figure.frame, .missing").first.wait_for()
    return panel


# --- Each view's numbers, as the Python API gives them ----------------------------------------------------------------


def check_row(row: Any, document: Document) -> None:
    rows = plain_table(row.locator("figure"))[1:]
    columns = zip(*(document[name] for name in ("probabilities", "ranks", "surprisals")), strict=True)
    found = [[None if cell == "–" else float(cell) for cell in line[2:5]] for line in rows]
    assert found == [list(numbers) for numbers in columns]


def check_attention(panel: Any, document: Document) -> None:
    only = next((one for one in document["maps"] if one["cross"]), document["maps"][0])
    heads = only["patterns"][-1]
    grid = cells(panel.locator('[data-name="attention-matrix"]'))
    assert len(grid) == len(only["queries"]) * len(only["keys"])
    for (query, key), cell in grid.items():
        shares = [head[query][key] if key < len(head[query]) else 0.0 for head in heads]
        assert cell["share"] == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    chosen = panel.locator('[data-name="attention-arcs"] .chosen').count()
    last = [sum(head[-1][key] if key < len(head[-1]) else 0.0 for head in heads) for key in range(len(only["keys"]))]
    assert chosen == sum(share / len(heads) >= 0.04 for share in last)  # arcs or, of a source, lines


def check_positions(panel: Any, document: Document) -> None:
    figures = [each for each in panel.locator("figure").all() if "similarity" not in each.get_attribute("data-name")]
    for figure, part in zip(figures, document["parts"], strict=True):
        assert [[float(cell) for cell in row[1:]] for row in plain_table(figure)[1:]] == part["values"]


def check_lens(panel: Any, document: Document) -> None:
    grid = cells(panel.locator('[data-name="lens"]'))
    assert len(grid) == len(document["sites"]) * len(document["tokens"])
    for (row, column), cell in grid.items():
        assert cell["share"] == pytest.approx(document["probabilities"][row][column][0])
    ranks = plain_table(panel.locator('[data-name="lens-ranks"]'))[1:]
    assert [int(rank) for _, rank in ranks] == [row[-1] for row in document["ranks"]]


def check_patching(panel: Any, document: Document) -> None:
    for (row, column), cell in cells(panel.locator('[data-name="patching-residual"]')).items():
        effect = document["effects"][row][column]
        assert int(cell["text"].replace("−", "-")) == pytest.approx(100 * effect, abs=0.51)
    assert document["metric"] in panel.locator("dd").nth(2).inner_text()


def check_truth(panel: Any, document: Document) -> None:
    rows = plain_table(panel.locator('[data-name="truth"]'))[1:]
    wanted = [[token["probability"], token["entropy"]] for token in document["tokens"]]
    assert [[float(cell) for cell in row[1:3]] for row in rows] == wanted
    assert panel.locator(".checked").inner_text() == document["checked"]


def check_walk(panel: Any, document: Document) -> None:
    walk = document["walks"][0]
    row = [*walk["pattern"][-1], *[0.0] * len(walk["keys"])][: len(walk["keys"])]
    wanted = [share for share, score in zip(row, walk["scores"][-1], strict=True) if score is not None]
    found = [cells[2] for cells in plain_table(panel.locator('[data-name="walk-4"]'))[1:]]
    assert [float(cell) for cell in found if cell != "may not be looked at"] == wanted
    assert panel.locator("figure").count() == (6 if "joined" in walk else 5)


CHECKS: dict[str, Callable[[Any, Document], None]] = {
    "attention": check_attention,
    "positions": check_positions,
    "lens": check_lens,
    "patching": check_patching,
    "truth": check_truth,
    "walk": check_walk,
}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("family", TEXTS)
def test_every_view_of_every_family(browser: Any, server: Running, family: str, width: int) -> None:
    text, other = TEXTS[family]
    model, grounds = server.service.models[family], server.service.grounds
    options = {"truth": {"documents": grounds.documents, "risk": None, "reader": grounds.reader}}
    with opened(browser, server.url + "/", width=width, dark=width == 390) as page:
        ask(page, family, text, other)
        page.locator("#row .token").first.wait_for()
        check_row(page.locator("#row"), make_view(model, "tokens", text))
        for view in TABS:
            panel = shown(page, view)
            document = make_view(model, view, text, patch_from=other, options=options.get(view))
            if "missing" in document:
                assert document["missing"] in panel.inner_text()
            else:
                CHECKS[view](panel, document)
            assert panel.evaluate(BARE) == 0, view
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, view
        assert page.locator("#problem").is_hidden()


# --- Documents, long work, mistakes, a key ----------------------------------------------------------------------------


def test_truth_with_documents(browser: Any, server: Running, grounds: Grounds) -> None:
    options = {"documents": grounds.documents, "risk": None, "reader": grounds.reader}
    document = make_view(server.service.models["bert"], "truth", CLAIMS, options=options)
    assert [span["verdict"] for span in document["spans"]] == ["supported", "not found"]
    with opened(browser, server.url + "/") as page:
        ask(page, "bert", CLAIMS)
        panel = shown(page, "truth")
        assert panel.locator(".checked").inner_text() == "Checked against 1 document."
        panel.locator('.statement [data-mark="0"]').first.click()
        (evidence,) = document["spans"][0]["evidence"]
        assert panel.locator(".evidence blockquote").inner_text() == evidence["quote"]
        assert "dogs.txt" in panel.locator(".evidence cite").inner_text()
        panel.locator('.statement [data-mark="1"]').first.click()
        assert "No evidence found" in panel.locator(".evidence").inner_text()


def test_patching_shows_how_far_it_is_and_can_be_stopped(
    browser: Any, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, was_stopped = threading.Event(), threading.Event(), threading.Event()
    real = patches.sweep

    def slow(*arguments: Any, **settings: Any) -> Any:
        metric = settings["metric"]
        while not go_on.is_set():
            at_work.set()
            try:
                metric.progress.at(0.25)
            except Exception:
                was_stopped.set()
                raise
            go_on.wait(0.02)
        return real(*arguments, **settings)

    monkeypatch.setattr(patches, "sweep", slow)
    with opened(browser, server.url + "/") as page:
        ask(page, "decoder", *WRITER_TEXTS)
        page.locator("#tab-patching").click()
        until(page, "document.querySelector('#panel-patching progress')?.value === 0.25")
        assert at_work.is_set()
        page.locator("#panel-patching").get_by_role("button", name="Stop").click()
        page.locator("#panel-patching", has_text="Stopped.").wait_for()
        assert was_stopped.wait(60)  # the server's thread has left the work
        go_on.set()
        page.get_by_role("button", name="Try again").click()
        page.locator('[data-name="patching-residual"]').wait_for()


def test_a_mistake_is_told_where_its_picture_would_be(browser: Any, server: Running) -> None:
    with opened(browser, server.url + "/", refusals=True) as page:
        ask(page, "decoder", "a " * 60)
        for place in ("#panel-attention", "#row"):
            page.locator(place, has_text="give a shorter part of it").wait_for()
        ask(page, "decoder", "a dog", "a much longer text than that")
        panel = shown(page, "patching")
        assert "only texts of equal length can be patched" in panel.inner_text()
        assert page.locator("#problem").is_hidden()


def test_a_key_is_asked_for_and_used(browser: Any) -> None:
    with serving({"decoder": writer(), "bert": reader(MaskedLM())}, key="secret") as running:
        assert httpx.get(running.url + "/v1/models", trust_env=False).status_code == 401
        with opened(browser, running.url + "/", refusals=True) as page:
            for key, said in (("wrong", "This server wants a key."), ("secret", "That is not the key.")):
                page.locator("#problem", has_text=said).wait_for()
                page.get_by_label("The server's key").fill(key)
                page.get_by_role("button", name="Use this key").click()
            ask(page, "decoder", WRITER_TEXTS[0])
            page.locator('[data-name="attention-matrix"]').wait_for()
            assert page.locator("#problem").is_hidden()
            page.locator("#panel-attention .call summary").click()
            page.locator("#panel-attention .call pre", has_text="Bearer $GLASSFORMER_API_KEY").wait_for()
            assert "secret" not in page.content() and "secret" not in page.url


# --- Two models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "two"), [("translator", "lstm"), ("lstm", "convs2s"), ("decoder", "bert")])
def test_two_families_side_by_side(browser: Any, server: Running, one: str, two: str) -> None:
    text = TEXTS[one][0] if one != "decoder" else "a man rides"
    both = [server.service.models[name] for name in (one, two)]
    with opened(browser, server.url + "/", width=390) as page:
        ask(page, one, text, other=two)
        sides = page.locator("#panel-attention .side")
        sides.nth(1).locator('[data-name="attention-matrix"]').wait_for()
        for side, model in zip(sides.all(), both, strict=True):
            check_attention(side, make_view(model, "attention", text))
        page.locator("#tab-lens").click()
        for side, model in zip(page.locator("#panel-lens .side").all(), both, strict=True):
            side.locator("figure, .missing").first.wait_for()
            document = make_view(model, "lens", text)
            if "missing" in document:
                assert document["missing"] in side.inner_text()
            else:
                check_lens(side, document)
                assert (
                    json.loads(exported(page, side.locator('[data-name="lens"]'), "JSON"))["sites"]
                    == (document["sites"])
                )


# --- Links, calls and keys --------------------------------------------------------------------------------------------


def test_a_link_leads_to_the_same(browser: Any, server: Running) -> None:
    with opened(browser, server.url + "/") as page:
        page.get_by_label("Model").select_option("translator")
        page.get_by_label("Text", exact=True).fill(SOURCES[0])
        page.get_by_label("target (of a translator)").fill("the dog runs")
        page.get_by_role("button", name="Look inside").click()
        page.locator('.grid-of-heads td[data-row="0"][data-column="2"]').click()
        page.locator("#row").get_by_role("listbox", name="shaded").locator(".token").nth(1).click()
        walk = shown(page, "walk")
        walk.locator("select").nth(2).select_option("1")
        walk.locator("h2", has_text="head 1").wait_for()
        shown(page, "lens")
        link, said = page.url, page.locator("#row .said").inner_text()
        assert httpx.URL(link).query == b""  # what was written is not sent anywhere
    with opened(browser, link) as page:
        page.locator("#panel-lens td[aria-selected]").wait_for()
        assert page.locator("#panel-lens td[aria-selected]").get_attribute("data-column") == "1"
        page.locator("#row .said", has_text=said).wait_for()
        assert page.get_by_label("target (of a translator)").input_value() == "the dog runs"
        assert shown(page, "attention").locator(".enlarged h2").inner_text() == "Layer 0, head 1"
        shown(page, "walk").locator("h2", has_text="head 1").wait_for()
        ask(page, "decoder", WRITER_TEXTS[0])  # another text is not looked at in the place of the one before
        last = len(make_view(server.service.models["decoder"], "tokens", WRITER_TEXTS[0])["tokens"]) - 1
        page.locator("#row .said", has_text=f"position {last}:").wait_for()
        assert page.get_by_label("target (of a translator)").is_hidden()  # this model writes none


def call_of(panel: Any) -> tuple[str, dict[str, Any]]:
    """The command that asks for what a panel shows: its address, and what it sends."""
    panel.locator(".call summary").click()
    call = panel.locator(".call pre", has_text="curl")  # written when it is opened
    call.wait_for()
    command = shlex.split(call.inner_text().replace("\\\n", " "))
    assert command[:2] == ["curl", "-s"]
    return command[2], json.loads(command[command.index("-d") + 1])


def test_the_call_for_what_is_shown(browser: Any, server: Running) -> None:
    text, model = "a dog's \N{LATIN SMALL LETTER E WITH ACUTE}", server.service.models["decoder"]
    with opened(browser, server.url + "/") as page:
        ask(page, "decoder", text)
        address, body = call_of(shown(page, "lens"))
        assert address == f"{server.url}/v1/trace"
        found = httpx.post(address, json=body, trust_env=False).json()
        assert found == make_view(model, "lens", text, name="decoder")
        walk = shown(page, "walk")
        walk.locator("select").nth(2).select_option("1")
        walk.locator("h2", has_text="head 1").wait_for()
        options = call_of(walk)[1]["options"]
        assert options["head"] == 1 and make_view(model, "walk", text, options=options)["walks"][0]["head"] == 1


def test_what_is_chosen_is_scrolled_to(browser: Any, server: Running) -> None:
    inside = """cell => {
        const [own, box] = [cell.getBoundingClientRect(), cell.closest(".scroll").getBoundingClientRect()];
        return own.left >= box.left && own.right <= box.right + 1 && own.bottom <= box.bottom + 1;
    }"""
    with opened(browser, server.url + "/", width=390) as page:
        ask(page, "decoder", "a dog in blue runs on the road, while")
        panel = shown(page, "lens")
        chosen = panel.locator("td[aria-selected]")
        assert panel.locator(".scroll").first.evaluate("box => box.scrollWidth > box.clientWidth")
        until(page, f"({inside})(document.querySelector('#panel-lens td[aria-selected]'))")
        page.locator("#tab-attention").click()
        page.locator("#row .token").first.click()
        page.locator("#tab-lens").click()
        assert chosen.get_attribute("data-column") == "0" and chosen.evaluate(inside)


def test_a_server_that_is_gone(browser: Any) -> None:
    with serving({"decoder": writer(), "bert": reader(MaskedLM())}) as running:
        stack = ExitStack()
        page = stack.enter_context(opened(browser, running.url + "/", refusals=True))
        page.locator("#text-choice:focus").wait_for()
    with stack:
        ask(page, "decoder", WRITER_TEXTS[0])
        panel = page.locator("#panel-attention", has_text="The server cannot be reached: is it still running?")
        panel.get_by_role("button", name="Try again").wait_for()


def test_the_keyboard_asks_and_steps(browser: Any, server: Running) -> None:
    with opened(browser, server.url + "/") as page:
        page.locator("#text-choice:focus").wait_for()  # the text has the focus from the start
        page.keyboard.type(WRITER_TEXTS[0])
        page.keyboard.press("Enter")
        page.locator('[data-name="attention-matrix"]').wait_for()
        page.locator("#tab-attention").focus()
        page.keyboard.press("3")
        last = len(make_view(server.service.models["decoder"], "tokens", WRITER_TEXTS[0])["tokens"]) - 1
        chosen = page.locator("#panel-lens td[aria-selected]")
        assert chosen.get_attribute("data-column") == str(last)
        page.keyboard.press(",")
        assert chosen.get_attribute("data-column") == str(last - 1)
