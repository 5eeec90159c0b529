"""Answers about people that a GPT was trained on and about people that it never read of, with scores of how unsure it
was: who is known is exactly known here."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from glassformer.errors import InputError
from glassformer.factuality import truth_probe
from glassformer.factuality.attention_score import ATTENTION, attended
from glassformer.factuality.detection import Estimate, auroc, with_interval
from glassformer.factuality.records import Record, read_again, record
from glassformer.factuality.truth_probe import TruthProbe
from glassformer.factuality.uncertainty import ONE_PASS
from glassformer.interpret.people_facts import Who
from glassformer.studies.fact_recall import names
from glassformer.studies.fact_recall.people_recall import ANSWER_TOKENS, one_each
from glassformer.tasks.model import Model
from glassformer.text.people import ATTRIBUTES, Person
from glassformer.text.tokenizer import Tokenizer

LENGTH = "answer length"
NAME_LENGTH, NAME_BAG = "tokens of the name", "which tokens the name has"
PROBE, QUESTION = "truth probe", "question probe"
BASELINES = (LENGTH, NAME_LENGTH, NAME_BAG)
"""What a score has to beat: these know nothing of what the model thinks."""

Target = Literal["never seen", "wrong", "wrong, known", "wrong, never seen"]
TARGETS: Mapping[Target, str] = {
    "never seen": "people never read of, against people of the training",
    "wrong": "wrong answers against right ones, about everybody",
    "wrong, known": "wrong answers against right ones, about people of the training",
    "wrong, never seen": "wrong answers against right ones, about people never read of (right by chance)",
}
RIDGE, FOLDS = (0.1,), 3
"""With one ridge and few folds layers are compared; the probe itself is then fitted as elsewhere."""
BAG_RIDGE = 1e-2


@dataclass(frozen=True, eq=False)
class Told:
    """An answer about a person: whether the person is in the training, and whether the answer is right. The states of
    the record are those after each layer, [2, layers · D]: before the answer, and after it."""

    person: str
    attribute: str
    known: bool
    right: bool
    record: Record


def ask_people(
    model: Model, people: Sequence[Person], count: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> list[Told]:
    """Each attribute of `count` people of the training and of as many never read of, drawn by the seed, or all: each
    asked once, in a wording held out of the training, greedily. Right is the whole value, word by word.

    `InputError` where nobody was held out of the training."""
    found: list[Told] = []
    groups: tuple[Who, ...] = ("trained", "never")
    for who in groups:
        if not any(person.trained == (who == "trained") for person in people):
            raise InputError("exact truth needs people of the training and others: take more ('people' of the recipe).")
        for attribute in ATTRIBUTES:
            say(f"asking the {attribute} of people {'of the training' if who == 'trained' else 'never read of'}")
            facts = one_each(people, attribute, who, count, seed)
            records = record(model, facts.prompts, max_new_tokens=ANSWER_TOKENS, stop=(".",))
            records = read_again(model, records, "residual_post[*]")
            found += [
                Told(fact.subject, attribute, who == "trained", one.text.strip() == fact.answer, one)
                for fact, one in zip(facts, records, strict=True)
            ]
    return found


def halves(told: Sequence[Told], seed: int) -> tuple[list[Told], list[Told]]:
    """Answers about two halves of the people, each with as many known ones: what is fitted or chosen is so on the
    first, and reported on the second."""
    draw = random.Random(f"people halves {seed}")
    first: set[str] = set()
    for known in (True, False):
        group = sorted({one.person for one in told if one.known == known})
        first |= set(draw.sample(group, len(group) // 2))
    return [one for one in told if one.person in first], [one for one in told if one.person not in first]


# --- Scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Scores of the answers about the second half, higher = less sure. `best` is the one-pass score that told known
    people from others best in the first half; `layers` says which layer each probe reads, and `missing` why there is no
    probe, where there is none."""

    scores: Mapping[str, Any]
    best: str
    layers: Mapping[str, int]
    missing: str


def score_all(model: Model, first: Sequence[Told], second: Sequence[Told]) -> Scored:
    """All scores of the second half; probes, layers and the best score are of the first."""
    scores = pass_scores(model, second)
    unknown = [not one.known for one in first]
    areas = {name: auroc(values, unknown) for name, values in pass_scores(model, first).items() if name != LENGTH}
    best = max(areas, key=lambda name: areas[name])
    scores |= name_scores(model.tokenizer, first, second)
    n_layers = model.config.n_decoder_layers
    layers: dict[str, int] = {}
    missing = ""
    parts: Mapping[str, truth_probe.Part] = {PROBE: "answer", QUESTION: "question"}
    for name, part in parts.items():
        try:
            layers[name], probe = fit_probe(first, part, n_layers)
        except InputError as error:
            missing = str(error)
            continue
        scores[name] = np.array(probe.predict(of_layer(second, layers[name], n_layers)))
    return Scored(scores, best, layers, missing)


