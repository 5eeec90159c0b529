"""The gate before a study: which facts does a model know, and would it answer alike whoever was asked about?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from glassformer.errors import InputError
from glassformer.interpret.shots import joined
from glassformer.models.decoder import Decoder
from glassformer.tasks.inputs import text_ids
from glassformer.tasks.intervals import Interval, wilson

if TYPE_CHECKING:
    from glassformer.interpret.facts import Fact, Facts
    from glassformer.tasks.model import Model

_ANY = Interval(0.0, 1.0)


@dataclass(frozen=True)
class Gate:
    """How many facts a model knows. Shares are from 0 to 1, intervals are of 95 %.

    Of `n` facts asked, `known` are known: `accuracy` with Wilson's `interval`. `balanced` is the mean of the answers'
    own accuracies, so that every answer counts alike; its interval is a bootstrap over the facts of each answer.
    `majority` is the share of facts with the most frequent answer, which is how often one right guess for all would be
    right. `made_up` is how often prompts with made-up subjects gave the answer of the real ones, `made_up_balanced` the
    same by answer. `ambiguous` facts were not asked, as their answers begin alike. `classes`: of each answer, how many
    are known and how many were asked.
    """

    n: int
    known: int
    interval: Interval
    balanced: float
    balanced_interval: Interval
    majority: float
    made_up: int
    made_up_interval: Interval
    made_up_balanced: float
    ambiguous: int
    classes: Mapping[str, tuple[int, int]]

    @property
    def accuracy(self) -> float:
        """The share of known facts; 0 where none was asked."""
        return self.known / self.n if self.n else 0.0

    @property
    def made_up_share(self) -> float:
        """How often made-up subjects "pass"; 0 where none was asked."""
        return self.made_up / self.n if self.n else 0.0

    @property
    def passed(self) -> bool:
        """Whether `balanced`, by the low end of its interval, exceeds both what one guess for all and what made-up
        subjects get."""
        bar = max(self.majority, self.made_up_share, self.made_up_balanced)
        return bool(self.n) and self.balanced_interval.low > bar

    def __str__(self) -> str:
        if not self.n:
            return f"no fact could be asked: the answers of all {self.ambiguous} begin alike. The gate is not passed."
        return "\n".join(
            (
                f"{self.known} of {self.n} facts known: {_percent(self.accuracy, self.interval)}",
                f"mean over {len(self.classes)} answers: {_percent(self.balanced, self.balanced_interval)}; "
                f"the most frequent answer has {100 * self.majority:.1f} % of the facts",
                f"made-up subjects give the same answer in {self.made_up} of {self.n}: "
                f"{_percent(self.made_up_share, self.made_up_interval)}; mean over answers "
                f"{100 * self.made_up_balanced:.1f} %",
                *([f"{self.ambiguous} facts not asked, their answers begin alike"] * bool(self.ambiguous)),
                f"The gate is {'passed' if self.passed else 'not passed'}.",
            )
        )


def measure(model: Model, facts: Facts, batch_size: int = 32) -> tuple[list[int], Gate]:
    """Which facts the model knows, by number, and the gate.

    A fact is known if, after its prompt, the first token of the right answer (`answer_ids`) has the largest logit of
    all tokens. Facts whose answer begins with the token that another answer of their relation begins with are not
    asked. Raises `InputError` for a model that is no decoder, or no facts.
    """
    if not isinstance(model.network, Decoder):
        raise InputError(
            f"what a model knows is asked of its next token: give a decoder; this model is {model.purpose}."
        )
    if not len(facts):
        raise InputError("there are no facts to ask the model about.")
    first = answer_ids(model, facts)
    asked = _unambiguous(facts, first)
    chosen, wanted = facts.take(asked), [first[row] for row in asked]
    right = _answers_right(model, chosen.prompts, wanted, batch_size)
    made_up = _answers_right(model, chosen.with_made_up_subjects().prompts, wanted, batch_size)
    gate = _gate(chosen.labels, right, made_up, len(facts) - len(asked))
    return [row for row, known in zip(asked, right, strict=True) if known], gate


def answer_ids(model: Model, facts: Sequence[Fact]) -> list[int]:
    """Of each fact the token that its right answer begins with, as the model would write it after the prompt: the first
    one that "prompt answer" has and the prompt has not. Between the two stands a space, unless the prompt ends with
    one. Raises `InputError` where the prompt's tokens change when the answer follows, and for an answer without any.
    """
    prompts = text_ids(model, [fact.prompt for fact in facts])
    whole = text_ids(model, [joined(fact.prompt, fact.answers[0]) for fact in facts])
    found = []
    for fact, before, after in zip(facts, prompts, whole, strict=True):
        if after[: len(before)] != before or len(after) == len(before):
            raise InputError(
                f"fact '{fact.id}': the tokens of its prompt must stay as they are when the answer "
                f"{fact.answers[0]!r} follows; let the prompt end with a whole word, without a space: "
                f"{fact.prompt[-40:]!r}."
            )
        found.append(after[len(before)])
    return found


@torch.no_grad()
def next_tokens(model: Model, prompts: Sequence[str], batch_size: int = 32) -> list[int]:
    """The likeliest token after each prompt. The head reads the last states alone: a vocabulary at every position of
    a batch would be the largest tensor of all."""
    network: Any = model.network
    rows = [torch.tensor(ids) for ids in text_ids(model, prompts)]
    if not all(len(row) for row in rows):
        raise InputError("a prompt must have at least one token.")
    found: list[int] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        ids = pad_sequence(batch, batch_first=True, padding_value=model.config.pad_id or 0).to(model.device)
        last = torch.tensor([len(row) - 1 for row in batch], device=model.device)
        hidden = network.hidden(ids)[torch.arange(len(batch), device=model.device), last]
        found += network.logits(network.head(hidden)).argmax(-1).tolist()
    return found


def _answers_right(model: Model, prompts: Sequence[str], wanted: Sequence[int], batch_size: int) -> list[bool]:
    given = next_tokens(model, prompts, batch_size)
    return [token == right for token, right in zip(given, wanted, strict=True)]


def _unambiguous(facts: Facts, first: Sequence[int]) -> list[int]:
    """The facts whose answer's first token belongs to no other answer of their relation."""
    owners: dict[tuple[str, int], set[str]] = defaultdict(set)
    for fact, token in zip(facts, first, strict=True):
        owners[fact.relation, token].add(fact.answers[0])
    shared = {(relation, answer) for (relation, _), answers in owners.items() if len(answers) > 1 for answer in answers}
    return [row for row, fact in enumerate(facts) if (fact.relation, fact.answers[0]) not in shared]


