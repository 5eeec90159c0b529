"""One-pass scores against their definitions on records made by hand."""

import math

import numpy
import pytest
from factuality.small_records import made
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.factuality.uncertainty import ONE_PASS

HAND = {
    "sequence probability": 2.25,
    "perplexity": 0.75,
    "least token probability": 1.5,
    "mean entropy": 3.5 / 3,
    "greatest entropy": 2.0,
    "first entropy": 2.0,
    "mean margin": -4.25 / 3,
    "least margin": -0.25,
    "answer length": 3.0,
}


def test_by_hand() -> None:
    assert {name: score.function(made()) for name, score in ONE_PASS.items()} == pytest.approx(HAND)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(-30, 0), st.floats(0, 12), st.floats(0, 30)), min_size=1, max_size=20))
def test_as_numpy_says(tokens: list[tuple[float, float, float]]) -> None:
    logprobs, entropies, margins = (tuple(each) for each in zip(*tokens, strict=True))
    found = {name: score.function(made("", logprobs, entropies, margins)) for name, score in ONE_PASS.items()}
    expected = {
        "sequence probability": -numpy.sum(logprobs),  # lm-polygraph 0.7: MaximumSequenceProbability
        "perplexity": -numpy.mean(logprobs),  # Perplexity
        "mean entropy": numpy.mean(entropies),  # MeanTokenEntropy
        "greatest entropy": numpy.max(entropies),
        "first entropy": entropies[0],
        "least token probability": -numpy.min(logprobs),
        "mean margin": -numpy.mean(margins),
        "least margin": -numpy.min(margins),
        "answer length": len(tokens),
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_every_score_names_its_paper_but_the_baseline() -> None:
    assert [name for name, score in ONE_PASS.items() if not score.paper] == ["answer length"]
    assert all(score.name == name and score.passes == "one pass" for name, score in ONE_PASS.items())


def test_higher_is_more_uncertain() -> None:
    sure = made("", (-0.01,), (0.02,), (5.0,))
    unsure = made("", (-math.log(2), -math.log(2)), (1.0, 1.0), (0.0, 0.0))
    for score in ONE_PASS.values():
        assert score.function(sure) < score.function(unsure), score.name


def test_no_token_no_uncertainty() -> None:
    for score in ONE_PASS.values():
        with pytest.raises(InputError, match="without tokens"):
            score.function(made("", (), (), ()))
