"""A real Chromium without a window and without a net, and a small server for the page's live mode."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from glassformer.errors import InputError
from glassformer.serving.inlining import LIVE_POLICY, page_file
from glassformer.serving.progress import Stopped

FLAGS = ["--no-sandbox", "--disable-gpu"]
PATIENCE = 60_000  # milliseconds: machines may be busy


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where Playwright or Chromium is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, address: str, *, width: int = 1280, dark: bool = False, refusals: bool = False
) -> Iterator[Any]:
    """The page at an address. A word on its console, a request to elsewhere or a page that scrolls sideways fails the
    test; `refusals`: an answer of 4xx is told on the console, and is meant."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
    page, problems = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))

    def elsewhere(request: Any) -> None:
        if not request.url.startswith((address.split("#")[0], "data:", "blob:")):
            problems.append(request.url)

    page.on("request", elsewhere)
    if address.startswith("file:"):
        context.set_offline(True)
    page.goto(address)
    yield page
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert [each for each in problems if not (refusals and "Failed to load resource" in each)] == []
    assert wide <= 0, f"the page itself scrolls sideways by {wide} pixels"


def until(page: Any, expression: str, seconds: float = 30) -> None:
    """Wait until a JavaScript expression is true, asking again and again from outside: `page.wait_for_function` asks by
    `eval` inside the page, which the page's own policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(20)


def cells(grid: Any) -> dict[tuple[int, int], dict[str, Any]]:
    """Text, share and whether it goes back, of each cell of a grid."""
    found = grid.locator("td[data-row]").evaluate_all(
        """cells => cells.map((cell) => ({
            row: Number(cell.dataset.row), column: Number(cell.dataset.column), text: cell.textContent,
            share: Number(cell.style.getPropertyValue("--share")), back: cell.classList.contains("back"),
        }))"""
    )
    return {(each["row"], each["column"]): each for each in found}


def plain_table(figure: Any) -> list[list[str]]:
    """The rows of a picture's table, which is opened; the first is its head."""
    figure.get_by_role("button", name="Table", exact=True).click()
    return figure.locator("table.plain").evaluate("t => [...t.rows].map((r) => [...r.cells].map((c) => c.textContent))")


def exported(page: Any, figure: Any, kind: str) -> bytes:
    """The file that a picture is saved as; `kind` is PNG, SVG or JSON. Chromium lets a page save ten files a second,
    and drops others without a word."""
    page.wait_for_timeout(150)
    with page.expect_download() as waiting:
        figure.locator(".bar-of-tools button", has_text=kind).click()
    return waiting.value.path().read_bytes()


Making = Callable[[dict[str, Any], Callable[[float], None], Callable[[], bool]], dict[str, Any]]


@dataclass
class Served:
    """A server of the page whose documents `make(body, on_progress, stopped)` makes, as POST /v1/trace promises."""

    make: Making
    models: list[str]
    key: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        server.server_close()
        thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        served = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, status: int, content: bytes, media: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Security-Policy", LIVE_POLICY)
                self.end_headers()
                self.wfile.write(content)

            def admitted(self) -> bool:
                if served.key is None or self.headers["Authorization"] == f"Bearer {served.key}":
                    return True
                self.answer(401, b'{"error": {"message": "a key is needed."}}', "application/json")
                return False

            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    listed = {"data": [{"id": name} for name in served.models]}
                    if self.admitted():
                        self.answer(200, json.dumps(listed).encode(), "application/json")
                elif (file := page_file(self.path[1:])) is not None:
                    self.answer(200, *file)
                else:
                    self.answer(404, b"", "text/plain")

            def do_POST(self) -> None:
                if not self.admitted():
                    return
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                served.bodies.append(body)
                self.answer(200, b"", "text/event-stream")
                gone = threading.Event()

                def tell(event: dict[str, Any]) -> None:
                    try:
                        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                    except OSError:
                        gone.set()

                def stopped() -> bool:
                    tell({"progress": 0.5})  # a connection that is gone is known by writing to it
                    return gone.is_set()

                try:
                    tell({"document": served.make(body, lambda share: tell({"progress": share}), stopped)})
                except InputError as error:
                    tell({"error": {"message": str(error)}})
                except Stopped:
                    pass

        return Handler
