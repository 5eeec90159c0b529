"""Scores of uncertainty that one pass gives: small functions of a record, higher = more uncertain.

Definitions are those of lm-polygraph 0.7 where it has them. None is a probability of being wrong: see `calibration`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glassformer.errors import InputError
from glassformer.factuality.records import Record

Passes = Literal["one pass", "one more call", "sampled"]
"""What a score costs beside the answer itself: nothing, another pass of the model, or several more answers."""


@dataclass(frozen=True)
class Score:
    """A way to say how uncertain an answer is. `function` gives a number, higher = more uncertain; of what, depends on
    `passes`: a `Record`, `one_more_call.Again`, or `sampled.Samples`. `paper` says who proposed it; "" marks a
    baseline."""

    name: str
    function: Callable[[Any], float]
    paper: str
    passes: Passes


def sequence_probability(record: Record) -> float:
    """−Σ log p(token): how improbable the whole answer is. The longer, the more improbable."""
    return -math.fsum(_some(record.logprobs))


def perplexity(record: Record) -> float:
    """The mean of −log p(token): the logarithm of what is called perplexity, and in the same order."""
    return -_mean(record.logprobs)


def token_probability(record: Record) -> float:
    """−log p of the least probable token."""
    return -min(_some(record.logprobs))


def mean_entropy(record: Record) -> float:
    """The mean entropy of what could have stood at each token's place."""
    return _mean(record.entropies)


def max_entropy(record: Record) -> float:
    """The entropy at the place where it is greatest."""
    return max(_some(record.entropies))


def first_entropy(record: Record) -> float:
    """The entropy of the first token, before anything has been said."""
    return _some(record.entropies)[0]


def mean_margin(record: Record) -> float:
    """Less the mean of log p(best token) − log p(second one)."""
    return -_mean(record.margins)


def min_margin(record: Record) -> float:
    """The same at the place where the two best are closest."""
    return -min(_some(record.margins))


def answer_length(record: Record) -> float:
    """How many tokens the answer has: what every other score has to beat."""
    return float(len(_some(record.ids)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(_some(values)) / len(values)


def _some(values: Sequence[Any]) -> Sequence[Any]:
    if not values:
        raise InputError("an answer without tokens has no uncertainty: let the model write at least one.")
    return values


_FOMICHEVA = "Fomicheva et al. 2020, Unsupervised Quality Estimation for Neural Machine Translation"
_MANAKUL = "Manakul et al. 2023, SelfCheckGPT"
_SCHEFFER = "Scheffer et al. 2001, Active Hidden Markov Models for Information Extraction"


def table_of(*scores: Score) -> dict[str, Score]:
    """Scores by name."""
    return {score.name: score for score in scores}


ONE_PASS: Mapping[str, Score] = table_of(
    Score("sequence probability", sequence_probability, "Fadeeva et al. 2023, LM-Polygraph", "one pass"),
    Score("perplexity", perplexity, _FOMICHEVA, "one pass"),
    Score("least token probability", token_probability, _MANAKUL, "one pass"),
    Score("mean entropy", mean_entropy, _FOMICHEVA, "one pass"),
    Score("greatest entropy", max_entropy, _MANAKUL, "one pass"),
    Score("first entropy", first_entropy, "Zhao et al. 2024, The First to Know", "one pass"),
    Score("mean margin", mean_margin, _SCHEFFER, "one pass"),
    Score("least margin", min_margin, _SCHEFFER, "one pass"),
    Score("answer length", answer_length, "", "one pass"),
)
"""All that a record tells by itself."""
