"""From files to batches: which texts go through the pipeline, what a fingerprint tells apart, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import tiny_recipe

from glassformer.errors import InputError
from glassformer.training.jobs.job import Given, fingerprint
from glassformer.training.jobs.translation import prepare, split_pairs
from glassformer.training.recipes import Data, Recipe, read_recipe

TEXTS = {"en": ["A Man walks .", "Two   dogs ."], "de": ["Ein Mann geht .", "Zwei Hunde ."]}


def write(folder: Path) -> Recipe:
    for split in ("train", "valid"):
        for suffix, lines in TEXTS.items():
            (folder / f"{split}.{suffix}").write_text("\n".join(lines) + "\n")
    return read_recipe(tiny_recipe(), {"text.lowercase": True})


def test_text_goes_through_the_pipeline(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path), {"evaluation.tokenized": False})
    prepared = prepare(Given(recipe, tmp_path))
    assert prepared.tokenizer.encode("man") != prepared.tokenizer.encode("Man")
    assert prepared.tokenizer.decode(prepared.tokenizer.encode("a man walks .")) == "a man walks ."
    assert "<unk>" in prepared.tokenizer.decode(prepared.tokenizer.encode("Man"))


def test_tokens_are_read_as_they_are(tmp_path: Path) -> None:
    prepared = prepare(Given(write(tmp_path), tmp_path))
    assert prepared.tokenizer.decode(prepared.tokenizer.encode("A Man walks .")) == "A Man walks ."
    assert prepared.pipeline.lowercase


def test_a_fingerprint_tells_order_and_borders_apart() -> None:
    sides = [[[[1, 2], [3]], [[4]]], [[[1], [2, 3]], [[4]]], [[[3], [1, 2]], [[4]]], [[[1, 2], [3]], [[5]]]]
    assert len({fingerprint(each) for each in sides}) == 4
    assert fingerprint(sides[0]) == fingerprint([[[1, 2], [3]], [[4]]])


def test_what_the_recipe_does_not_name_is_refused() -> None:
    with pytest.raises(InputError, match="names no test data: set 'data.test'"):
        split_pairs(Data(train="x", source="en", target="de"), "test")
    with pytest.raises(InputError, match="must name the two languages"):
        split_pairs(Data(train="x"), "train")


def test_the_corpus_of_dates_needs_no_files() -> None:
    pairs = split_pairs(Data(kind="dates"), "test")
    assert len(pairs.source) == len(pairs.target) == len(pairs.locales) > 100
