"""The view "positions": its numbers against the formulas in numpy, and in a browser against the document."""

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
from serving.harness import chromium, exported, numbers, opened_table, panel
from serving.small_views import SOURCES, WRITER_TEXTS, predecessor, reader, translator, writer

import glassformer as gf
from glassformer.models.config import ConvolutionalConfig, MaskedLM, Positions, RecurrentConfig, Relative, Rotary
from glassformer.models.config import Sinusoidal as Sines
from glassformer.models.decoder import Decoder
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.serving.positions import COLUMNS, FARTHEST, ROWS, positions_document
from glassformer.tasks.model import Model

CLOSE = 6e-5
SVG = "{http://www.w3.org/2000/svg}"


def with_positions(positions: Positions, **changes: Any) -> Model:
    """The small writer with another way to know positions."""
    model = writer()
    assert isinstance(model.network, Decoder)
    torch.manual_seed(0)
    network = Decoder(replace(model.network.config, positions=positions, **changes))
    return Model(network.eval(), model.tokenizer, model.pipeline, "generation")


def translating(positions: Positions) -> Model:
    model = translator()
    torch.manual_seed(3)
    network = EncoderDecoder(replace(model.config, positions=positions))  # type: ignore[arg-type, type-var]
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return Model(network.eval(), model.tokenizer, model.pipeline)


def only(model: Model, text: str = WRITER_TEXTS[0], target: str | None = None) -> dict[str, Any]:
    (part,) = positions_document(model, text, target)["parts"]
    return part


