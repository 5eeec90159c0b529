"""The page as a server gives it out: a form, documents that are asked for, progress, stopping, two models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from serving.browser import Served, cells, chromium, opened, until
from serving.small_views import WRITER_TEXTS, reader, writer

from glassformer.models.config import MaskedLM
from glassformer.serving.views import VIEWS, make_view
from glassformer.tasks.model import Model

pytestmark = pytest.mark.browser
Tell, Stop = Callable[[float], None], Callable[[], bool]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def model() -> Model:
    return writer()


def made(model: Model, body: dict[str, Any], tell: Tell | None = None, stopped: Stop | None = None) -> dict[str, Any]:
    asked = {name: body.get(name) for name in ("target", "patch_from", "options")}
    return make_view(model, body["view"], body["text"], name=body["model"], on_progress=tell, stopped=stopped, **asked)


def ask(page: Any, text: str, patch_from: str = "") -> None:
    page.get_by_label("Text", exact=True).fill(text)
    if patch_from:
        page.get_by_label("patch from").fill(patch_from)
    page.get_by_role("button", name="Look inside").click()


def test_views_are_asked_for_as_they_are_opened(browser: Any, model: Model) -> None:
    served = Served(lambda body, *work: made(model, body, *work), ["tiny"])
    with served.running() as address, opened(browser, address) as page:
        ask(page, *WRITER_TEXTS)
        page.locator('[data-name="attention-matrix"]').wait_for()
        page.locator("#row .token").first.wait_for()
        assert sorted(body["view"] for body in served.bodies) == ["attention", "tokens"]
        attention = make_view(model, "attention", WRITER_TEXTS[0])
        heads = attention["maps"][0]["patterns"][-1]
        found = cells(page.locator('[data-name="attention-matrix"]'))
        for key in range(len(heads[0][-1])):
            mean = sum(head[-1][key] for head in heads) / len(heads)
            assert found[len(heads[0]) - 1, key]["share"] == pytest.approx(mean, abs=1e-6)
        for view in (each for each in VIEWS if each not in ("tokens", "attention")):
            page.locator(f"#tab-{view}").click()
            page.locator(f"#panel-{view} > .note .link").wait_for()
        assert [body["view"] for body in served.bodies][2:] == [v for v in VIEWS if v not in ("tokens", "attention")]
        page.locator("#tab-lens").click()
        assert len(served.bodies) == len(VIEWS)  # what was drawn is kept


def test_progress_and_stop(browser: Any, model: Model) -> None:
    go_on, was_stopped = threading.Event(), threading.Event()

    def slow(body: dict[str, Any], tell: Tell, stopped: Stop) -> dict[str, Any]:
        if body["view"] == "patching" and not go_on.is_set():
            tell(0.25)
            while not stopped():
                go_on.wait(0.02)
            was_stopped.set()
        return made(model, body, tell)

    served = Served(slow, ["tiny"])
    with served.running() as address, opened(browser, address) as page:
        ask(page, *WRITER_TEXTS)
        page.locator("#tab-patching").click()
        bar = page.locator("#panel-patching progress")
        until(page, "document.querySelector('#panel-patching progress')?.value > 0")
        assert bar.get_attribute("aria-label") == "Patching: how much is done"
        page.locator("#panel-patching").get_by_role("button", name="Stop").click()
        page.locator("#panel-patching", has_text="Stopped.").wait_for()
        assert was_stopped.wait(30)
        go_on.set()
        page.get_by_role("button", name="Try again").click()
        page.locator('[data-name="patching-residual"]').wait_for()


def test_errors_are_in_words(browser: Any, model: Model) -> None:
    served = Served(lambda body, *work: made(model, body, *work), ["tiny"])
    with served.running() as address, opened(browser, address) as page:
        ask(page, "a dog", "a very long text of many tokens")
        page.locator("#tab-patching").click()
        page.locator("#panel-patching", has_text="only texts of equal length can be patched").wait_for()
        page.locator("#tab-attention").click()
        ask(page, "a " * 60)
        page.locator("#panel-attention", has_text="48").wait_for()
        assert page.locator("#problem").is_hidden()


def test_two_models(browser: Any, model: Model) -> None:
    both = {"one": model, "two": writer()}
    with torch.no_grad():
        for weights in both["two"].network.parameters():
            weights.mul_(0.5)
    served = Served(lambda body, *work: made(both[body["model"]], body, *work), list(both))
    with served.running() as address, opened(browser, address, width=390) as page:
        page.get_by_label("compare with").select_option("two")
        ask(page, WRITER_TEXTS[0])
        page.locator("#tab-lens").click()
        sides = page.locator('#panel-lens .side [data-name="lens"]')
        sides.nth(1).wait_for()
        for side, each in enumerate(both.values()):
            lens = make_view(each, "lens", WRITER_TEXTS[0])
            assert cells(sides.nth(side))[1, 0]["share"] == pytest.approx(lens["probabilities"][1][0][0])


@pytest.mark.parametrize("late", ["writer", "reader"])
def test_the_token_to_begin_with_does_not_depend_on_who_answers_first(browser: Any, late: str) -> None:
    both, text = {"writer": writer(), "reader": reader(MaskedLM())}, "a man rides"
    lengths = {name: len(make_view(each, "attention", text)["maps"][0]["keys"]) for name, each in both.items()}
    assert lengths["writer"] != lengths["reader"]
    drawn = threading.Event()

    def answer(body: dict[str, Any], *work: Any) -> dict[str, Any]:
        if body["model"] == late:
            assert drawn.wait(30)
        return made(both[body["model"]], body, *work)

    with Served(answer, list(both)).running() as address, opened(browser, address) as page:
        page.get_by_label("compare with").select_option("reader")
        ask(page, text)
        sides = page.locator("#panel-attention .side")
        first = [name for name in both if name != late][0]
        sides.nth(list(both).index(first)).locator('[data-name="attention-matrix"]').wait_for()
        drawn.set()
        sides.nth(list(both).index(late)).locator('[data-name="attention-matrix"]').wait_for()
        for side, length in zip(sides.all(), lengths.values(), strict=True):
            row = side.locator('[data-name="attention-matrix"] td[aria-selected]').get_attribute("data-row")
            assert row == str(length - 1)
        assert "at=" not in page.url  # nobody has chosen it


def test_a_server_that_wants_a_key(browser: Any, model: Model) -> None:
    served = Served(lambda body, *work: made(model, body, *work), ["tiny"], key="secret")
    with served.running() as address, opened(browser, address, refusals=True) as page:
        page.get_by_label("The server's key").fill("secret")
        page.get_by_role("button", name="Use this key").click()
        ask(page, WRITER_TEXTS[0])
        page.locator('[data-name="attention-matrix"]').wait_for()
        assert page.locator("#problem").is_hidden()
