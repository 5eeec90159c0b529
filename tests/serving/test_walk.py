"""The view "walk": every step is computed again from the document's own numbers, and these are the trace's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from serving.browser import until
from serving.harness import chromium, exported, opened_table, panel
from serving.small_views import SOURCES, WRITER_TEXTS, predecessor, reader, translator, writer

import glassformer as gf
from glassformer.errors import InputError
from glassformer.models.config import (
    Banded,
    ConvolutionalConfig,
    MaskedLM,
    Positions,
    RecurrentConfig,
    Relative,
    Rotary,
)
from glassformer.models.decoder import Decoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.serving.walk import walk_document
from glassformer.tasks.model import Model

CLOSE = 6e-5
TEXT = WRITER_TEXTS[0]


def small(positions: Positions | None = None, **changes: Any) -> Model:
    """The writer with other choices, and weights that make patterns uneven."""
    model = writer()
    config = model.network.config
    torch.manual_seed(0)
    network = Decoder(replace(config, **({"positions": positions} if positions else {}), **changes))  # type: ignore[type-var, arg-type]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return Model(network.eval(), model.tokenizer, model.pipeline, "generation")


def t5() -> Model:
    model = translator()
    torch.manual_seed(3)
    network = EncoderDecoder(replace(model.config, positions=Relative(8, 20), scale_scores=False))  # type: ignore[arg-type, type-var]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return Model(network.eval(), model.tokenizer, model.pipeline)


def filled(rows: list[list[float]], width: int) -> Any:
    return np.array([row + [0.0] * (width - len(row)) for row in rows])


def check_sums(walk: dict[str, Any]) -> None:
    """All six steps, each from the numbers of the one before, as a reader with a pencil would."""
    query, key, value = (np.array(walk[name]) for name in ("query", "key", "value"))
    long = 1e-4 * (1 + np.abs(query).sum(-1).max() + np.abs(key).sum(-1).max())  # rounding of vectors adds up
    dots, scale = np.array(walk["dots"]), walk["scale"]
    if walk["scoring"] == "dot":
        np.testing.assert_allclose(query @ key.T, dots, atol=long)
    else:
        weights = np.array(walk["score_weights"])
        np.testing.assert_allclose(np.tanh(query[:, None] + key) @ weights, dots, atol=long)
    for name, x in (("query", query), ("key", key), ("value", value)):
        np.testing.assert_allclose(np.linalg.norm(x, axis=-1), walk["lengths"][name], atol=1e-3)
    scaled = dots * scale + np.array(walk.get("bias", 0.0))
    scores = np.array([[np.nan if x is None else x for x in row] for row in walk["scores"]])
    seen = ~np.isnan(scores)
    np.testing.assert_allclose(scores[seen], scaled[seen], atol=2.1e-4)
    powers = np.where(seen, np.exp(np.where(seen, scores, 0)), 0)
    pattern = filled(walk["pattern"], len(walk["keys"]))
    np.testing.assert_allclose(powers / powers.sum(-1, keepdims=True), pattern, atol=2e-4)
    np.testing.assert_allclose(pattern @ value, walk["mixed"], atol=1e-4 * (1 + np.abs(value).sum(0).max()))
    if "joined" in walk:
        joined = walk["joined"]
        heads, output = np.array(joined["heads"]), np.array(joined["output"])
        np.testing.assert_allclose(heads.sum(0) + joined["bias"], output, atol=5e-5 * (len(heads) + 3))
        own = np.array(walk["mixed"]) @ np.array(joined["weights"]).T
        most = np.abs(joined["weights"]).sum() + np.abs(walk["mixed"]).sum()
        np.testing.assert_allclose(own, heads[walk["head"]], atol=1e-4 * (1 + most))


def check_trace(model: Model, walk: dict[str, Any], given: Any, target: Any = None) -> None:
    """The numbers are those that `gf.trace` gives."""
    layer = f"[{walk['layer']}]"
    names = {part: f"{walk['site']}.{part}{layer}" for part in ("query", "key", "value", "pattern", "mixed", "output")}
    traced = gf.trace(model, given, *names.values(), target=target)
    heads = traced[names["query"]].shape[1]
    for part in ("query", "key", "value", "mixed"):
        values = traced[names[part]][0]
        np.testing.assert_allclose(walk[part], values[walk["head"] * len(values) // heads], atol=CLOSE)
    pattern = filled(walk["pattern"], len(walk["keys"]))
    np.testing.assert_allclose(pattern, traced[names["pattern"]][0, walk["head"]], atol=CLOSE)
    count = len(walk["joined"]["bias"])
    np.testing.assert_allclose(walk["joined"]["output"], traced[names["output"]][0, :, :count], atol=CLOSE)
    np.testing.assert_allclose(walk["joined"]["output_length"], traced[names["output"]][0].norm(dim=-1), atol=CLOSE)


# --- Documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [small(), small(Rotary(100.0), n_kv_heads=1), small(bias=False), small(attention=Banded(3, 2))],
    ids=["learned", "rotary, shared keys", "without biases", "banded"],
)
def test_a_decoder(model: Model) -> None:
    document = walk_document(model, TEXT)
    (attention,) = document["attentions"]
    assert (attention["site"], len(document["walks"])) == ("self_attention", 2)
    ids = model.tokenizer.encode(TEXT)
    for layer in range(attention["layers"]):
        for head in range(attention["heads"]):
            (walk,) = walk_document(model, TEXT, layer=layer, head=head, place=2)["walks"]
            assert (walk["layer"], walk["head"], walk["place"]) == (layer, head, 2)
            check_sums(walk)
            check_trace(model, walk, ids)
            assert all(score is None for q, row in enumerate(walk["scores"]) for score in row[q + 1 :])


def test_a_banded_layer_sees_the_newest_only() -> None:
    (walk,) = walk_document(small(attention=Banded(3, 2)), TEXT, layer=1)["walks"]
    assert [score is not None for score in walk["scores"][-1]] == [False] * (len(walk["keys"]) - 3) + [True] * 3


def test_every_attention_of_a_translator() -> None:
    model = translator()
    document = walk_document(model, SOURCES[0], "the dog runs")
    sites = [each["site"] for each in document["attentions"]]
    assert sites == ["encoder.self_attention", "decoder.self_attention", "decoder.cross_attention"]
    source = [*model.tokenizer.encode(SOURCES[0]), 2]
    target = [1, *model.tokenizer.encode("the dog runs")]
    for walk in document["walks"]:
        check_sums(walk)
        check_trace(model, walk, source, target)
    cross = document["walks"][-1]
    assert cross["cross"] and cross["sides"] == ["target", "text"]
    assert cross["queries"] == ["the", "dog", "runs", "</s>"] and cross["keys"][-1] == "</s>"
    own = next(walk for walk in document["walks"] if walk["site"] == "decoder.self_attention")
    assert own["sides"] == ["target", "target"] and own["queries"] == ["<s>", "the", "dog", "runs"]


def test_numbers_for_distances_are_added_and_scores_not_divided() -> None:
    model = t5()
    walks = walk_document(model, SOURCES[0], "the dog runs")["walks"]
    for walk in walks:
        check_sums(walk)
        assert walk["scale"] == 1.0 and ("bias" in walk) == (not walk["cross"])
    assert {walk["site"] for walk in walks if "bias" in walk} == {"encoder.self_attention", "decoder.self_attention"}


def test_an_encoder_looks_everywhere() -> None:
    model = reader(MaskedLM())
    (walk,) = walk_document(model, "the dog rides", layer=1, head=1)["walks"]
    check_sums(walk)
    assert walk["queries"][0] == "[CLS]" and not any(score is None for row in walk["scores"] for score in row)
    check_trace(model, walk, model.tokenizer.encode("the dog rides", frame=True))


def test_what_was_turned_can_be_turned_again() -> None:
    model = small(Rotary(100.0))
    (walk,) = walk_document(model, TEXT, layer=1, head=1)["walks"]
    half, turned = walk["width"] // 2, walk["turned"]
    assert walk["shown"] == [number for pair in range(len(walk["shown"]) // 2) for number in (pair, pair + half)]
    for name in ("query", "key"):
        for place, (before, angles) in enumerate(zip(turned[name], turned["angles"], strict=True)):
            for pair, angle in enumerate(angles):
                assert math.isclose(math.cos(angle), math.cos(place * 100.0 ** (-pair / half)), abs_tol=CLOSE)
                x, y = before[2 * pair : 2 * pair + 2]
                wanted = (x * math.cos(angle) - y * math.sin(angle), y * math.cos(angle) + x * math.sin(angle))
                found = [walk[name][place][i] for i in (pair, pair + half)]
                np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert "turned" not in walk_document(small(), TEXT)["walks"][0]


@pytest.mark.parametrize(
    "config",
    [
        RecurrentConfig(30, None, 16),
        RecurrentConfig(30, None, 16, attention="additive", input_feeding=True),
        ConvolutionalConfig(30, None, 16, n_decoder_layers=2),
    ],
    ids=["multiplicative", "additive", "convolutions"],
)
def test_older_networks_have_steps_of_their_own(config: Any) -> None:
    walks = walk_document(predecessor(config), SOURCES[0], "the dog runs")["walks"]
    assert len(walks) == (2 if isinstance(config, ConvolutionalConfig) else 1)
    for walk in walks:
        check_sums(walk)
        assert "joined" not in walk and "one head" in walk["joins"]


def test_without_attention_that_is_said() -> None:
    document = walk_document(predecessor(RecurrentConfig(30, None, 16, attention="none")), SOURCES[0], "the dog")
    assert "without attention" in document["missing"] and "walks" not in document


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"layer": 2}, "there is no layer 2"),
        ({"head": -1}, "there is no head -1"),
        ({"site": "self_atention"}, "self_attention"),
        ({"place": 99}, "there is no 99"),
    ],
)
def test_what_there_is_not(asked: dict[str, Any], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        walk_document(small(), TEXT, **asked)


def test_it_is_json_of_a_bounded_size() -> None:
    model = small(d_model=128, n_heads=2, max_length=128)
    document = walk_document(model, "a dog in blue " * 12, layer=1)
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document and len(document["walks"][0]["queries"]) > 100 and len(text) < 700_000


# --- In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def cells(page: Any, name: str) -> list[list[float | None]]:
    """The numbers of a picture's table; None for an empty cell."""
    rows = opened_table(page, name)[1:]
    return [[float(cell) if cell else None for cell in row[1:]] for row in rows]