# --- Documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("halves", [False, True])
def test_sines_and_cosines(halves: bool) -> None:
    part = only(with_positions(Sines(halves), d_model=160, max_length=200))
    assert (part["kind"], part["length"], part["width"], len(part["columns"])) == ("sinusoidal", 200, 160, COLUMNS)
    pair = np.array([c % 80 if halves else c // 2 for c in part["columns"]])
    sine = np.array([c < 80 if halves else c % 2 == 0 for c in part["columns"]])
    angle = np.arange(ROWS)[:, None] / 10000.0 ** (2 * pair / 160)
    np.testing.assert_allclose(part["values"], np.where(sine, np.sin(angle), np.cos(angle)), atol=CLOSE)
    np.testing.assert_allclose(part["wavelengths"], 2 * math.pi * 10000.0 ** (2 * pair / 160), rtol=1e-6, atol=CLOSE)
    assert [wave == "sine" for wave in part["waves"]] == sine.tolist()


def test_likeness_of_sines_is_the_mean_of_cosines() -> None:
    part = only(with_positions(Sines(), max_length=200))
    frequency = 10000.0 ** (-np.arange(0, part["width"], 2) / part["width"])
    distance = np.arange(FARTHEST + 1)
    assert part["distances"] == distance.tolist()
    for name in ("similarity", "lowest", "highest"):  # wherever the two stand
        np.testing.assert_allclose(part[name], np.cos(distance[:, None] * frequency).mean(1), atol=CLOSE)


def test_learned_vectors() -> None:
    model = writer()
    assert isinstance(model.network, Decoder)
    table = model.network.stack.embedding.position.detach().numpy()  # type: ignore[union-attr]
    part = only(model)
    assert part["kind"] == "learned" and "".join(part["tokens"]) == WRITER_TEXTS[0]
    np.testing.assert_allclose(part["values"], table, atol=CLOSE)
    for distance in (0, 1, 7):
        pairs = [(table[i], table[i + distance]) for i in range(len(table) - distance)]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
        wanted = [np.mean(cosines), np.min(cosines), np.max(cosines)]
        found = [part[name][distance] for name in ("similarity", "lowest", "highest")]
        np.testing.assert_allclose(found, wanted, atol=CLOSE)


def test_the_strongest_wave_of_learned_vectors() -> None:
    model = writer()
    with torch.no_grad():
        table = model.network.stack.embedding.position  # type: ignore[union-attr]
        places = torch.arange(len(table))
        table[:, 0] = torch.sin(2 * math.pi * places / 12) + 5
    part = only(model)
    assert part["wavelengths"][0] == pytest.approx(12)
    assert "Fourier" in part["period"]


def test_rotary_angles_are_those_that_the_network_turns_by() -> None:
    model = with_positions(Rotary(500.0))
    part, half = only(model), model.network.config.head_width // 2  # type: ignore[union-attr, operator]
    frequency = 500.0 ** (-np.arange(half) / half)
    np.testing.assert_allclose(part["values"], np.cos(np.arange(48)[:, None] * frequency), atol=CLOSE)
    np.testing.assert_allclose(part["wavelengths"], 2 * math.pi / frequency, rtol=1e-5)
    wanted = np.cos(np.array(part["distances"])[:, None] * frequency).mean(1)
    np.testing.assert_allclose(part["similarity"], wanted, atol=CLOSE)
    ids = model.tokenizer.encode(WRITER_TEXTS[0])
    trace = gf.trace(model, ids, "self_attention.key[0]", "norm_1.output[0]")
    block: Any = model.network.get_submodule("stack.blocks.0")
    before = block.self_attention.to_key(trace["norm_1.output[0]"])[0].unflatten(-1, (-1, 2 * half)).transpose(0, 1)
    angle = 2 * math.pi * torch.arange(len(ids))[:, None] / torch.tensor(part["wavelengths"])
    turned = before[..., :half] * angle.cos() - before[..., half:] * angle.sin()
    torch.testing.assert_close(trace["self_attention.key[0]"][0][..., :half], turned, atol=1e-4, rtol=0)


def test_relative_numbers_are_those_added_to_scores() -> None:
    model = translating(Relative(8, 20))
    encoder, decoder = positions_document(model, SOURCES[0], "the dog runs")["parts"]
    assert [encoder["title"], decoder["title"]] == ["encoder", "decoder"]
    assert (encoder["side"], decoder["side"], decoder["tokens"][0]) == ("text", "target", "<s>")
    assert encoder["columns"] == list(range(-20, 21)) and decoder["columns"] == list(range(-20, 1))
    source = model.tokenizer.encode(SOURCES[0])
    trace = gf.trace(model, source, "encoder.relative.bias", "decoder.relative.bias", target=[1, 5, 6, 7])
    for part, name in ((encoder, "encoder.relative.bias"), (decoder, "decoder.relative.bias")):
        added, values = trace[name][0].numpy(), np.array(part["values"])
        for q in range(added.shape[1]):
            for k in range(added.shape[2]):
                if k - q in part["columns"]:
                    np.testing.assert_allclose(values[:, part["columns"].index(k - q)], added[:, q, k], atol=CLOSE)
        np.testing.assert_allclose(part["similarity"], values.mean(0), atol=1.1e-4)
    same = [
        c for c, bucket in zip(encoder["columns"], encoder["buckets"], strict=True) if bucket == encoder["buckets"][0]
    ]
    assert same[0] == -20 and len(same) > 1


def test_two_stacks_with_one_table_are_one_part() -> None:
    assert only(translating(Sines()), SOURCES[0], "the dog")["title"] == "encoder and decoder, alike"
    parts = positions_document(predecessor(ConvolutionalConfig(30, None, 16)), SOURCES[0], "the dog")["parts"]
    assert [(part["title"], part["kind"]) for part in parts] == [("encoder", "learned"), ("decoder", "learned")]


def test_a_recurrent_network_says_why_it_has_none() -> None:
    document = positions_document(predecessor(RecurrentConfig(30, None, 16)), SOURCES[0], "the dog")
    assert "no positions" in document["missing"] and "parts" not in document


def test_it_is_small_json() -> None:
    for model in (with_positions(Sines(), d_model=512, max_length=512), reader(MaskedLM())):
        document = positions_document(model, "the dog")
        text = json.dumps(document, allow_nan=False)
        assert json.loads(text) == document and len(text) < 150_000


# --- In a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_sines_in_a_browser(browser: Any, dark: bool, tmp_path: Path) -> None:
    document = positions_document(with_positions(Sines()), WRITER_TEXTS[0])
    (part,) = document["parts"]
    with panel(browser, "positions", document, dark=dark) as page:
        assert numbers(opened_table(page, "positions")) == part["values"]
        rows = numbers(opened_table(page, "positions-similarity"))
        assert [row[0] for row in rows] == part["similarity"]
        grid = page.locator('figure[data-name="positions"] svg')
        assert grid.locator("rect:not(.pointer)").count() == len(part["values"]) * len(part["columns"])
        grid.focus()
        for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        said = page.locator(".said").first.text_content()
        last = len(part["tokens"]) - 1
        assert f"Position {last}" in said and "dimension 3, a cosine" in said
        assert f"every {part['wavelengths'][3]:.1f} positions" in said
        page.evaluate("selection.choose('text', 2)")  # another panel's choice
        assert f"Position 2 “{part['tokens'][2].strip()}”" in page.locator(".said").first.text_content()
        grid.focus()
        page.keyboard.press("ArrowDown")
        assert page.evaluate("selection.place('text')") == 3
        svg = ElementTree.fromstring(exported(page, "positions", "SVG", tmp_path))
        assert len(svg.findall(f"{SVG}rect")) == 1 + len(part["values"]) * len(part["columns"])
        assert not any("var(" in value for each in svg.iter() for value in each.attrib.values())
        assert exported(page, "positions", "PNG", tmp_path).startswith(b"\x89PNG")
        assert json.loads(exported(page, "positions", "JSON", tmp_path)) == part


@pytest.mark.browser
@pytest.mark.parametrize(
    ("positions", "says"), [(Rotary(), "pair"), (Relative(8, 20), "adds"), (Sines(True), "a sine")]
)
def test_the_other_kinds_in_a_narrow_browser(browser: Any, positions: Positions, says: str) -> None:
    document = positions_document(with_positions(positions), WRITER_TEXTS[0])
    (part,) = document["parts"]
    with panel(browser, "positions", document, width=390) as page:
        assert numbers(opened_table(page, "positions")) == part["values"]
        box = page.locator('figure[data-name="positions"] svg').bounding_box()
        page.mouse.move(box["x"] + 80, box["y"] + 20)
        assert says in page.locator(".said").first.text_content()
        page.locator('figure[data-name="positions-similarity"] svg').focus()
        page.keyboard.press("Home")
        assert page.locator(".said").nth(1).text_content().startswith("Distance ")
        assert page.locator("math").count() >= 1
