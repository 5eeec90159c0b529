"""The translators that come with the package are as good as their cards say, and the cards say enough."""

import os
from pathlib import Path

import pytest

import glassformer as gf
from glassformer.text.corpora import read_pairs
from glassformer.training.recipes import read_recipe

WEIGHTS = Path(gf.__file__).parent / "weights"
SHARED = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared"))
MULTI30K = SHARED / "data" / "multi30k"
NAMES = ("multi30k-en-de", "multi30k-en-de-tok")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_it_can_and_cannot(name: str) -> None:
    card = (WEIGHTS / name / "README.md").read_text()
    for word in ("non-commercial", "cannot", "BLEU", "seed"):
        assert word in card, word


def test_the_one_of_tokens_also_takes_plain_text() -> None:
    """The pipeline is stored with the model: cased text in, detokenised text out."""
    text = gf.load("multi30k-en-de-tok").translate("A man is riding a bike.").text
    assert "mann" in text and text.endswith(".") and not text.endswith(" .")


@pytest.mark.slow
@pytest.mark.skipif(not MULTI30K.exists(), reason="needs Multi30k (docs/data.md), found through GLASSFORMER_SHARED")
@pytest.mark.parametrize("name", NAMES)
def test_is_as_good_as_its_card_says(name: str) -> None:
    """The card has a line "- BLEU 40.12 (signature)"; measuring it again gives it."""
    tokenized = name.endswith("-tok")
    kind = "tok/test_2016_flickr.lc.norm.tok" if tokenized else "raw/test_2016_flickr"
    search = read_recipe(WEIGHTS / name / "recipe.toml").evaluation
    measured = gf.load(name).evaluate(
        read_pairs(MULTI30K / kind, "en", "de"),
        tokenized=tokenized,
        beam=search.beam,
        length_penalty=search.length_penalty,
    )
    card = (WEIGHTS / name / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("- BLEU")]
    assert measured["n"] == 1000
    assert measured["bleu"] == pytest.approx(float(line.split()[2]), abs=0.1)
    assert measured["bleu_signature"] in line
