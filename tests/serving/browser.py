"""A real browser without a window: opens a file, runs its scripts and gives what the page has become."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "link", "input", "br", "line", "circle", "polyline"}


@dataclass
class Element:
    """One element of a page, with the text in it and below it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Those below it with this tag and these attributes (`_` for `-`; a class is one of several)."""
        below = [found for child in self.children for found in (child, *child.all(""))]
        return [each for each in below if (not tag or each.tag == tag) and each.has(attributes)]

    def has(self, attributes: dict[str, str]) -> bool:
        own = self.attributes
        return all(
            value in own.get(name.rstrip("_").replace("_", "-"), "").split()
            or own.get(name.rstrip("_").replace("_", "-")) == value
            for name, value in attributes.items()
        )


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while tag in [each.tag for each in self.open[1:]] and self.open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def tree(html: str) -> Element:
    parser = _Tree()
    parser.feed(html)
    return parser.open[0]


def browser() -> str:
    """The browser's program; the test is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium is installed: apt-get install chromium")


def opened(path: Path, view: str, profile: Path) -> Element:
    """The page as it is after its scripts, at the tab `view`. Anything on the console (an error, or something that
    the page was kept from loading) fails the test."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    where = [f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", f"{path.as_uri()}#{view}"]
    done = subprocess.run([browser(), *options, *where], capture_output=True, text=True, timeout=180)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert done.returncode == 0 and not said, said or done.stderr
    return tree(done.stdout)
