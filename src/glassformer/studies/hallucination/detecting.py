"""What tells a model's wrong answers from its right ones: every score beside the others, on the same questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glassformer.factuality.detection import Estimate, auroc, prr, risk_coverage, with_interval
from glassformer.studies.fact_recall.drawing import Band, bands
from glassformer.studies.hallucination import signals
from glassformer.studies.hallucination.bench import SHOTS, Bench
from glassformer.studies.hallucination.signals import Answers, Column
from glassformer.studies.study import Claim, Part, Picture, Result, Setting, Table, claim
from glassformer.tasks.intervals import Interval

READ, AGAIN, SAMPLED = (60, 300, 1000), (60, 150, 600), (40, 60, 300)
"""How many answers are read for attention and to choose a layer, asked about once more, and sampled; by scale."""

SAMPLES = 5
GAIN = 0.05
RESAMPLES = 1000
COMBINED, WITH_PROBE = "all of one pass", "all of one pass, and the probe"
PROBE, QUESTION, LENGTH, ATTENTION = "truth probe", "question only", "answer length", "recurrent attention"
ORDER = ("one pass", "one more call", "sampled", "learnt", "baseline")


def part(bench: Bench) -> Part:
    """The part of a study."""
    return Part(
        name="detection",
        title="What tells wrong answers from right ones",
        question=(
            "A model knows more about its answer than it says: how probable each word was, what else could have stood "
            "there, where it looked. Which of these numbers is high when the answer is wrong, and is it worth to ask "
            "again, or to sample?"
        ),
        method=(
            f"Questions with short known answers, {SHOTS} examples before each; the greedy answer counts as right if "
            "it matches. AUROC: the chance that a wrong answer has the higher score than a right one; PRR: how much "
            "of what a perfect order would gain by rejecting answers a score gains (0: none). A quarter of the "
            "questions, by entity, chooses: the best score of each kind, and the probe's layer. All figures are of "
            "the others. The probe's layer is chosen on a subset, on which attention is read too; one more call and "
            f"{SAMPLES} samples at temperature 1 on smaller ones, each within the larger. What is learnt (probe, "
            "combinations) scores an answer only after fitting to other entities. Intervals and paired differences: "
            f"{RESAMPLES} bootstrap draws of entities."
        ),
        run=lambda setting: _run(bench, setting),
        draw=_draw,
        tables=_tables,
        claims=_claims,
        version=2,
    )


def _run(bench: Bench, setting: Setting) -> Result:
    questions = bench.relation_questions(setting)
    asking = bench.asking(questions)
    answers = Answers.split(bench.answered(questions, asking, setting), bench.seed)
    columns, layer = _measured(bench, answers, asking.max_new_tokens, setting)
    test = sorted(answers.test)
    setting.say("   intervals")
    return {
        "n": len(questions),
        "test": len(test),
        "entities": len(set(answers.entities(test))),
        "wrong": float(answers.wrong(test).mean()),
        "layer": layer,
        "scores": [_row(column, answers) for column in columns],
        "differences": _differences(columns, answers),
    }


def _measured(bench: Bench, answers: Answers, longest: int, setting: Setting) -> tuple[list[Column], int]:
    """All columns, and the layer that the probe reads."""
    count, model, seed, say = len(answers.all), bench.model, bench.seed, setting.say
    sizes = [min(count, setting.pick(*each)) for each in (READ, AGAIN, SAMPLED)]
    read, again, few = signals.subsets(count, sizes, seed)
    told = signals.one_pass(answers)
    looked = signals.attention(answers, read, model, say)
    learnt, layer = signals.probes(answers, read, model, signals.layers_tried(model), seed, say)
    asked = signals.asked_again(answers, again, model)
    say(f"   asked once more about {len(again)} answers")
    embedder = None if setting.scale == "toy" else signals.embedder()
    drawn = signals.sampled(answers, few, model, embedder, setting.pick(2, SAMPLES, SAMPLES), longest, seed, say)
    learnt += [
        signals.together(answers, COMBINED, "", told, seed),
        signals.together(answers, WITH_PROBE, "", [*told, learnt[0]], seed),
    ]
    return [*told, *looked, *asked, *drawn, *learnt], layer


def _row(column: Column, answers: Answers) -> dict[str, Any]:
    """A score's figures on the test questions, as plain values."""
    rows = [row for row in column.rows if row in answers.test]
    values, wrong, entities = column.at(rows), answers.wrong(rows), answers.entities(rows)
    found: dict[str, Any] = {"name": column.name, "paper": column.paper, "n": len(rows)}
    found["cost"] = column.cost if column.paper or column.name.startswith(COMBINED) else "baseline"
    for name, metric in (("auroc", auroc), ("prr", prr)):
        found[name] = plain(with_interval(metric, values, wrong, entities, resamples=RESAMPLES))
    found["half"] = float(risk_coverage(values, wrong).risk[(len(rows) - 1) // 2])
    return found


def plain(one: Estimate) -> list[float]:
    """A figure and the ends of its interval."""
    return [one.value, one.interval.low, one.interval.high]


# --- Comparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    """A column set against another, under a name that a claim asks for."""

    name: str
    first: Column
    second: Column


def _differences(columns: Sequence[Column], answers: Answers) -> list[dict[str, Any]]:
    """Every comparison that a claim asks for. The best of a kind is the best on development: of all questions where
    attention has no part, else of those that it was read of."""
    named = {column.name: column for column in columns}

    def best(cost: str, rows: tuple[int, ...]) -> Column:
        known = set(rows)
        kind = [one for one in columns if one.cost == cost and one.paper and known <= set(one.rows)]
        return best_of(kind, answers, rows)

    told, read = best("one pass", named[LENGTH].rows), best("one pass", named[ATTENTION].rows)
    asked, drawn = (
        best(cost, next(one for one in columns if one.cost == cost).rows) for cost in ("one more call", "sampled")
    )
    wanted = [
        _Compared("length", told, named[LENGTH]),
        _Compared("attention", named[ATTENTION], told),
        _Compared("together", named[COMBINED], told),
        _Compared("probe", named[PROBE], told),
        _Compared("question", named[PROBE], named[QUESTION]),
        _Compared("with probe", named[WITH_PROBE], told),
        _Compared("again", asked, read),
        _Compared("sampled", drawn, read),
    ]
    return [_difference(one, answers) for one in wanted]


def best_of(columns: Sequence[Column], answers: Answers, rows: Sequence[int]) -> Column:
    """The one with the greatest AUROC on the development questions among these."""
    own = [row for row in rows if row in answers.development]
    wrong = answers.wrong(own)
    return max(columns, key=lambda column: auroc(column.at(own), wrong))


def _difference(pair: _Compared, answers: Answers) -> dict[str, Any]:
    """AUROC of the first less that of the second, on the test questions that both have; paired over entities."""
    rows = sorted(set(pair.first.rows) & set(pair.second.rows) & answers.test)
    first, second = pair.first.at(rows), pair.second.at(rows)
    found = paired(first, second, answers.wrong(rows), answers.entities(rows))
    return {"name": pair.name, "first": pair.first.name, "second": pair.second.name, "n": len(rows),
            "difference": plain(found)}  # fmt: skip


def paired(
    first: NDArray[np.float64], second: NDArray[np.float64], wrong: NDArray[np.float64], entities: Sequence[str]
) -> Estimate:
    """AUROC of the first score less that of the second on the same answers, with a paired bootstrap over entities."""
    whole = auroc(first, wrong) - auroc(second, wrong)

    def metric(places: NDArray[np.float64], happened: NDArray[np.float64]) -> float:
        if happened.mean() in (0.0, 1.0):
            return whole
        own = places.astype(int)
        return auroc(first[own], happened) - auroc(second[own], happened)

    return with_interval(metric, range(len(wrong)), wrong, entities, resamples=RESAMPLES)  # type: ignore[arg-type]


# --- Showing ----------------------------------------------------------------------------------------------------------


def _ordered(result: Result) -> list[dict[str, Any]]:
    return sorted(result["scores"], key=lambda row: -row["auroc"][0])


def _draw(result: Result, folder: Path) -> Sequence[Picture]:
    groups: dict[str, list[Band]] = {}
    for cost in ORDER:
        for row in (one for one in _ordered(result) if one["cost"] == cost):
            value, low, high = row["auroc"]
            groups.setdefault(cost, []).append(Band(f"{row['name']} (n = {row['n']})", value, Interval(low, high)))
    caption = (
        f"AUROC of every score on {result['test']} test answers or a subset of them (n), {result['wrong']:.0%} of "
        "them wrong; bars end with 95 % intervals over entities. The dotted line is chance."
    )
    return [bands(folder, "detection", groups, caption, "AUROC", {":": 0.5})]


def _tables(result: Result) -> Sequence[Table]:
    rows = [
        (row["name"], row["cost"], row["paper"] or "—", str(row["n"]), _with(row["auroc"]), _with(row["prr"]),
         f"{row['half']:.1%}")
        for row in _ordered(result)
    ]  # fmt: skip
    rows.append(("always answering", "baseline", "—", str(result["test"]), "0.500", "0.000", f"{result['wrong']:.1%}"))
    rows.append(("always abstaining", "baseline", "—", str(result["test"]), "0.500", "0.000", "nothing answered"))
    columns = ("score", "cost", "paper", "n", "AUROC", "PRR", "wrong among the surer half")
    differences = tuple(
        (f"{one['first']} − {one['second']}", str(one["n"]), _with(one["difference"], "+"))
        for one in result["differences"]
    )
    return [
        Table("Scores by AUROC, on test questions", columns, tuple(rows)),
        Table("Differences of AUROC on the same test questions, paired", ("scores", "n", "difference"), differences),
    ]


def _with(value: Sequence[float], sign: str = "") -> str:
    middle, low, high = value
    return f"{middle:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


_RULE = "The difference of AUROC on the same test questions is above 0 with the whole 95 % interval."
_STATED: tuple[tuple[str, str, float], ...] = (
    ("length", "The best score of one pass tells wrong answers better than their length does.", 0.0),
    ("attention", "Recurrent attention (RAUQ) is better than the best score of the words' probabilities.", 0.0),
    ("together", "All scores of one pass together, with learnt weights, are better than the best of them.", 0.0),
    ("probe", "A linear probe of the hidden states is better than the best score of one pass.", 0.0),
    ("question", "The probe reads more than the question alone tells.", 0.0),
    ("with probe", f"Everything of one pass with the probe adds {GAIN:g} to the best single score.", GAIN),
    ("again", "Asking the model once more is better than one pass.", 0.0),
    ("sampled", "Sampling is better than one pass on the same questions.", 0.0),
)


def _claims(result: Result) -> Sequence[Claim]:
    found = {one["name"]: one for one in result["differences"]}
    return [_claim(found[name], text, least) for name, text, least in _STATED]


def _claim(found: dict[str, Any], text: str, least: float) -> Claim:
    value, low, _ = found["difference"]
    rule = _RULE if not least else f"{_RULE[:-1]}, and at least {least:g}."
    measured = f"{found['first']} − {found['second']}: {_with(found['difference'], '+')}, n = {found['n']}."
    return claim(text, rule, measured, low > 0 and value >= least)
