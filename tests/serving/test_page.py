"""The page: one whole file, and in a real browser what its documents say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from serving.browser import cells, chromium, exported, opened, plain_table
from serving.small_views import SOURCES, WRITER_TEXTS, reader, translator, writer

import glassformer.serving
from glassformer.models.config import Sentence
from glassformer.serving.inlining import LIVE_POLICY, bundle, page, page_file, write_page
from glassformer.serving.views import VIEWS, make_views

PAGE = Path(glassformer.serving.__file__).parent / "page"
NASTY = "</script><script>alert('<!--')</script> &amp;"


@pytest.fixture(scope="module")
def views() -> list[dict[str, Any]]:
    return make_views(writer(), WRITER_TEXTS[0], patch_from=WRITER_TEXTS[1], name="tiny")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, views: list[dict[str, Any]]) -> Path:
    """A folder with the page of a decoder."""
    folder = tmp_path_factory.mktemp("page")
    write_page(views, folder / "page.html")
    return folder


# --- The file ---------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every element of a page: its tag, its attributes and, of scripts and styles, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        self.found.append(("", {}, []))  # what follows is not in that element

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """The texts of the elements with this tag and these attributes."""
        wanted = attributes.items()
        return ["".join(text) for name, own, text in self.found if name == tag and wanted <= own.items()]


def test_the_page_is_one_file_with_its_documents(views: list[dict[str, Any]]) -> None:
    html = page([{**views[0], "text": NASTY}, *views[1:]])
    kept = [json.loads(text) for text in Elements(html).texts("script", **{"class": "document"})]
    assert kept == [{**views[0], "text": NASTY}, *views[1:]]
    links = [own[name] for _, own, _ in Elements(html).found for name in ("src", "href") if name in own]
    assert links == ["data:,"]  # the icon, which is none
    assert set(re.findall(r"\bhttps?://[^\"' ]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1998/Math/MathML",
    }


def test_nothing_may_load_or_run_but_what_was_written(views: list[dict[str, Any]]) -> None:
    elements = Elements(page(views))
    policy = next(own for tag, own, _ in elements.found if own.get("http-equiv") == "Content-Security-Policy")
    texts = elements.texts("style")[0], elements.texts("script", type="module")[0]
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    wanted = f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src blob: data:"
    assert policy["content"] == wanted


def test_a_server_gives_out_these_files_and_no_others() -> None:
    whole, media = page_file("")  # type: ignore[misc]
    assert b'src="main.js"' in whole and media.startswith("text/html")
    assert page_file("style.css") == ((PAGE / "style.css").read_bytes(), "text/css")
    for name in ("../inlining.py", "missing.js", "page", "/etc/passwd"):
        assert page_file(name) is None
    assert "unsafe" not in LIVE_POLICY and "eval" not in LIVE_POLICY


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def address(place: Path, view: str) -> str:
    return f"{(place / 'page.html').as_uri()}#{view}"


def of(views: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(view for view in views if view["view"] == name)


def tokens_of(place: Any) -> list[str]:
    return place.locator(".token").evaluate_all("boxes => boxes.map((box) => box.firstChild.textContent)")


def shown(token: str) -> str:
    """A token as the page writes it."""
    bare = re.sub(r"^ +(?=\S)", "", token)
    pictures = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}
    pictures |= {ord("\n"): "⏎", ord("\t"): "⇥", ord("\r"): "␍"}
    return re.sub("^ +$", lambda spaces: "␣" * len(spaces[0]), bare.translate(pictures))


@pytest.mark.browser
def test_the_row_of_tokens(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    document = of(views, "tokens")
    with opened(browser, address(place, "lens")) as page:
        row = page.locator("#row")
        assert tokens_of(row) == [shown(token) for token in document["tokens"]]
        rows = plain_table(row.locator("figure"))[1:]
        columns = zip(*(document[name] for name in ("probabilities", "ranks", "surprisals")), strict=True)
        for line, numbers in zip(rows, columns, strict=True):
            assert [None if cell == "–" else float(cell) for cell in line[2:5]] == list(numbers)
        shares = row.locator(".token").evaluate_all(
            "boxes => boxes.map((box) => Number(box.style.getPropertyValue('--share')))"
        )
        assert shares == pytest.approx([min((bits or 0) / 12, 1) for bits in document["surprisals"]])
        row.locator(".token").nth(2).click()
        assert f"rank {document['ranks'][2]}, surprisal {document['surprisals'][2]:.1f} bits" in row.inner_text()


@pytest.mark.browser
def test_attention(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    (only,) = of(views, "attention")["maps"]
    count, heads = len(only["keys"]), only["patterns"][-1]

    def mean(query: int, key: int) -> float:
        return sum(head[query][key] if key < len(head[query]) else 0 for head in heads) / len(heads)

    with opened(browser, address(place, "attention")) as page:
        assert page.locator("h1").inner_text() == WRITER_TEXTS[0] and "tiny" in page.locator("#model").inner_text()
        grid = page.locator(".grid-of-heads")
        assert grid.locator("canvas").count() == len(only["patterns"]) * (1 + len(heads))
        matrix = page.locator('[data-name="attention-matrix"]')
        for (query, key), cell in cells(matrix).items():  # the last layer's mean is what a page begins with
            assert cell["share"] == pytest.approx(mean(query, key), abs=1e-6)
        assert len(cells(matrix)) == count**2
        grid.locator('td[data-row="0"][data-column="2"]').click()
        numbers = plain_table(matrix)[1:]
        for query, row in enumerate(only["patterns"][0][1]):
            assert [float(cell) for cell in numbers[query][1:]] == row + [0.0] * (count - len(row))
        arcs = page.locator('[data-name="attention-arcs"] path.chosen')
        assert arcs.count() == sum(share >= 0.04 for share in only["patterns"][0][1][-1])


@pytest.mark.browser
def test_the_sink_can_be_hidden(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    (only,) = of(views, "attention")["maps"]
    rows = [row for layer in only["patterns"] for head in layer for row in head]
    sums = [sum(row[key] for row in rows if key < len(row)) for key in range(len(only["keys"]))]
    sink = sums.index(max(sums))
    with opened(browser, address(place, "attention")) as page:
        box = page.get_by_label("hide the sink")
        assert f"gets {100 * max(sums) / len(rows):.0f} %" in box.locator("..").inner_text()
        box.check()
        found = cells(page.locator('[data-name="attention-matrix"]'))
        last = len(only["queries"]) - 1
        means = [sum(head[last][key] for head in only["patterns"][-1]) / 4 for key in range(last + 1)]
        for key in range(last + 1):
            wanted = 0 if key == sink else means[key] / (1 - means[sink])
            assert found[last, key]["share"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.browser
def test_the_lens(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    lens = of(views, "lens")
    with opened(browser, address(place, "lens")) as page:
        for (row, column), cell in cells(page.locator('[data-name="lens"]')).items():
            word, probability = lens["words"][row][column][0], lens["probabilities"][row][column][0]
            assert cell["share"] == pytest.approx(probability) and cell["text"] == shown(word)
        best = page.locator("#panel-lens .best b").all_inner_texts()
        assert best == [shown(word) for word in lens["words"][-1][-1]]
        ranks = plain_table(page.locator('[data-name="lens-ranks"]'))[1:]
        assert [int(rank) for _, rank in ranks] == [row[-1] for row in lens["ranks"]]


@pytest.mark.browser
def test_patching(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    patching = of(views, "patching")
    parts = {"residual": patching["effects"], **{each["part"]: each["effects"] for each in patching["parts"]}}
    assert list(parts) == ["residual", "attention", "mlp"]
    with opened(browser, address(place, "patching")) as page:
        for part, effects in parts.items():
            page.locator(f"#panel-patching input[value={part}]").check()
            grid = cells(page.locator(f'[data-name="patching-{part}"]'))
            assert len(grid) == sum(map(len, effects))
            for (row, column), cell in grid.items():
                assert int(cell["text"].replace("−", "-")) == pytest.approx(100 * effects[row][column], abs=0.51)
                assert cell["back"] == (effects[row][column] < 0)
        terms = page.locator("#panel-patching dd").all_inner_texts()
        assert terms[:2] == [*WRITER_TEXTS] and patching["metric"] in terms[2]


@pytest.mark.browser
def test_a_translation_in_which_every_panel_follows(browser: Any, tmp_path: Path) -> None:
    views = make_views(translator(), SOURCES[0], target="the dog runs", name="translator")
    write_page(views, tmp_path / "page.html")
    cross = of(views, "attention")["maps"][2]
    with opened(browser, address(tmp_path, "attention")) as page:
        titles = page.locator("#panel-attention option").all_inner_texts()
        assert titles == [one["title"] for one in of(views, "attention")["maps"]]
        source, target = page.locator("#panel-attention .column").all()
        assert tokens_of(source) == cross["keys"] and tokens_of(target) == cross["queries"]
        page.locator("#tab-lens").click()
        page.locator("#row").get_by_role("listbox", name="shaded").locator(".token").nth(1).click()
        assert page.locator("#panel-lens td[aria-selected]").get_attribute("data-column") == "1"
        page.locator("#tab-attention").click()
        assert target.locator("[aria-selected=true]").get_attribute("data-place") == "1"
        assert set(page.locator("line.chosen").evaluate_all("lines => lines.map((l) => l.dataset.query)")) == {"1"}
        alignment = ElementTree.fromstring(exported(page, page.locator('[data-name="attention-arcs"]'), "SVG"))
        lines = [each for each in alignment.iter() if each.get("data-query") == "1"]
        means = [sum(head[1][key] for head in cross["patterns"][-1]) / 2 for key in range(len(cross["keys"]))]
        widths = [float(line.attrib["stroke-width"]) for line in lines]  # the thicker, the more it looks there
        assert widths == pytest.approx([1 + 4 * share for share in means if share >= 0.04], abs=1e-3)
        page.locator("#tab-lens").click()
        page.locator("#panel-lens td[aria-selected]").press("End")
        assert page.locator("#row .said").inner_text().startswith("“</s>”")


@pytest.mark.browser
def test_the_keyboard_alone(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    last = len(of(views, "tokens")["tokens"]) - 1
    with opened(browser, address(place, "attention")) as page:
        focus = "document.activeElement.id || document.activeElement.className"
        page.locator("#tab-attention").focus()
        page.keyboard.press("End")
        assert page.evaluate(focus) == "tab-walk"
        page.keyboard.press("Home")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # hides the sink
        assert page.get_by_label("hide the sink").is_checked()
        for _ in range(5):  # table, PNG, SVG, JSON, the grid of all heads
            page.keyboard.press("Tab")
        for key in ("ArrowUp", "ArrowRight"):
            page.keyboard.press(key)
        assert page.locator("#panel-attention h2").inner_text().startswith("Layer 0, head 0")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("3")
        assert page.locator("#panel-lens").is_visible()
        page.keyboard.press(",")
        assert page.locator("#panel-lens td[aria-selected]").get_attribute("data-column") == str(last - 1)
        page.keyboard.press("?")
        assert page.locator("dialog").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_widths_and_themes(browser: Any, place: Path, tmp_path: Path, width: int, dark: bool) -> None:
    with opened(browser, address(place, "attention"), width=width, dark=dark) as page:
        colours = []
        for view in (each for each in VIEWS if each != "tokens"):
            page.locator(f"#tab-{view}").click()
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0 and page.locator(f"#panel-{view} .missing").count() == 0, view
            page.screenshot(path=tmp_path / f"{view}.png", full_page=True)
        for theme in (None, "light", "dark"):
            if theme:
                page.keyboard.press("t")
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert colours[1] != colours[2] and colours[0] == colours[2 if dark else 1]


@pytest.mark.browser
def test_every_picture_can_be_kept(browser: Any, place: Path, views: list[dict[str, Any]]) -> None:
    with opened(browser, address(place, "attention")) as page:
        for view in ("attention", "lens", "patching"):
            page.locator(f"#tab-{view}").click()
            for figure in page.locator(f"#panel-{view} figure.frame, #row figure.frame").all():
                drawn = ElementTree.fromstring(exported(page, figure, "SVG"))
                width, height = (round(2 * float(drawn.attrib[side])) for side in ("width", "height"))
                painted = {
                    each.attrib[name] for each in drawn.iter() for name in ("fill", "stroke") if name in each.attrib
                }
                assert drawn.tag == "{http://www.w3.org/2000/svg}svg" and not [c for c in painted if "var" in c]
                png = exported(page, figure, "PNG")
                assert png[:8] == b"\x89PNG\r\n\x1a\n"
                assert struct.unpack(">II", png[16:24]) == pytest.approx((width, height), abs=2)
                own = "tokens" if figure.get_attribute("data-name") == "tokens" else view
                assert json.loads(exported(page, figure, "JSON")) == of(views, own)


@pytest.mark.browser
def test_two_models_side_by_side(browser: Any, views: list[dict[str, Any]], tmp_path: Path) -> None:
    other = make_views(writer(positions=32), WRITER_TEXTS[0], patch_from=WRITER_TEXTS[1], name="second")
    write_page([*views, *other], tmp_path / "page.html")
    with opened(browser, address(tmp_path, "lens")) as page:
        assert page.locator("#panel-lens .whose").all_inner_texts() == ["tiny", "second"]
        sides = page.locator("#panel-lens .side").all()
        for side, document in zip(sides, (of(views, "lens"), of(other, "lens")), strict=True):
            words = cells(side.locator('[data-name="lens"]'))
            assert words[2, 3]["share"] == pytest.approx(document["probabilities"][2][3][0])
            with page.expect_download() as waiting:
                side.locator('[data-name="lens"] .bar-of-tools button', has_text="JSON").click()
            assert waiting.value.suggested_filename == f"{document['model']}-lens.json"
        page.locator("#row .token").nth(1).click()
        chosen = page.locator("#panel-lens td[aria-selected]").evaluate_all("all => all.map((c) => c.dataset.column)")
        assert chosen == ["1", "1"]


@pytest.mark.browser
def test_what_a_model_lacks_is_said(browser: Any, tmp_path: Path) -> None:
    views = make_views(reader(Sentence()), "the dog")
    write_page(views, tmp_path / "page.html")
    with opened(browser, address(tmp_path, "lens")) as page:
        assert of(views, "lens")["missing"] in page.locator("#panel-lens").inner_text()
        assert of(views, "tokens")["unscored"] in page.locator("#row").inner_text()


@pytest.mark.browser
def test_hostile_texts(browser: Any, views: list[dict[str, Any]], tmp_path: Path) -> None:
    write_page([{**view, "text": NASTY} for view in views], tmp_path / "page.html")
    with opened(browser, address(tmp_path, "patching")) as page:
        assert page.locator("h1").inner_text() == NASTY
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0
