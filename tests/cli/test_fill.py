"""`glassformer fill`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import run_inside

import glassformer as gf


def test_a_line_for_each_word(tiny_fill: Path) -> None:
    wanted = gf.load(tiny_fill).fill("a [MASK] runs", top=3)
    lines = [f"{one.probability:.4f}\t{one.token}\t{one.text}" for one in wanted]  # type: ignore[union-attr]
    done = run_inside("fill", "--model", tiny_fill, "--top", 3, "a [MASK] runs")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == lines and len(lines) == 3


def test_masks_and_texts_stand_apart(tiny_fill: Path) -> None:
    done = run_inside("fill", "--model", tiny_fill, "--top", 2, stdin=b"a [MASK] [MASK]\n[MASK]\n")
    blocks = done.out.split("\n\n")
    assert [len(block.strip().splitlines()) for block in blocks] == [2, 2, 2]


def test_json_has_an_object_for_each_text(tiny_fill: Path) -> None:
    done = run_inside("fill", "--model", tiny_fill, "--top", 2, "--json", "a [MASK] [MASK]", "[MASK]")
    two, one = (json.loads(line) for line in done.out.splitlines())
    assert two["text"] == "a [MASK] [MASK]"
    assert [len(words) for words in two["masks"]] == [2, 2]
    assert [set(word) for words in one["masks"] for word in words] == [{"token", "text", "probability"}] * 2
    assert one["masks"][0][0]["probability"] >= one["masks"][0][1]["probability"]


@pytest.mark.parametrize(
    ("arguments", "hint"), [(["a dog"], "[MASK]"), (["--top", "0", "[MASK]"], "top"), (["[MASK] " * 70], "64")]
)
def test_a_mistake_is_one_line(tiny_fill: Path, arguments: list[str], hint: str) -> None:
    done = run_inside("fill", "--model", tiny_fill, *arguments)
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1
    assert hint in done.err


def test_another_kind_of_model_is_refused(tiny_decoder: Path) -> None:
    done = run_inside("fill", "--model", tiny_decoder, "a [MASK]")
    assert done.code == 2 and "fill" in done.err
