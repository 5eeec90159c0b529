"""report.md says what report.html says, and shows every text as it is: it is read back by a parser of its own."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from glassformer.studies.markdown import anchor, report_markdown
from glassformer.studies.running import Done
from glassformer.studies.sections import Section
from glassformer.studies.study import Claim, Part, Picture, Table

COMPARED = Path(__file__).parent.parent.parent / "docs" / "compare"
VERDICTS = ("supported", "not supported", "not testable here")
EATEN = [
    "p < 0.05 | p_value *and* _more_ ~5 to ~7",
    "~~struck~~ __strong__ **bold**",
    r"a \| b \ c",
    "<b>bold</b> & &lt; <https://a.b> `code` $x$",
    "[0, 1) [a](b) ![c](d) [e]: f",
    "- a point",
    "12. a number",
    "1)",
    "> said",
    "+ more",
    "---",
    "# a title #",
    "two\nlines\n- of it",
    "d_k, __all__, _x_y_, a__b",
]
TEXTS = st.text("\\`*_[]<>|~#$&!-+=.:;()1a d\n", min_size=1).filter(lambda text: text.strip() and "\n\n" not in text)


def section(text: str = "A text.", missing: str = "") -> Section:
    """A part that says `text` wherever it can."""
    part = Part("part", text, text, text, lambda _: {}, lambda *_: [], lambda _: [], lambda _: [])
    if missing:
        return Section(2, Done(part, None, missing=missing))
    claims = tuple(Claim(text, text, text, verdict) for verdict in VERDICTS)
    tables = (Table(text, (text, "", text), ((text, "b", "c"), ("", text, text))),)
    return Section(1, Done(part, {}, 3.4), (Picture("drawn.png", text),), tables, claims)


def plain(inline: Token) -> str:
    """What a reader sees of a line, an image's description instead of the image; whitespace as one space."""
    shown = "".join(
        plain(child) if child.type == "image" else "\n" if child.type.endswith("break") else child.content
        for child in inline.children or ()
    )
    return " ".join(shown.split())


class Read:
    """A page of Markdown, read back: its headings, its paragraphs, the rows of its tables, its images."""

    def __init__(self, text: str) -> None:
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        self.kinds = {token.type for token in tokens}
        pairs = list(itertools.pairwise(tokens))
        self.headings = [plain(inline) for opened, inline in pairs if opened.type == "heading_open"]
        self.paragraphs = [plain(inline) for opened, inline in pairs if opened.type == "paragraph_open"]
        self.tables: list[list[list[str]]] = []
        for opened, inline in pairs:
            if opened.type == "table_open":
                self.tables.append([])
            elif opened.type == "tr_open":
                self.tables[-1].append([])
            if opened.type in ("th_open", "td_open"):
                self.tables[-1][-1].append(plain(inline))
        children = [child for token in tokens for child in token.children or ()]
        self.images = {str(child.attrs["src"]): plain(child) for child in children if child.type == "image"}
        self.links = [str(child.attrs["href"]) for child in children if child.type == "link_open"]
        self.inside = {child.type for child in children}


def read(*sections: Section, title: str = "A report", about: str = "About.") -> Read:
    return Read(report_markdown(title, about, sections, [("threads", "1")]))


def assert_shown(text: str) -> None:
    """The text is read back from all of its places, and nothing else has become of it."""
    text, found = " ".join(text.split()), read(section(text), title=text, about=f"{text}\n\n{text}")
    assert found.headings == [text, "How it was measured", "All claims", f"1. {text}"]
    same = "The same as a page, which opens from the file system, and all numbers as JSON."
    described = [text, f"Method. {text}", text, text, text, "Claims", "Measured in 3 s."]
    assert found.paragraphs == [text, text, same, *described]
    assert found.images == {"figures/drawn.png": text}
    notes, summary, table, claims = found.tables
    assert notes == [["", ""], ["threads", "1"]]
    assert summary == [["part", "claim", "verdict"], *(["1", text, verdict] for verdict in VERDICTS)]
    assert table == [[text, "", text], [text, "b", "c"], ["", text, text]]
    assert claims[1:] == [[text, text, text, verdict] for verdict in VERDICTS]
    assert found.links == ["report.html", "report.json", *[found.links[2]] * 3]
    assert not found.kinds & {"bullet_list_open", "ordered_list_open", "blockquote_open", "hr", "fence", "code_block"}
    assert not found.inside & {"s_open", "code_inline", "html_inline"}


@pytest.mark.parametrize("text", EATEN)
def test_what_markdown_would_eat(text: str) -> None:
    assert_shown(text)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    assert_shown(text)


def test_what_is_harmless_is_left_alone() -> None:
    text = report_markdown("d_k - 1.5", "More (of it) > less.", [], [])
    assert "# d_k - 1.5\n" in text and "\nMore (of it) > less.\n" in text


def test_a_part_that_is_missing_says_why() -> None:
    found = read(section(), section(missing="bring <something>."))
    assert found.paragraphs[-1] == "Not measured: bring <something>." and len(found.tables) == 4


def test_links_lead_to_the_parts() -> None:
    text = report_markdown("A report", "", [section("Who hit whom, with d_k = 8?")], [])
    assert "[1](#1-who-hit-whom-with-d_k--8)" in text
    assert anchor("3. Far apart: what arrives?") == "3-far-apart-what-arrives"


def test_the_checked_in_comparison() -> None:
    """docs/compare: the page that is shown first has all claims of report.json with their verdicts, and all figures."""
    found = Read((COMPARED / "README.md").read_text(encoding="utf-8"))
    parts = json.loads((COMPARED / "report.json").read_text(encoding="utf-8"))["parts"]
    claims = [claim for part in parts.values() for claim in part["claims"]]
    summary = next(table for table in found.tables if table[0] == ["part", "claim", "verdict"])
    assert [row[1:] for row in summary[1:]] == [[claim["text"], claim["verdict"]] for claim in claims]
    told = [row for table in found.tables if table[0] == ["claim", "rule", "measured", "verdict"] for row in table[1:]]
    assert told == [[claim[key] for key in ("text", "rule", "measured", "verdict")] for claim in claims]
    assert all(len({len(row) for row in table}) == 1 for table in found.tables)
    assert set(found.images) == {f"figures/{path.name}" for path in (COMPARED / "figures").iterdir()}
    headings = {anchor(heading) for heading in found.headings}
    assert all(link[1:] in headings if link[0] == "#" else (COMPARED / link).is_file() for link in found.links)
    assert {f"{number}. {part['title']}" for number, part in enumerate(parts.values(), 1)} <= set(found.headings)
    assert not re.search(r"https?://", (COMPARED / "README.md").read_text(encoding="utf-8"))
