"""One report of a study: HTML that opens from the file system, Markdown, the figures as PNG, all numbers as JSON."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glassformer.checkpoints.files import write_bytes
from glassformer.studies.markdown import report_markdown
from glassformer.studies.running import Done
from glassformer.studies.sections import Section, sections_of
from glassformer.studies.study import Claim, Table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.5rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } figcaption, .method, .note { color: #555; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; display: block; overflow-x: auto; }
th, td { border: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #f5f5f5; } caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
.supported { color: #14692d; } .not-supported { color: #a01c1c; } .not-testable-here { color: #6b5900; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd; } th { background: #222; }
  th, td, h2 { border-color: #444; } figcaption, .method, .note { color: #aaa; } img { background: #fff; }
  .supported { color: #6fd08c; } .not-supported { color: #ff8a8a; } .not-testable-here { color: #e0c95a; } }
""".strip()


def write_report(title: str, about: str, done: Sequence[Done], out: Path, notes: Sequence[tuple[str, str]]) -> Path:
    """Write report.html, report.md, report.json and figures/ into `out`; the path of the page.

    `about` is the introduction, `notes` are names and values about how it was measured (machine, threads, seeds).
    """
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    sections = sections_of(done, figures)
    write_bytes(out / "report.json", (_written(_numbers(title, sections, notes)) + "\n").encode())
    write_bytes(out / "report.md", report_markdown(title, about, sections, notes).encode())
    page = out / "report.html"
    write_bytes(page, _page(title, about, sections, notes).encode())
    return page


def _written(value: Any, indent: str = "") -> str:
    """JSON with a line for each entry, but rows of plain values on one line: there are thousands of these. Numbers have
    six digits; `parts/` keeps them as they were."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_written(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(each, dict | list | tuple) for each in value):
        return "[\n" + ",\n".join(inner + _written(each, inner) for each in value) + f"\n{indent}]"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(each) for each in value) + "]"
    return json.dumps(float(f"{value:.6g}") if isinstance(value, float) else value, ensure_ascii=False)


def _numbers(title: str, sections: Sequence[Section], notes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    parts = {
        each.part.name: {
            "title": each.part.title,
            "seconds": each.done.seconds,
            "missing": each.done.missing,
            "result": each.done.result,
            "claims": [dataclasses.asdict(claim) for claim in each.claims],
        }
        for each in sections
    }
    return {"title": title, "measured": dict(notes), "parts": parts}


def _page(title: str, about: str, sections: Sequence[Section], notes: Sequence[tuple[str, str]]) -> str:
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(paragraph)}</p>" for paragraph in about.split("\n\n")),
        _table(Table("How it was measured", ("", ""), tuple(notes))),
        _summary(sections),
    ]
    for section in sections:
        parts += _section(section)
    return "\n".join([*parts, "</body></html>", ""])


def _summary(sections: Sequence[Section]) -> str:
    rows = [
        f'<tr><td><a href="#{each.part.name}">{each.number}</a></td><td>{html.escape(claim.text)}</td>'
        f"{_verdict(claim)}</tr>"
        for each in sections
        for claim in each.claims
    ]
    head = "<tr><th>part</th><th>claim</th><th>verdict</th></tr>"
    return f"<table><caption>All claims</caption>{head}{''.join(rows)}</table>"


def _section(section: Section) -> Iterator[str]:
    part, done = section.part, section.done
    yield f'<h2 id="{part.name}">{section.number}. {html.escape(part.title)}</h2>'
    yield f"<p>{html.escape(part.question)}</p>"
    yield f'<p class="method">{html.escape(part.method)}</p>'
    if done.result is None:
        yield f'<p class="note">Not measured: {html.escape(done.missing)}</p>'
        return
    for picture in section.pictures:
        caption = html.escape(picture.caption)
        yield f'<figure><img src="figures/{picture.file}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    yield from map(_table, section.tables)
    rows = [
        f"<tr><td>{html.escape(claim.text)}</td><td>{html.escape(claim.rule)}</td>"
        f"<td>{html.escape(claim.measured)}</td>{_verdict(claim)}</tr>"
        for claim in section.claims
    ]
    head = "<tr><th>claim</th><th>rule</th><th>measured</th><th>verdict</th></tr>"
    yield f"<table><caption>Claims</caption>{head}{''.join(rows)}</table>"
    yield f'<p class="note">Measured in {done.seconds:.0f} s.</p>'


def _verdict(claim: Claim) -> str:
    return f'<td class="{claim.verdict.replace(" ", "-")}">{claim.verdict}</td>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><caption>{html.escape(table.title)}</caption><tr>{head}</tr>{rows}</table>"
