"""What an edit is judged by: one number a text, computed from the logits at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.inputs import Inputs, Rows
from glassformer.interpret.words import first_tokens

Metric = str | Callable[[Tensor, Rows], Tensor]
"""A name (`NAMES`), or a function of logits [b, V] and which rows of the texts they are, that gives [b]."""

Scores = Callable[[Tensor, Rows], Tensor]

NAMES = ("logit", "logit_diff", "logprob", "prob", "rank", "correct")
"""Of the answer's first token: its logit; its logit less that of the other answer (of the swapped fact); the logarithm
of its probability in nats; its probability; its rank, 0 is best; 1 where it is the best, else 0."""


def metric_of(metric: Metric, model: Any, inputs: Inputs, others: Sequence[str] | None = None) -> Scores:
    """The function that a metric means for these texts. Named ones need facts, which bring answers; `others` are the
    answers that "logit_diff" compares them with, by default those of the swapped facts."""
    if callable(metric):
        return metric
    if metric not in NAMES:
        hint = did_you_mean(str(metric), NAMES)
        raise InputError(f"'{metric}' is no metric.{hint} Known: {', '.join(NAMES)}, or a function of the logits.")
    answers = first_tokens(model, inputs)
    against = answers
    if metric == "logit_diff":
        against = first_tokens(model, inputs, inputs.given.swapped().answers if others is None else others)

    def scores(logits: Float[Tensor, "b V"], rows: Rows) -> Float[Tensor, b]:
        return _named(metric, logits, answers[rows], against[rows])

    return scores


def _named(name: str, logits: Tensor, answers: Tensor, others: Tensor) -> Tensor:
    answer = logits.gather(1, answers[:, None])[:, 0]
    if name == "logit":
        return answer
    if name == "logit_diff":
        return answer - logits.gather(1, others[:, None])[:, 0]
    if name in ("rank", "correct"):
        rank = (logits > answer[:, None]).sum(1)
        return rank if name == "rank" else (rank == 0).to(logits.dtype)
    logprob = answer - logits.logsumexp(-1)
    return logprob if name == "logprob" else logprob.exp()
