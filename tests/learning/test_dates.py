"""Learning, for real: the demo's recipe from nothing to the exact dates of days it never saw, in every language."""

from pathlib import Path

import pytest

import glassformer as gf
from glassformer.cli.demo import RECIPE, measure
from glassformer.text.dates import dates_corpus


@pytest.mark.slow
def test_the_demo_learns_dates(tmp_path: Path) -> None:
    model = gf.train(RECIPE, run=tmp_path / "dates")
    score, _ = measure(model, dates_corpus("test"))
    assert score.share >= 0.99
    assert min(score.by_language.values()) >= 0.95