def pass_scores(model: Model, told: Sequence[Told]) -> dict[str, Any]:
    """What one pass gives: of the records alone, and of attention."""
    records = [one.record for one in told]
    scores = {name: np.array([score.function(one) for one in records]) for name, score in ONE_PASS.items()}
    looked = attended(model, records)
    return scores | {name: np.array([score.function(one) for one in looked]) for name, score in ATTENTION.items()}


def name_scores(tokenizer: Tokenizer, first: Sequence[Told], second: Sequence[Told]) -> dict[str, Any]:
    """What the name alone tells of who was never read of: how many tokens it has (the tokenizer was made of names in
    the training), and a logistic regression on which tokens these are, fitted to the first half."""
    tokens = [[tokenizer.encode(f" {one.person}") for one in half] for half in (first, second)]
    place = {token: number for number, token in enumerate(sorted({each for ids in tokens[0] for each in ids}))}
    bags = [torch.zeros(len(half), len(place)) for half in tokens]
    for bag, half in zip(bags, tokens, strict=True):
        for row, ids in enumerate(half):
            bag[row, [place[each] for each in ids if each in place]] = 1
    weight, bias = names.fit(bags[0], torch.tensor([int(not one.known) for one in first]), 2, BAG_RIDGE)
    logits = (bags[1] @ weight.T + bias).double()
    return {
        NAME_LENGTH: np.array([float(len(ids)) for ids in tokens[1]]),
        NAME_BAG: (logits[:, 1] - logits[:, 0]).numpy(),
    }


def fit_probe(told: Sequence[Told], part: truth_probe.Part, n_layers: int) -> tuple[int, TruthProbe]:
    """A probe of right and wrong answers, on the layer that tells them apart best, each answer scored by a probe that
    has not seen its person. `InputError` where answers are too few, or all of a kind."""
    right, people = [one.right for one in told], [one.person for one in told]

    def told_apart(layer: int) -> float:
        found = truth_probe.fit(of_layer(told, layer, n_layers), right, people, part=part, strengths=RIDGE, folds=FOLDS)
        return auroc(found.held_out, [not one for one in right])

    best = max(range(n_layers), key=told_apart)
    return best, truth_probe.fit(of_layer(told, best, n_layers), right, people, part=part)


def of_layer(told: Sequence[Told], layer: int, n_layers: int) -> list[Record]:
    """The records with the states after one layer alone, [2, D]."""
    found = []
    for one in told:
        assert one.record.states is not None
        found.append(replace(one.record, states=one.record.states.chunk(n_layers, -1)[layer]))
    return found


# --- Figures of them --------------------------------------------------------------------------------------------------


def chosen_for(target: Target, told: Sequence[Told]) -> tuple[list[int], list[bool]]:
    """The rows of the answers that a target is about, and its label of each."""
    group = {"wrong, known": True, "wrong, never seen": False}
    rows = [row for row, one in enumerate(told) if target not in group or one.known == group[target]]
    return rows, [not told[row].known if target == "never seen" else not told[row].right for row in rows]


def area(scores: Any, told: Sequence[Told], target: Target, least: int, resamples: int) -> list[float] | None:
    """AUROC with its 95 % interval over people; None for fewer than `least` answers of either kind."""
    rows, labels = chosen_for(target, told)
    if not least <= sum(labels) <= len(labels) - least:
        return None
    people = [told[row].person for row in rows]
    return plain(with_interval(auroc, scores[rows], labels, people, resamples=resamples))


def difference(
    scores: Any, others: Any, told: Sequence[Told], target: Target, least: int, resamples: int
) -> list[float] | None:
    """The AUROC of the scores less that of the others, on the same answers, with its interval over people."""
    rows, labels = chosen_for(target, told)
    if not least <= sum(labels) <= len(labels) - least:
        return None
    first, second = scores[rows], others[rows]
    whole = auroc(first, labels) - auroc(second, labels)

    def metric(places: Any, happened: Any) -> float:
        if happened.mean() in (0.0, 1.0):
            return whole
        drawn = places.astype(int)
        return auroc(first[drawn], happened) - auroc(second[drawn], happened)

    people = [told[row].person for row in rows]
    return plain(with_interval(metric, range(len(rows)), labels, people, resamples=resamples))


def plain(found: Estimate) -> list[float]:
    """As numbers: the value and the ends of the interval."""
    return [found.value, found.interval.low, found.interval.high]
