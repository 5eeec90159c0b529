"""The page: one whole file, and in a real browser what its documents say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from serving.browser import Element, opened, tree
from serving.small_views import SOURCES, WRITER_TEXTS, reader, translator, writer

import glassformer.serving
from glassformer.models.config import Sentence
from glassformer.serving.documents import documents
from glassformer.serving.inlining import bundle, page, write_page

PAGE = Path(glassformer.serving.__file__).parent / "page"
NASTY = "</script><script>alert('<!--')</script> &amp;"

PRESSES = """
<script type="module">
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  document.getElementById("tab-attention").focus();
  press("ArrowRight");
  const tab = document.activeElement.id;
  document.querySelector("#panel-lens td[tabindex='0']").focus();
  ["Home", "ArrowUp", "ArrowRight"].forEach(press);
  const cell = { ...document.activeElement.dataset };
  const loaded = performance.getEntriesByType("resource").length;
  document.body.dataset.found = JSON.stringify({ tab, cell, loaded });
</script>
"""


@pytest.fixture(scope="module")
def views() -> list[dict[str, Any]]:
    return documents(writer(), WRITER_TEXTS[0], source_text=WRITER_TEXTS[1], name="tiny")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, views: list[dict[str, Any]]) -> Path:
    """A folder with the page of a decoder."""
    folder = tmp_path_factory.mktemp("page")
    write_page(views, folder / "page.html")
    return folder


# --- The file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_with_its_documents(views: list[dict[str, Any]]) -> None:
    html = page([{**views[0], "text": NASTY}, *views[1:]])
    root = tree(html)
    kept = [json.loads(each.text) for each in root.all("script", class_="document")]
    assert kept == [{**views[0], "text": NASTY}, *views[1:]]
    assert not [each for each in root.all("") if {"src", "href"} & set(each.attributes)]
    assert set(re.findall(r"\bhttps?://[^\"' ]+", html)) <= {"http://www.w3.org/2000/svg"}


def test_nothing_may_load_or_run_but_what_was_written(views: list[dict[str, Any]]) -> None:
    root = tree(page(views))
    (policy,) = root.all("meta", http_equiv="Content-Security-Policy")
    texts = root.all("style")[0].text, root.all("script", type="module")[0].text
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    wanted = f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src blob: data:"
    assert policy.attributes["content"] == wanted


def test_every_module_is_in_it_after_those_it_imports() -> None:
    order = re.findall(r"^// (\w+\.js)$", bundle("main"), re.MULTILINE)
    assert sorted(order) == sorted(path.name for path in PAGE.glob("*.js")) and order[-1] == "main.js"
    for path in PAGE.glob("*.js"):
        for other in re.findall(r'from "\./(\w+\.js)"', path.read_text(encoding="utf-8")):
            assert order.index(other) < order.index(path.name)


def test_files_of_the_page_stay_readable() -> None:
    for path in PAGE.iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 400 and max(map(len, lines)) <= 120, path.name


def test_it_is_written_in_one_step(views: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert write_page(views, out) == out and list(out.parent.iterdir()) == [out]
    with pytest.raises(OSError):
        write_page(views, tmp_path)


# --- In a browser -----------------------------------------------------------------------------------------------------


def panel(root: Element, view: str) -> Element:
    """The view's panel, the only one that is shown; no problem was reported."""
    shown = [each for each in root.all("section", role="tabpanel") if "hidden" not in each.attributes]
    assert [each.attributes["id"] for each in shown] == [f"panel-{view}"]
    assert "hidden" in root.all("p", id="problem")[0].attributes
    (selected,) = root.all("button", role="tab", aria_selected="true")
    assert selected.attributes["id"] == f"tab-{view}"
    return shown[0]


def cells(within: Element) -> dict[tuple[int, int], Element]:
    found = within.all("td", role="gridcell")
    return {(int(each.attributes["data-row"]), int(each.attributes["data-column"])): each for each in found}


def share(cell: Element) -> float:
    return float(re.search(r"--share: ([\d.e-]+)", cell.attributes["style"])[1])  # type: ignore[index]


