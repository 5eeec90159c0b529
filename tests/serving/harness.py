"""One panel of the page in a real Chromium, without the page around it and without a net: for tests of its numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import glassformer.serving

PAGE = Path(glassformer.serving.__file__).parent / "page"
AT = "http://page.test/"
KINDS = {".js": "text/javascript", ".css": "text/css"}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]

HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="style.css"><link rel="stylesheet" href="lessons.css"></head>
<body><main id="panels"><section id="panel"></section></main><script type="module">
import { draw } from "./NAME.js";
import { frame } from "./frame.js";
import { makeSelection } from "./selection.js";
const view = DOCUMENT;
window.selection = makeSelection();
window.asked = [];
const load = ANSWERS.length ? async (options) => { window.asked.push(options); return ANSWERS[0]; } : null;
draw(view, document.getElementById("panel"), { selection: window.selection, frame, load });
document.body.dataset.drawn = "yes";
</script></body></html>"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where Playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def panel(
    browser: Any, name: str, document: dict[str, Any], *, width: int = 1280, dark: bool = False, answer: Any = None
) -> Iterator[Any]:
    """A browser's page with one panel; `answer` is what a server would say. Errors on its console fail the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))

    def given(route: Any) -> None:
        file = PAGE / route.request.url.removeprefix(AT)
        if route.request.url == AT:
            told = {"NAME": name, "DOCUMENT": _script(document), "ANSWERS": _script([answer] if answer else [])}
            html = HTML
            for mark, instead in told.items():
                html = html.replace(mark, instead)
            route.fulfill(body=html, content_type="text/html")
        elif route.request.url.startswith(AT) and file.is_file():
            route.fulfill(body=file.read_bytes(), content_type=KINDS[file.suffix])
        else:
            route.abort()

    page.set_default_timeout(90_000)  # machines may be busy
    page.route("**/*", given)
    page.goto(AT)
    page.wait_for_selector("body[data-drawn]", state="attached")
    yield page
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert problems == []
    assert wide <= 0, f"the page itself scrolls sideways by {wide} pixels"


def _script(value: Any) -> str:
    return json.dumps(value).replace("<", "\\u003c")


def opened_table(page: Any, name: str) -> list[list[str]]:
    """The rows of a picture's table, which is opened; the first is its head."""
    figure = page.locator(f'figure[data-name="{name}"]')
    figure.get_by_role("button", name="Table", exact=True).click()
    return figure.locator("table.plain").evaluate(
        "table => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def exported(page: Any, name: str, kind: str, folder: Path) -> bytes:
    """The file that a picture is saved as; `kind` is PNG, SVG or JSON."""
    button = page.locator(f'figure[data-name="{name}"] .bar-of-tools button', has_text=kind)
    with page.expect_download() as waiting:
        button.click()
    out = folder / f"{name}.{kind.lower()}"
    waiting.value.save_as(out)
    return out.read_bytes()


def numbers(rows: list[list[str]]) -> list[list[float]]:
    """The cells of a table without its head and its first column."""
    return [[float(cell) for cell in row[1:]] for row in rows[1:]]
