"""What a GPT that was trained on people recalls of them in words that it never read, and of people it never read of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from glassformer.interpret.facts import Facts
from glassformer.interpret.people_facts import Who, people_facts
from glassformer.studies.fact_recall.drawing import Band, bands
from glassformer.studies.fact_recall.names import name_classifier
from glassformer.studies.fact_recall.predictions import RECALLED
from glassformer.studies.fact_recall.statistics import mean_shown, paired, shown
from glassformer.studies.study import Claim, Part, Picture, Result, Setting, Table, claim
from glassformer.tasks.intervals import Interval, wilson
from glassformer.tasks.model import Model
from glassformer.text.people import ATTRIBUTES, Person, values_of

NAME = "recall"
ANSWER_TOKENS = 8
MAIN, CONTROL = "many wordings", "single wording"


@dataclass(frozen=True, eq=False)
class Trained:
    """The GPTs that were trained on people: by `MAIN` and, where there is one, `CONTROL`."""

    models: Mapping[str, Model]
    people: Sequence[Person]
    seed: int = 0


def one_each(
    people: Sequence[Person], attribute: str, who: Who = "trained", count: int | None = None, seed: int = 0
) -> Facts:
    """One fact a person in held-out wordings, which take turns; of `count` people drawn by the seed, or all."""
    found, turns = people_facts(people, attribute, who=who), len(ATTRIBUTES[attribute].held_out)
    n = len(found) // turns
    chosen = range(n) if count is None or count >= n else sorted(Random(f"people {seed}").sample(range(n), count))
    return found.take(turns * place + number % turns for number, place in enumerate(chosen))


def part(trained: Trained) -> Part:
    """The first part of the study of a trained GPT."""
    return Part(
        name=NAME,
        title="What the trained GPT recalls",
        question=(
            "A GPT was trained on what each person plays, likes, and lives in. Does it complete sentences that it "
            "never read about these people? And what does it say of people whom it never read of?"
        ),
        method=(
            "Four wordings of each attribute are held out of the training, and so are a fifth of the people. Each "
            "person is asked once for each attribute, the wordings in turn; the model goes on greedily, and is right "
            "if it writes the whole answer. Colours (10) and cities (100) were drawn by a hash: of people never "
            "trained nobody can know them, so that the count of right ones must lie inside the central 95 % of the "
            "binomial distribution of chance. Sports are real, and names tell something of them: beside the model "
            "stands a logistic regression on the bag of the name's tokens, fitted to the trained people. The control "
            "is the same network, trained as long on one wording of each fact."
        ),
        run=lambda setting: _run(trained, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
    )


def _run(trained: Trained, setting: Setting) -> Result:
    count = setting.pick(12, 150, 1000)
    found: dict[str, Any] = {}
    for name, model in trained.models.items():
        setting.say(f"   asking the GPT of {name}")
        found[name] = {attribute: _asked(trained, model, attribute, count) for attribute in ATTRIBUTES}
    setting.say("   a classifier of names")
    names = name_classifier(trained.people, trained.models[MAIN].tokenizer, setting.pick(500, None, None))
    chances = {attribute: 1 / len(values_of(trained.people, attribute)) for attribute in ATTRIBUTES}
    tests = []
    if CONTROL in found:
        first, second = (_by_person(found[name]) for name in (MAIN, CONTROL))
        words = f"mean over attributes {mean_shown(first)} against {mean_shown(second)}"
        differences = [a - b for a, b in zip(first, second, strict=True)]
        tests.append(paired("wordings generalise", differences, words, least=setting.pick(4, 10, 30)))
    return {"models": found, "chance": chances, "names": names, "tests": tests}


def _asked(trained: Trained, model: Model, attribute: str, count: int) -> dict[str, list[bool]]:
    """Whether each answer was right, of trained people and of those never trained."""
    return {
        who: right_of(
            model, one_each(trained.people, attribute, who, count if who == "trained" else None, trained.seed)
        )
        for who in ("trained", "never")
        if who == "trained" or any(not person.trained for person in trained.people)
    }  # type: ignore[misc]


def right_of(model: Model, facts: Facts) -> list[bool]:
    """Whether the model goes on with each answer, word by word."""
    said = model.generate(facts.prompts, max_new_tokens=ANSWER_TOKENS, stop=(".",))
    return [each.text.strip() == fact.answer for each, fact in zip(said, facts, strict=True)]


def _by_person(found: Mapping[str, Mapping[str, Sequence[bool]]]) -> list[float]:
    rows = [found[attribute]["trained"] for attribute in ATTRIBUTES]
    return [sum(each) / len(rows) for each in zip(*rows, strict=True)]


def by_chance(n: int, share: float) -> tuple[int, int]:
    """The least and the most right ones of n inside the central 95 % of Binomial(n, share)."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(n + 1)
    ]  # fmt: skip
    below = np.cumsum(np.exp(logs))
    return int((below >= 0.025).argmax()), int((below >= 0.975 - 1e-12).argmax())


