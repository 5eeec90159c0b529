"""What an edit is judged by: one number a text, computed from the logits at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glassformer.errors import InputError, did_you_mean
from glassformer.interpret.inputs import Inputs

Metric = str | Callable[[Tensor, slice], Tensor]
"""A name (`NAMES`), or a function of logits [b, V] and which rows of the texts they are, that gives [b]."""

Scores = Callable[[Tensor, slice], Tensor]

NAMES = ("logit", "logit_diff", "logprob", "prob", "rank", "correct")
"""Of the answer's first token: its logit; its logit less that of the other answer (of the swapped fact); the logarithm
of its probability in nats; its probability; its rank, 0 is best; 1 where it is the best, else 0."""


def metric_of(metric: Metric, model: Any, inputs: Inputs) -> Scores:
    """The function that a metric means for these texts. Named ones need facts, which bring answers."""
    if callable(metric):
        return metric
    if metric not in NAMES:
        hint = did_you_mean(str(metric), NAMES)
        raise InputError(f"'{metric}' is no metric.{hint} Known: {', '.join(NAMES)}, or a function of the logits.")
    answers = answer_ids(model, inputs)
    others = other_ids(model, inputs) if metric == "logit_diff" else answers

    def scores(logits: Float[Tensor, "b V"], rows: slice) -> Float[Tensor, b]:
        return _named(metric, logits, answers[rows], others[rows])

    return scores


def answer_ids(model: Any, inputs: Inputs) -> Tensor:
    """The first token of each fact's answer."""
    facts = inputs.given
    if not hasattr(facts, "answer_ids"):
        raise InputError("this metric is about the answers of facts; for other texts give a function of the logits.")
    return torch.tensor(facts.answer_ids(model), device=inputs.text.ids.device)


def other_ids(model: Any, inputs: Inputs) -> Tensor:
    """The first token of each swapped fact's answer."""
    swapped: Sequence[int] = inputs.given.swapped().answer_ids(model)
    return torch.tensor(swapped, device=inputs.text.ids.device)


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