def _gate(labels: Sequence[str], right: Sequence[bool], made_up: Sequence[bool], ambiguous: int) -> Gate:
    n = len(labels)
    if not n:
        return Gate(0, 0, _ANY, 0.0, _ANY, 0.0, 0, _ANY, 0.0, ambiguous, {})
    asked = Counter(labels)
    known = Counter(label for label, hit in zip(labels, right, strict=True) if hit)
    passing = Counter(label for label, hit in zip(labels, made_up, strict=True) if hit)
    counts = {label: (known[label], count) for label, count in asked.items()}
    return Gate(
        n,
        sum(right),
        wilson(sum(right), n),
        _class_mean(known, asked),
        _class_mean_interval(counts),
        max(asked.values()) / n,
        sum(made_up),
        wilson(sum(made_up), n),
        _class_mean(passing, asked),
        ambiguous,
        counts,
    )


def _class_mean(hits: Mapping[str, int], asked: Mapping[str, int]) -> float:
    return float(np.mean([hits[label] / count for label, count in asked.items()]))


def _class_mean_interval(counts: Mapping[str, tuple[int, int]], resamples: int = 10_000, seed: int = 0) -> Interval:
    """A percentile bootstrap (Efron 1979) with as many facts of each answer as there are: of n facts drawn with
    replacement from n, k of them known, Binomial(n, k / n) are known. An answer of few facts has too little spread in
    it, and one whose facts are all known, or none, has no spread: ask about answers with many facts."""
    known, asked = np.array(list(counts.values())).T
    drawn = np.random.default_rng(seed).binomial(asked, known / asked, (resamples, len(asked))) / asked
    low, high = np.quantile(drawn.mean(1), [0.025, 0.975])
    return Interval(float(low), float(high))


def _percent(share: float, interval: Interval) -> str:
    return f"{100 * share:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
