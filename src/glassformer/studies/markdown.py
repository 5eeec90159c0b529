"""A report as Markdown, as code hosts show it (CommonMark with the tables of GitHub Flavored Markdown)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from glassformer.studies.sections import Section
from glassformer.studies.study import Claim, Table, Verdict

_SPECIAL = re.compile(r"[\\`*\[\]<|~#$&]|_(?![^\W_])")  # a _ before a letter, as in d_k, closes no emphasis
_BLOCK = re.compile(r"^(?:([>+-])|(\d+)([.)])(?=\s|$))")  # at the start of a paragraph: a quotation or a list
_VERDICTS: dict[Verdict, str] = {
    "supported": "supported",
    "not supported": "**not supported**",
    "not testable here": "*not testable here*",
}


def report_markdown(title: str, about: str, sections: Sequence[Section], notes: Sequence[tuple[str, str]]) -> str:
    """The text of report.md. Its images and the other forms of the report are linked as they lie beside it."""
    blocks = [
        f"# {escaped(title)}",
        *(_paragraph(paragraph) for paragraph in about.split("\n\n")),
        "The same as [a page](report.html), which opens from the file system, and [all numbers](report.json) as JSON.",
        "## How it was measured",
        _grid(("", ""), [[escaped(name), escaped(value)] for name, value in notes]),
        "## All claims",
        _summary(sections),
    ]
    for section in sections:
        blocks += _section(section)
    return "\n\n".join(block for block in blocks if block) + "\n"


def escaped(text: str) -> str:
    """The text on one line, so that Markdown shows it as it is: in a cell, in a heading, in an image's description.

    At the start of a paragraph `_paragraph` also sees to what would begin a list or a quotation.
    """
    return _SPECIAL.sub(r"\\\g<0>", " ".join(line.strip() for line in text.splitlines()).strip())


def anchor(heading: str) -> str:
    """The name under which code hosts let a heading be linked: `2. What length costs` → `2-what-length-costs`."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _section(section: Section) -> Iterator[str]:
    part, done = section.part, section.done
    yield f"## {escaped(_heading(section))}"
    yield _paragraph(part.question)
    yield f"**Method.** {escaped(part.method)}"
    if done.result is None:
        yield f"**Not measured:** {escaped(done.missing)}"
        return
    for picture in section.pictures:
        caption = escaped(picture.caption)
        yield f"![{caption}](figures/{picture.file})"
        yield f"*{caption}*"
    for table in section.tables:
        yield from _table(table)
    yield "**Claims**"
    yield _claims(section.claims)
    yield f"Measured in {done.seconds:.0f} s."


def _heading(section: Section) -> str:
    return f"{section.number}. {section.part.title}"


def _summary(sections: Sequence[Section]) -> str:
    rows = [
        [f"[{section.number}](#{anchor(_heading(section))})", escaped(claim.text), _VERDICTS[claim.verdict]]
        for section in sections
        for claim in section.claims
    ]
    return _grid(("part", "claim", "verdict"), rows)


def _claims(claims: Sequence[Claim]) -> str:
    rows = [
        [escaped(claim.text), escaped(claim.rule), escaped(claim.measured), _VERDICTS[claim.verdict]]
        for claim in claims
    ]
    return _grid(("claim", "rule", "measured", "verdict"), rows)


def _table(table: Table) -> Iterator[str]:
    yield f"**{escaped(table.title)}**"
    yield _grid([escaped(column) for column in table.columns], [[escaped(cell) for cell in row] for row in table.rows])


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _paragraph(text: str) -> str:
    return _BLOCK.sub(lambda found: f"{found[2] or ''}\\{found[3] or found[1]}", escaped(text))
