"""The translators that come with the package, by the lines of the README."""

from __future__ import annotations

import pytest
from processes import Glassformer

import glassformer as gf
from glassformer.checkpoints.native import find

NAMES = ("multi30k-en-de", "multi30k-en-de-tok")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_says_what_it_is(name: str) -> None:
    folder = find(name)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "non-commercial" in card


@pytest.mark.parametrize("name", NAMES)
def test_it_translates_a_natural_sentence(name: str, glassformer: Glassformer) -> None:
    done = glassformer("translate", "--model", name, "A man in a blue shirt is riding a bike.")
    assert (done.code, done.err) == (0, "")
    words = done.out.lower().replace(".", "").split()
    assert {"mann", "blauen", "fährt"} <= set(words), done.out


def test_the_one_of_tokens_reads_and_writes_tokens(glassformer: Glassformer) -> None:
    given = ("translate", "--model", "multi30k-en-de-tok", "--tokenized", "a man , in a blue shirt , rides a bike .")
    done = glassformer(*given)
    assert done.code == 0 and done.out.endswith(" .\n") and done.out == done.out.lower()


def test_from_python() -> None:
    (result,) = gf.load("multi30k-en-de").translate(["A man rides a bike."], beam=5, n_best=3)
    assert result.text.startswith("Ein Mann")
    assert len(result.alternatives) == 2
    assert result.score >= result.alternatives[0].score >= result.alternatives[1].score