@pytest.mark.browser
def test_attention_in_a_browser(place: Path, views: list[dict[str, Any]], tmp_path: Path) -> None:
    root = opened(place / "page.html", "attention", tmp_path)
    shown, (only,) = panel(root, "attention"), views[0]["maps"]
    assert root.all("h1")[0].text == WRITER_TEXTS[0] and "tiny" in root.all("p", id="model")[0].text
    buttons = shown.all("button", aria_pressed="true") + shown.all("button", aria_pressed="false")
    assert len(buttons) == 1 + len(only["patterns"][-1])
    assert len(shown.all("canvas")) == len(buttons)
    tokens = shown.all("span", role="option")
    assert [each.text for each in tokens] == [token.strip() or "␣" for token in only["keys"]]
    last, heads = len(tokens) - 1, only["patterns"][-1]
    grid = cells(shown)
    assert len(grid) == len(tokens) ** 2
    for key in range(len(tokens)):  # the last layer's mean is what a page begins with
        mean = sum(head[last][key] for head in heads) / len(heads)
        assert share(grid[last, key]) == pytest.approx(mean, abs=1e-6)
        assert share(tokens[key]) == pytest.approx(mean, abs=1e-6)
    assert share(grid[0, 1]) == 0
    assert f"position {last}, looks at:" in shown.all("p", class_="said")[0].text


@pytest.mark.browser
def test_the_lens_in_a_browser(place: Path, views: list[dict[str, Any]], tmp_path: Path) -> None:
    shown, lens = panel(opened(place / "page.html", "lens", tmp_path), "lens"), views[1]
    for (row, column), cell in cells(shown).items():
        word, probability = lens["words"][row][column][0], lens["probabilities"][row][column][0]
        assert share(cell) == pytest.approx(probability) and (word.strip() in cell.text)
    said = shown.all("section", class_="said")[0]
    assert [each.text for each in said.all("b")] == [word.strip() or "␣" for word in lens["words"][-1][-1]]
    assert "is number 1 here" in said.text
    (picture,) = shown.all("svg", role="img")
    ranks = ", ".join(str(row[-1]) for row in lens["ranks"])
    assert re.sub(r"(embedding|layer \d+) ", "", picture.attributes["aria-label"]).endswith(ranks)


@pytest.mark.browser
def test_patching_in_a_browser(place: Path, views: list[dict[str, Any]], tmp_path: Path) -> None:
    shown, patching = panel(opened(place / "page.html", "patching", tmp_path), "patching"), views[2]
    grid = cells(shown)
    assert len(grid) == len(patching["sites"]) * len(patching["tokens"])
    for (row, column), cell in grid.items():
        effect = patching["effects"][row][column]
        assert int(cell.text.replace("−", "-")) == pytest.approx(100 * effect, abs=0.51)
        assert ("back" in cell.attributes.get("class", "").split()) == (effect < 0)
    terms = shown.all("dd")
    assert [each.text for each in terms[:2]] == [*WRITER_TEXTS] and patching["metric"] in terms[2].text
    differing = [each.text for each in shown.all("th") if each.all("i")]
    assert differing == ["df"]  # d in the text, f in the other


@pytest.mark.browser
def test_a_translation_in_a_browser(tmp_path: Path) -> None:
    views = documents(translator(), SOURCES[0], target="the dog runs", name="translator")
    root = opened(write_page(views, tmp_path / "page.html"), "attention", tmp_path / "profile")
    shown, cross = panel(root, "attention"), views[0]["maps"][2]
    assert [each.text for each in shown.all("option")] == [one["title"] for one in views[0]["maps"]]
    source, target = shown.all("div", class_="column")
    assert [each.text for each in source.all("span")] == cross["keys"]
    assert [each.text for each in target.all("span")] == cross["queries"]
    assert shown.all("line", class_="chosen")
    assert [each.attributes["id"] for each in root.all("button", role="tab")] == ["tab-attention", "tab-lens"]


@pytest.mark.browser
def test_what_a_model_lacks_is_said(tmp_path: Path) -> None:
    views = documents(reader(Sentence()), "the dog")
    root = opened(write_page(views, tmp_path / "page.html"), "lens", tmp_path / "profile")
    assert views[1]["missing"] in panel(root, "lens").text


@pytest.mark.browser
def test_keys_and_hostile_texts(views: list[dict[str, Any]], tmp_path: Path) -> None:
    html = page([{**view, "text": NASTY} for view in views])
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", f"{PRESSES}</body>")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    root = opened(tmp_path / "page.html", "attention", tmp_path / "profile")
    panel(root, "lens")
    found = json.loads(root.all("body")[0].attributes["data-found"])
    row = len(views[1]["sites"]) - 2
    assert found == {"tab": "tab-lens", "cell": {"row": str(row), "column": "1"}, "loaded": 0}
    assert root.all("h1")[0].text == NASTY