@pytest.mark.browser
def test_the_six_steps_in_a_browser(browser: Any, tmp_path: Path) -> None:
    document = walk_document(small(Rotary(100.0)), TEXT)
    walk = document["walks"][0]
    last, shown = len(walk["queries"]) - 1, walk["shown"]
    shares = filled(walk["pattern"], len(walk["keys"]))[last]
    key = int(shares.argmax())
    with panel(browser, "walk", document) as page:
        assert page.locator(".steps > li").count() == 6 and page.locator(".steps math").count() >= 6
        first = cells(page, "walk-1")
        wanted = [
            [walk[name][place][i] for i in shown] for name, place in (("query", last), ("key", key), ("value", key))
        ]
        assert [row[:-1] for row in first[-3:]] == wanted
        assert first[0][:-1] == walk["turned"]["query"][last]
        assert [float(row[2]) for row in opened_table(page, "walk-2")[1:]] == walk["dots"][last]
        scaled = [float(row[2]) for row in opened_table(page, "walk-3")[1:]]
        np.testing.assert_allclose(scaled, np.array(walk["dots"][last]) * walk["scale"])
        assert [float(row[2]) for row in opened_table(page, "walk-4")[1:]] == shares.tolist()
        fifth = np.array(cells(page, "walk-5"), dtype=float)
        np.testing.assert_allclose(fifth[:-1].sum(0), fifth[-1], atol=1e-3)
        assert fifth[-1].tolist() == [walk["mixed"][last][i] for i in shown]
        sixth = cells(page, "walk-6")
        assert sixth[-1] == [*walk["joined"]["output"][last], walk["joined"]["output_length"][last]]
        assert len(sixth) == len(walk["joined"]["heads"]) + 2
        svg = ElementTree.fromstring(exported(page, "walk-4", "SVG", tmp_path))
        assert len([each for each in svg.iter() if "data-bar" in each.attrib]) == len(walk["keys"])
        assert json.loads(exported(page, "walk-2", "JSON", tmp_path))["values"] == walk["dots"][last]


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_by_keyboard_and_with_the_other_panels(browser: Any, dark: bool) -> None:
    document = walk_document(small(), TEXT)
    walk = document["walks"][0]
    with panel(browser, "walk", document, width=390, dark=dark) as page:
        page.evaluate("selection.choose('text', 2)")
        said = page.locator(".walk > .said")
        assert "(position 2) looks at" in said.text_content()
        assert "may not be looked at" in page.locator('[data-step="4"] p').first.text_content()
        page.locator(".token[aria-selected='true']").focus()
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("selection.place('text')") == 1 and "(position 1) looks at" in said.text_content()
        page.locator('[data-step="2"] svg').focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert f"share {round(100 * walk['pattern'][1][1])} %" in said.text_content().replace(".0 %", " %")
        assert page.evaluate("document.activeElement.closest('[data-step]').dataset.step") == "2"
        page.locator("select").select_option("1")
        assert "layer 1, head 0" in page.locator("h2").first.text_content()
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        light = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
        assert (light[0] > light[1]) == dark


@pytest.mark.browser
def test_a_server_is_asked_for_another_head(browser: Any) -> None:
    model = translator()
    document = walk_document(model, SOURCES[0], "the dog runs")
    other = walk_document(model, SOURCES[0], "the dog runs", site="decoder.cross_attention", layer=1, head=1)
    with panel(browser, "walk", document, answer=other) as page:
        attention, layer, head = page.locator("select").all()
        assert [option.text_content() for option in attention.locator("option").all()][2].startswith("cross-attention")
        head.select_option("1")
        until(page, "document.querySelector('h2').textContent.includes('cross-attention')")
        place = len(document["walks"][0]["queries"]) - 1
        assert page.evaluate("asked") == [{"site": "encoder.self_attention", "layer": 0, "head": 1, "place": place}]
        assert "is about to be written and looks at" in page.locator(".walk > .said").text_content()