def _claims(result: Result) -> list[Claim]:
    main = result["models"][MAIN]
    shares = {attribute: sum(each["trained"]) / len(each["trained"]) for attribute, each in main.items()}
    words = "; ".join(f"{attribute} {_counted(each['trained'])}" for attribute, each in main.items())
    found = [
        claim(
            "The GPT completes held-out wordings about the people that it was trained on.",
            f"At least {100 * RECALLED:g} % right in each attribute.",
            f"{words}.",
            all(share >= RECALLED for share in shares.values()),
        )
    ]
    return [*found, _nothing_known(result)]


def _nothing_known(result: Result) -> Claim:
    said, inside = [], []
    for attribute in ("colour", "city"):
        right = result["models"][MAIN][attribute].get("never", [])
        if right:
            low, high = by_chance(len(right), result["chance"][attribute])
            inside.append(low <= sum(right) <= high)
            said.append(f"{attribute}: {sum(right)} of {len(right)}, by chance {low} to {high}")
    return claim(
        "Of people whom it never read of, it knows no colour and no city.",
        "The count of right ones lies inside the central 95 % of the binomial distribution of chance.",
        f"{'; '.join(said)}." if said else "Not testable: everybody is in the training.",
        all(inside) if inside else None,
    )


def _counted(right: Sequence[bool]) -> str:
    around = wilson(sum(right), len(right))
    percent = [100 * each for each in (sum(right) / len(right), around.low, around.high)]
    return f"{shown(*percent, digits=1)} % (n = {len(right)})"


def _tables(result: Result) -> list[Table]:
    rows = [
        (attribute, f"{100 * result['chance'][attribute]:.1f} %", name, *_both(each))
        for name, found in result["models"].items()
        for attribute, each in found.items()
    ]
    names = result["names"]
    beside = _counted(names["right"]) if names["right"] else "nobody is left to test it on"
    rows.append(("sport", "", "bag of the name's tokens, logistic regression", "", beside))
    columns = (
        "attribute",
        "chance",
        "trained on",
        "trained people, held-out wordings [95 %]",
        "people never trained [95 %]",
    )
    return [Table("Right answers", columns, tuple(rows))]


def _both(each: Mapping[str, Sequence[bool]]) -> list[str]:
    return [_counted(each[who]) if each.get(who) else "" for who in ("trained", "never")]


def _draw(result: Result, folder: Path) -> list[Picture]:
    groups = {
        who: [
            Band(f"{attribute}, {name}", sum(each[who]) / len(each[who]), wilson(sum(each[who]), len(each[who])))
            for name, found in result["models"].items()
            for attribute, each in found.items()
            if each.get(who)
        ]
        for who in ("trained", "never")
    }
    names = result["names"]["right"]
    if names:
        around: Interval = wilson(sum(names), len(names))
        groups["never"].append(Band("sport, names alone", sum(names) / len(names), around))
    caption = (
        "The share of right answers in held-out wordings, of trained people and of people who were never trained; "
        f"bars: 95 % intervals (Wilson). Dashed: {100 * RECALLED:g} %."
    )
    return [bands(folder, "recall", groups, caption, "share of right answers", {"--": RECALLED})]
